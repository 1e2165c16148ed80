"""Held-out pairs while both networks train: the flow loss of the edits, and the VAE's PSNR."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from mg.data.clips import ClipConfig, ClipDraw
from mg.data.edit_pairs import EditBatch, EditPairDataset, find_edit_pairs
from mg.data.transforms import from_model_range
from mg.flow.times import time_grid
from mg.metrics.psnr import psnr
from mg.models.autoencoder import Autoencoder
from mg.training.autoencoder.validation import naming_validation
from mg.training.denoiser.flow_validation import SEED, held_out_losses, summary_of_losses
from mg.training.video_to_video.video_to_video_config import PairValidationSettings

__all__ = ["PairValidation"]

# Of a batch: mean and std of the edits' latents, and what the denoiser is conditioned on.
Encode = Callable[[EditBatch], tuple[np.ndarray, np.ndarray, list[np.ndarray]]]


class PairValidation:
    """Measures both networks on held-out pairs, which are kept in memory.

    The flow loss is that of latents as the VAE makes them at the time: while the VAE trains, what
    is to be predicted moves too, and so does what a loss is worth.

    Args:
        settings: which pairs, and how they are measured.
        clips: how clips are cut out of them; always in the middle.
        batch_size: clips that are computed together.

    Raises:
        FileNotFoundError, ValueError: there are no such pairs, or one cannot be read.
    """

    def __init__(
        self, settings: PairValidationSettings, clips: ClipConfig, *, batch_size: int
    ) -> None:
        self.times = time_grid(settings.num_times)
        with naming_validation():
            pairs = find_edit_pairs(settings.csv_path, video_folder=settings.video_folder)
            centred = dataclasses.replace(clips, crop="center")
            dataset = EditPairDataset(pairs, centred, text_dropout=0, source_dropout=0)
            draws = [
                ClipDraw(clip, (SEED, place), is_image=False)
                for place, clip in enumerate(dataset.manifest.clips[: settings.num_clips])
            ]
            self.batches: list[tuple[int, EditBatch]] = []  # with how many clips of each count
            for first in range(0, len(draws), batch_size):
                some = draws[first : first + batch_size]
                # A short last batch is filled up, so that it needs no graph of its own.
                full = [*some, *[some[-1]] * (batch_size - len(some))]
                batch = dataset.collate(full, [dataset.read(draw) for draw in full])
                self.batches.append((len(some), batch))

    def run(
        self,
        encode: Encode,
        velocity: nn.Cell,
        vae: Autoencoder,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any] | None:
        """Return `flow_loss`, `flow_loss_at_t`, by time, and the VAE's `psnr` and `psnr_per_clip`.

        None if `should_stop` is true before all is measured.

        Args:
            encode: gives the latents of a batch, with the VAE as it is.
            velocity: the denoiser, which gives velocities.
            vae: reconstructs the edits from their posterior's mean.
            should_stop: asked before each batch.
        """
        losses, quality, first = [], {}, 0
        vae.set_train(False)
        try:
            for number, batch in self.batches:
                if should_stop():
                    return None
                found = held_out_losses(
                    velocity, *encode(batch), times=self.times, first_place=first
                )
                losses.append(found[:number])
                made = vae(Tensor(batch.frames)).asnumpy()
                for name, clip, frames in zip(batch.names, made, batch.frames, strict=True):
                    both = from_model_range(frames), from_model_range(clip)
                    quality[name] = float(psnr(*both).mean())
                first += number
        finally:
            vae.set_train(True)
        return {
            **summary_of_losses(losses, self.times),
            "psnr": float(np.mean(list(quality.values()))),
            "psnr_per_clip": quality,
        }
