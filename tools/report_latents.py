#!/usr/bin/env python
"""Report mean, deviation and outliers of latent channels, and how latents are built.

    python tools/report_latents.py --input videos --ckpt_path tae.safetensors --image_size 256
    python tools/report_latents.py --input outputs/latents --json outputs/latents.json

Beside the outliers: local correlation, spectra in space and time, and the channels'
eigenspectrum, which tell how hard the latents are for a generator (--plot draws them). Comparing
the reports of two checkpoints on the same videos shows what a regulariser does.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from latent_plot import draw_structure
from mg.cli import parse_config, run_main
from mg.console import printable
from mg.data.latent_files import list_latent_files, read_latent
from mg.data.manifest import build_manifest
from mg.data.media_rules import Reading
from mg.device import setup_device
from mg.files import check_writable_folder, write_text
from mg.metrics.latent_structure import LatentStructure
from mg.metrics.latents import LatentReport
from mg.pipelines.autoencoder import AutoencoderConfig, load_autoencoder

logger = logging.getLogger("mg")

# Settings that only matter where videos are encoded, and their defaults.
_ENCODING = {
    **vars(AutoencoderConfig(ckpt_path="")),
    "ckpt_path": None,
    "image_size": None,
    "reading": Reading(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportLatentsConfig(AutoencoderConfig):
    """A report over latents; they are the posterior's means, unscaled.

    Args:
        input: with ckpt_path a video or a folder of videos; without it a latent file, or a folder
            of them, that scripts/encode.py wrote.
        ckpt_path: weights of the autoencoder that encodes the videos.
        reading: largest frames that are read (max_pixels), and whether pixels are made square.
        image_size: side of a square, or [height, width], in pixels; null keeps the videos' size.
        r: an outlier lies more than this many standard deviations from the mean of its map.
        json: file for the figures.
        plot: PNG file for the spectra.
        overwrite: whether an existing json or plot file is replaced.
    """

    input: str
    ckpt_path: str | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)
    image_size: int | tuple[int, int] | None = None
    r: float = 3.0
    json: str | None = None
    plot: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ckpt_path is None:
            unused = [name for name, default in _ENCODING.items() if getattr(self, name) != default]
            if unused:
                raise ValueError(
                    f"{unused} are for encoding videos; without ckpt_path they do nothing"
                )
        for name in ("json", "plot"):
            path = getattr(self, name)
            if path is not None and Path(path).exists() and not self.overwrite:
                raise FileExistsError(f"{path} exists; choose another --{name} or add --overwrite")
        if self.plot is not None and Path(self.plot).suffix != ".png":
            raise ValueError(f"plot={self.plot}; expected the name of a .png file")


def main() -> None:
    """Parse, read or encode, report."""
    config = parse_config(ReportLatentsConfig, description=__doc__)
    for path in (config.json, config.plot):
        if path is not None:
            check_writable_folder(Path(path).parent)
    report, structure = LatentReport(r=config.r), LatentStructure()
    latents = stored_latents(config) if config.ckpt_path is None else encoded_latents(config)
    for name, latent in latents:
        report.add(name, latent)
        structure.add(latent)
    print(printable(report.table(), max_lines=sys.maxsize))
    print(structure.table())
    if report.summary()["largest_map"] <= config.r**2 + 1:
        logger.warning("No map is large enough to have a value beyond %g deviations.", config.r)
    if config.json is not None:
        content = {**report.summary(), "structure": structure.summary()}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_text(config.json, text, overwrite=config.overwrite)
    if config.plot is not None:
        draw_structure(config.plot, structure.summary(), overwrite=config.overwrite)


def stored_latents(config: ReportLatentsConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and mean of each latent file; those that cannot be read are listed."""
    num_read, reason = 0, ""
    for name, path in list_latent_files(config.input).items():
        try:
            latent = read_latent(path)
        except (ValueError, OSError) as error:
            reason = str(error)
            logger.warning("%s is left out: %s", name, reason)
            continue
        num_read += 1
        yield name, latent.mean
    if not num_read:
        raise ValueError(f"no latent of {config.input} could be read: {reason}")


def encoded_latents(config: ReportLatentsConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and mean of the latent of each video, piece by piece along time."""
    manifest = build_manifest(video_folder=config.input, reading=config.reading)
    for entry in manifest.rejected:
        logger.warning("%s is left out: %s", entry.name, entry.reason)
    setup_device(config)
    from mg.pipelines.encode import frame_size
    from mg.pipelines.streaming import encode_frames, read_frames

    tae = load_autoencoder(config)
    for clip in manifest.clips:
        size = frame_size(clip, config.image_size, tae.spec)
        if config.memory_budget_gb is not None:
            budget = config.memory_budget_gb
            tae.tiling = tae.tiling_within(budget, *size)
        frames = read_frames(clip, size, rescale=config.image_size is not None)
        for mean, _ in encode_frames(tae, frames):
            yield clip.name, mean


if __name__ == "__main__":
    run_main(main)
