"""Generated videos as files, each with its latent (kept if asked) and a JSON that says what it is.

a.mp4                  or a.png for one frame
a.json                 prompt, seed, settings, SHA-256 of the weights, versions
a.latent.safetensors   written before decoding; scripts/decode.py decodes it too
"""

import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg import __version__
from mg.data.image_writer import write_png
from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.video_writer import write_video
from mg.files import write_text
from mg.models.tae.config import LOGVAR_MIN
from mg.pipelines.autoencoder import config_hash, weights_hash
from mg.pipelines.sampling_checks import texts_of
from mg.pipelines.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = [
    "VIDEO_SUFFIXES",
    "about_generator",
    "check_outputs",
    "numbered_paths",
    "read_prompts",
    "write_generated",
]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
IMAGE_SUFFIX = ".png"


def read_prompts(path: str | os.PathLike) -> list[str]:
    """Return the prompts of a text file, one per line; empty lines are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it has no prompt, or is no UTF-8 text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"prompts_file not found: {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts_file {path} is no UTF-8 text: {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"prompts_file {path} has no prompts; expected one per line")
    return prompts


def numbered_paths(folder: str | os.PathLike, num_videos: int, num_frames: int) -> list[Path]:
    """Return FOLDER/0000.mp4, FOLDER/0001.mp4, ...; .png for videos of one frame."""
    suffix = IMAGE_SUFFIX if num_frames == 1 else VIDEO_SUFFIXES[0]
    return [Path(folder) / f"{number:04d}{suffix}" for number in range(num_videos)]


def check_outputs(paths: Sequence[Path], num_frames: int, *, overwrite: bool) -> None:
    """Raise unless all videos, with what stands beside them, may be written under these names.

    Raises:
        FileExistsError: a file is there already and `overwrite` is false.
        ValueError: a name that is none of a video, or one of an image for several frames.
    """
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == IMAGE_SUFFIX and num_frames != 1:
            raise ValueError(
                f"{path} would be an image, but num_frames={num_frames}; give num_frames=1, or a "
                f"name that ends in {VIDEO_SUFFIXES[0]}"
            )
        if suffix not in (IMAGE_SUFFIX, *VIDEO_SUFFIXES):
            raise ValueError(
                f"{path}: expected a name that ends in {', '.join(VIDEO_SUFFIXES)}, or in "
                f"{IMAGE_SUFFIX} for one frame"
            )
    beside = [name for path in paths for name in (path, _metadata_path(path), _latent_path(path))]
    there = [path for path in beside if path.exists()]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise FileExistsError(
            f"{there[0]}{more} exists already; choose another output or pass --overwrite"
        )


def write_generated(
    generator: "TextToVideo",
    prompts: Sequence[str],
    paths: Sequence[Path],
    *,
    seeds: Sequence[int],
    settings: SamplingSettings,
    batch_size: int = 1,
    truncate: bool = False,
    keep_latents: bool = False,
    overwrite: bool = False,
    origin: dict[str, Any] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of each video, uint8 (T, H, W, 3), once its files are written.

    The latent is on disk before the video is decoded; without `keep_latents` it is removed after.

    Args:
        generator: of the videos.
        prompts, paths, seeds: one per video.
        settings: of all.
        batch_size, truncate: as `TextToVideo.latents`.
        keep_latents: whether the latents stay.
        overwrite: whether existing files may be replaced.
        origin: what else the metadata say about where the video comes from.

    Raises:
        FileExistsError, ValueError: as `check_outputs` and `TextToVideo.latents`, before anything
            is computed.
    """
    check_outputs(paths, settings.num_frames, overwrite=overwrite)
    latents = generator.latents(
        prompts, seeds, settings=settings, batch_size=batch_size, truncate=truncate
    )
    info = _latent_info(generator, settings)
    texts = texts_of(prompts, settings, fps_prefix=generator.defaults.fps_prefix)
    for path, prompt, text, seed, latent in zip(paths, prompts, texts, seeds, latents, strict=True):
        own = dataclasses.replace(info, source=path.name, settings={"prompt": prompt, "seed": seed})
        with LatentWriter(_latent_path(path), own, overwrite=overwrite) as writer:
            writer.write(latent, np.full_like(latent, LOGVAR_MIN))  # a point, no distribution
        frames = generator.decode(latent, settings.num_frames)
        if path.suffix.lower() == IMAGE_SUFFIX:
            write_png(path, frames[0], overwrite=overwrite)
        else:
            write_video(path, frames, fps=settings.fps, overwrite=overwrite)
        metadata = {
            "prompt": prompt,
            "text": text,
            "seed": seed,
            **dataclasses.asdict(settings),
            **about_generator(generator),
            **(origin or {}),
        }
        write_text(_metadata_path(path), _json(metadata), overwrite=overwrite)
        if not keep_latents:
            _latent_path(path).unlink()
        yield frames


def _metadata_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _latent_path(path: Path) -> Path:
    return path.with_suffix(".latent.safetensors")


def _latent_info(generator: "TextToVideo", settings: SamplingSettings) -> LatentInfo:
    config = generator.tae.config
    return LatentInfo(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        source="",
        config=config.to_dict(),
        config_hash=config_hash(config),
        weights_hash=weights_hash(generator.tae),
        settings={},
    )


def about_generator(generator: "TextToVideo") -> dict[str, Any]:
    """Return what of the generator and the machine decides the numbers."""
    import mindspore as ms

    return {
        "sha256": generator.sha256,
        "dtype": generator.dtype,
        "decode_dtype": generator.decode_dtype,
        "text_encoders": [encoder.identity for encoder in generator.text_encoders],
        "device": ms.get_context("device_target"),
        "versions": {
            "mg": __version__,
            "mindspore": ms.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
