"""Train a small video generator on clips that are drawn for it: no data needed, a few minutes.

mg train-demo
mg train-demo --family cogvideox --output_path outputs/cogvideox_demo
"""

import dataclasses
import logging
from pathlib import Path

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.known_names import one_of
from mg.models.families import DENOISERS, denoiser_family
from mg.pipelines.generator_folder import SHIPPED_AUTOENCODER
from mg.shapes.video_demo import demo_training, epoch_losses, write_clips

logger = logging.getLogger("mg")


# What --help shows.
COMMON = (
    "family",
    "output_path",
    "num_videos",
    "epochs",
    "batch_size",
    "lr",
    "overwrite",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoDemoConfig(DeviceConfig):
    """A demonstration of training.

    Args:
        family: family of the denoiser, at its preset `tiny`.
        output_path: folder for clips, latents, weights and curves.
        num_videos: clips that are drawn.
        epochs: how often each is seen.
        batch_size: clips per step.
        lr: learning rate.
        overwrite: replace what is in output_path.
    """

    family: str = one_of("movie_gen", tuple(DENOISERS))
    output_path: str = "outputs/video_demo"
    num_videos: int = 80
    epochs: int = 3
    batch_size: int = 8
    lr: float = 1e-3
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        denoiser_family(self.family)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; expected 1 or more")
        if self.num_videos < self.batch_size:
            raise ValueError(
                f"num_videos={self.num_videos} is less than batch_size={self.batch_size}"
            )


def main() -> None:
    """Draw, encode, train; log the loss of each epoch."""
    config = parse_config(VideoDemoConfig, description=__doc__, common=COMMON)
    folder = Path(config.output_path)
    training = demo_training(
        folder,
        family=config.family,
        tae=SHIPPED_AUTOENCODER,
        steps_per_epoch=config.num_videos // config.batch_size,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        overwrite=config.overwrite,
        device=config,
    )
    write_clips(folder / "clips", config.num_videos, overwrite=config.overwrite)
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.data.manifest import build_manifest
    from mg.models.reading import read_autoencoder
    from mg.pipelines.encode import encode_videos
    from mg.training.denoiser.denoiser_trainer import DenoiserTrainer

    autoencoder = read_autoencoder(SHIPPED_AUTOENCODER).build()
    manifest = build_manifest(csv_path=training.csv_path)
    encode_videos(autoencoder, manifest, training.latent_folder, overwrite=config.overwrite)
    DenoiserTrainer(training).run()
    for epoch, loss in enumerate(epoch_losses(training, config.epochs)):
        logger.info("Epoch %d: average loss %.4f", epoch, loss)
