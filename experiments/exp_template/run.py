"""Run every variant of config.yaml; write a table and a plot that compare them.

python experiments/exp_template/run.py
python experiments/exp_template/run.py --steps 20 --output_path outputs/quick
"""

import dataclasses
import hashlib
import json
import logging
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mg.cli import config_of_mapping, parse_config, run_main
from mg.data.captions import read_captions
from mg.data.video_table import write_video_table
from mg.device import DeviceConfig, setup_device
from mg.files import atomic_path, write_text
from mg.pipelines.generator_folder import SHIPPED_AUTOENCODER
from mg.shapes.video_demo import ENCODERS, write_clips
from mg.training.denoiser.denoiser_config import TrainDenoiserConfig
from mg.training.run.run_log import read_log

logger = logging.getLogger("mg")

FOLDER = Path(__file__).resolve().parent
SHARED = ("lr", "batch_size", "steps", "seed")
SHORT_NAMES = {"lr": "optim.lr", "lr_schedule": "optim.lr_schedule"}
CLIPS = ("resolution", "num_frames", "autoencoder")
# What the experiment decides itself, so that runs can be compared.
OWN = ("output_path", "csv_path", "latent_folder", "tae", "validation.csv_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig(DeviceConfig):
    """An experiment: settings that all runs share, and variants of them.

    Args:
        variants: {name: what differs}: fields of `model`; lr, batch_size, steps, seed; resolution,
            num_frames, autoencoder; or any setting of a training (mg train --help-all) by its
            dotted name, such as optim.warmup_steps.
        family: of the denoiser.
        model: fields of its config.
        num_videos: clips that are drawn to train on.
        num_held_out: clips that the flow loss is measured on.
        steps: of each run.
        batch_size: clips per step.
        lr: learning rate.
        seed: of weights, order and noise.
        resolution: side of the clips in pixels.
        num_frames: of the clips.
        autoencoder: what encodes them, a file or a public name.
        output_path: folder for clips, latents and runs.
        results: folder for the table and the plot; null for `results` beside this script.
        overwrite: replace what is in output_path.
    """

    variants: dict[str, dict[str, Any]]
    family: str = "cogvideox"
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_videos: int = 64
    num_held_out: int = 16
    steps: int = 120
    batch_size: int = 8
    lr: float = 1e-3
    seed: int = 0
    resolution: int = 64
    num_frames: int = 16
    autoencoder: str = str(SHIPPED_AUTOENCODER)
    output_path: str = f"outputs/{FOLDER.name}"
    results: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.variants:
            raise ValueError("variants is empty; expected at least one, such as base: {}")
        if self.num_held_out < 1:
            raise ValueError(f"num_held_out={self.num_held_out}; expected 1 or more")
        for name in self.variants:
            self.training(name)  # refuses what no run can be made of

    def training(self, variant: str) -> TrainDenoiserConfig:
        """Return the settings of one variant's run.

        Raises:
            ValueError: a setting that no run has, or a value that it refuses.
        """
        clips, changes = self.clips(variant), dict(self.variants[variant] or {})
        for name in CLIPS:
            changes.pop(name, None)
        settings: dict[str, Any] = {
            "output_path": str(Path(self.output_path) / "runs" / variant),
            "csv_path": str(clips.folder / "train.csv"),
            "latent_folder": str(clips.latents),
            "tae": clips.autoencoder,
            "overwrite": self.overwrite,
            "model": {"family": self.family, **self.model},
            "text": {"encoders": ENCODERS.get(self.family, ["word"])},
            "optim": {"ema_decay": None},
            "validation": {"csv_path": str(clips.folder / "held_out.csv")},
            "device": self.device,
            "mode": self.mode,
        }
        try:
            for name, value in ({name: getattr(self, name) for name in SHARED} | changes).items():
                put(settings, SHORT_NAMES.get(name, name), value)
            # Measured and kept before and after, unless a variant says otherwise.
            settings.setdefault("checkpoint_interval", settings["steps"])
            settings["validation"].setdefault("interval", settings["steps"])
            return config_of_mapping(TrainDenoiserConfig, settings)
        except ValueError as error:
            raise ValueError(f"variant {variant}: {error}") from error

    def clips(self, variant: str) -> "Clips":
        """Return which clips a variant is trained on."""
        changes = self.variants[variant] or {}
        return Clips(Path(self.output_path), **{n: changes.get(n, getattr(self, n)) for n in CLIPS})


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of one size, and the autoencoder that their latents are of."""

    output: Path
    resolution: int
    num_frames: int
    autoencoder: str

    def __post_init__(self) -> None:
        for name, least in (("resolution", 16), ("num_frames", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name}={value!r}; expected a whole number of {least} or more")

    @property
    def folder(self) -> Path:
        """Where the clips are."""
        return self.output / f"clips_{self.resolution}px_{self.num_frames}f"

    @property
    def latents(self) -> Path:
        """Where their latents are."""
        digest = hashlib.sha256(self.autoencoder.encode()).hexdigest()[:8]
        return self.output / f"latents_{self.resolution}px_{self.num_frames}f_{digest}"


def put(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set one of nested settings by its dotted name; a mapping changes what it names alone.

    Raises:
        ValueError: the experiment itself decides that.
    """
    if name in OWN:
        raise ValueError(f"{name} is set by the experiment; leave it out")
    if isinstance(value, Mapping):
        for key, part in value.items():
            put(settings, f"{name}.{key}", part)
        return
    *sections, last = name.split(".")
    for section in sections:
        inner = settings.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{name}: {section} is a single value here")
        settings = inner
    settings[last] = value


def main() -> None:
    """Draw, encode, train each variant, compare."""
    arguments = sys.argv[1:]
    if not any(argument.startswith("--config") for argument in arguments):
        arguments = ["--config", str(FOLDER / "config.yaml"), *arguments]
    config = parse_config(ExperimentConfig, arguments, description=__doc__)
    every = list(dict.fromkeys(map(config.clips, config.variants)))
    for folder in dict.fromkeys(clips.folder for clips in every):
        make_clips(config, next(clips for clips in every if clips.folder == folder))
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.training.denoiser.denoiser_trainer import DenoiserTrainer

    for clips in every:
        encode(config, clips)
    rows, losses = [], {}
    for name in config.variants:
        logger.info("Variant %s", name)
        trainer = DenoiserTrainer(config.training(name))
        task = trainer.task
        num_parameters = task.family.num_parameters(task.model)
        trainer.run()
        row, losses[name] = outcome(config.training(name), name, num_parameters)
        rows.append(row)
    results = Path(config.results) if config.results else FOLDER / "results"
    write_text(results / "table.md", table(rows), overwrite=True)
    plot(results / "losses.png", losses)
    logger.info("%s\n%s", results / "table.md", table(rows))


def make_clips(config: ExperimentConfig, clips: Clips) -> None:
    """Draw clips, and write a table of those to train on and one of those held out."""
    folder = clips.folder
    write_clips(
        folder,
        config.num_videos + config.num_held_out,
        size=clips.resolution,
        num_frames=clips.num_frames,
        overwrite=config.overwrite,
    )
    videos = read_captions(folder / "captions.csv").videos
    for name, part in (
        ("train.csv", videos[: config.num_videos]),
        ("held_out.csv", videos[config.num_videos :]),
    ):
        rows = ((video.name, video.caption) for video in part)
        write_video_table(folder / name, ("video", "caption"), rows, overwrite=config.overwrite)


def encode(config: ExperimentConfig, clips: Clips) -> None:
    """Encode clips, those that are held out too."""
    from mg.data.manifest import build_manifest
    from mg.models.reading import read_autoencoder
    from mg.pipelines.encode import encode_videos

    autoencoder = read_autoencoder(clips.autoencoder).build()
    manifest = build_manifest(csv_path=clips.folder / "captions.csv")
    encode_videos(autoencoder, manifest, clips.latents, overwrite=config.overwrite)


def outcome(
    training: TrainDenoiserConfig, name: str, num_parameters: int
) -> tuple[dict[str, Any], list[float]]:
    """Return a row of the table, and the loss of each step."""
    folder = Path(training.output_path)
    log = read_log(folder / "log.jsonl")
    losses = [entry["loss"] for entry in log]
    lines = (folder / "validation.jsonl").read_text().splitlines()
    held_out = [json.loads(line)["flow_loss"] for line in lines]
    seconds = sorted(entry["seconds"] for entry in log[1:] or log)  # the first step compiles
    row = {
        "variant": name,
        "parameters": f"{num_parameters:,}",
        "held-out loss before": f"{held_out[0]:.4f}",
        "held-out loss after": f"{held_out[-1]:.4f}",
        "ms per step (median)": f"{1000 * seconds[len(seconds) // 2]:.0f}",
    }
    return row, losses


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown, with the machine that they were measured on."""
    import mindspore as ms

    lines = ["| " + " | ".join(rows[0]) + " |", "| " + " | ".join("---" for _ in rows[0]) + " |"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines) + f"\n\n{platform.machine()}, MindSpore {ms.__version__}\n"


def plot(path: Path, losses: dict[str, list[float]]) -> None:
    """Draw the smoothed training loss of each variant into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from mg.training.run.curves import smoothed

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in losses.items():
        axes.plot(smoothed(values), label=name)
    axes.set(xlabel="step", ylabel="flow loss (smoothed)")
    axes.legend()
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    run_main(main)
