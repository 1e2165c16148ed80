"""Held-out clips reconstructed while training: numbers and a video to look at."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mindspore import Tensor

from mg.data.manifest import Manifest, build_manifest
from mg.data.media_rules import Reading
from mg.data.media_source import MediaSource
from mg.data.transforms import from_model_range, resize_and_crop, to_model_range
from mg.data.video_writer import write_video
from mg.metrics.measures import Measures
from mg.metrics.protocol import Protocol
from mg.metrics.report import QualityReport
from mg.models.autoencoder import Autoencoder
from mg.training.settings import ValidationSettings

__all__ = ["Validation", "naming_validation"]

logger = logging.getLogger("mg")


def _build_manifest(settings: ValidationSettings, reading: Reading) -> Manifest:
    with naming_validation():
        return build_manifest(
            csv_path=settings.csv_path,
            video_folder=settings.video_folder,
            min_frames=settings.num_frames,
            reading=reading,
        )


@contextmanager
def naming_validation() -> Iterator[None]:
    """Say of errors of the block that they are about the held-out clips."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"validation: {error}") from error


class Validation:
    """Reconstructs the held-out clips and keeps the first frames of each in memory.

    Args:
        settings: which clips, and how many frames of what size.
        reading: how their files are read.

    Raises:
        ValueError: there is no usable clip; the message lists why for each.
    """

    def __init__(self, settings: ValidationSettings, reading: Reading) -> None:
        manifest = _build_manifest(settings, reading)
        logger.info("Held-out clips:\n%s", manifest.table())
        self.protocol = Protocol.of_covering_frames(
            "validation", num_frames=settings.num_frames, crop_size=settings.height_width
        )
        self.measures = Measures(["psnr", "ssim"], self.protocol.metrics)
        self.paths = {clip.path.resolve() for clip in manifest.clips}
        self.clips: dict[str, np.ndarray] = {}  # name -> uint8 (T, H, W, 3)
        self.fps: dict[str, float] = {}
        for clip in manifest.clips:
            with clip.open() as reader:
                frames = reader.read(np.arange(settings.num_frames))
            self.clips[clip.name] = resize_and_crop(frames, size=settings.height_width)
            self.fps[clip.name] = clip.fps

    def warn_of_clips_trained_on(self, trained_on: set[MediaSource]) -> None:
        """Warn if some of the clips are among these files, whose figures then say little."""
        if both := self.paths & trained_on:
            logger.warning(
                "%d of %d held-out clips are trained on too, such as %s: their figures show how "
                "well these clips are known, not how the network does on new ones.",
                len(both),
                len(self.paths),
                min(both, key=str).name,
            )

    def run(
        self,
        autoencoder: Autoencoder,
        *,
        video_path: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> QualityReport | None:
        """Return PSNR and SSIM of the clips as reconstructed from the posterior's mean.

        None if `should_stop` is true before all clips are done; nothing is written then.

        Args:
            autoencoder: the network, with the weights to measure.
            video_path: where to write an mp4 of all clips in a row, original | reconstruction.
            should_stop: asked before each clip.
        """
        report = QualityReport()
        rows = []
        autoencoder.set_train(False)
        for name, frames in self.clips.items():
            if should_stop():
                autoencoder.set_train(True)
                return None
            video = Tensor(to_model_range(frames)[None])  # (1, 3, T, H, W)
            reconstruction = from_model_range(autoencoder(video).asnumpy()[0])  # (T, H, W, 3)
            report.add_measured(name, self.measures(frames, reconstruction)[0])
            rows.append(np.concatenate([frames, reconstruction], axis=2))
        autoencoder.set_train(True)
        if video_path is not None:
            fps = next(iter(self.fps.values()))
            write_video(video_path, np.concatenate(rows), fps=fps, overwrite=True)
        return report
