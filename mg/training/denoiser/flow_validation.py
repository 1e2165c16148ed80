"""The validation of a flow: the loss of held-out latents at fixed times, with fixed noise."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from mg.data.latent_dataset import LatentBatch, LatentDataset, LatentDraw, LatentSample
from mg.flow.noise import keyed_noise
from mg.flow.times import time_grid
from mg.flow.validation_loss import validation_losses
from mg.training.denoiser.denoiser_config import FlowValidationSettings

__all__ = ["FlowValidation", "held_out_losses", "summary_of_losses"]

SEED = 0  # the same in all runs, so that their losses can be compared


class FlowValidation:
    """Measures the flow loss of held-out latents; they are kept in memory.

    Args:
        dataset: the latents, with their text.
        settings: how many are measured, and how.

    Raises:
        FileNotFoundError, ValueError: a latent cannot be read.
    """

    def __init__(self, dataset: LatentDataset, settings: FlowValidationSettings) -> None:
        self.times = time_grid(settings.num_times)
        self.batch_size = settings.batch_size
        chosen = {clip.name for clip in dataset.manifest.clips[: settings.num_clips]}
        self.batches: list[LatentBatch] = []
        for clips in dataset.manifest.buckets().values():
            draws = [
                LatentDraw(clip, (0, place), dataset.manifest.spec)
                for place, clip in enumerate(clip for clip in clips if clip.name in chosen)
            ]
            for first in range(0, len(draws), settings.batch_size):
                some = draws[first : first + settings.batch_size]
                self.batches.append(dataset.collate(some, [_read(dataset, d) for d in some]))

    def run(
        self, network: nn.Cell, *, should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any] | None:
        """Return `flow_loss`, the mean over clips and times, and `flow_loss_at_t`, by time.

        None if `should_stop` is true before all is measured.

        Args:
            network: with the weights to measure.
            should_stop: asked before each batch.
        """
        losses, place = [], 0
        for batch in self.batches:
            if should_stop():
                return None
            losses.append(self._losses(network, batch, place))
            place += len(batch.names)
        return summary_of_losses(losses, self.times)

    def _losses(self, network: nn.Cell, batch: LatentBatch, first_place: int) -> np.ndarray:
        """Return the losses (clips, times) of one batch, whose first clip has this number."""
        num_clips = len(batch.names)
        # A short last batch is filled up, so that it needs no graph of its own.
        fill = functools.partial(_filled, size=self.batch_size)
        losses = held_out_losses(
            network,
            fill(batch.mean),
            fill(batch.std),
            [fill(array) for array in batch.conditions],
            times=self.times,
            first_place=first_place,
        )
        return losses[:num_clips]


def held_out_losses(
    network: nn.Cell,
    mean: np.ndarray,
    std: np.ndarray,
    conditions: Sequence[np.ndarray],
    *,
    times: np.ndarray,
    first_place: int,
) -> np.ndarray:
    """Return the losses (clips, times) of latents with fixed noise.

    Args:
        network: gives velocities.
        mean, std: of the posterior of each latent, scaled, float32 (B, C, T, H, W).
        conditions: what the network is conditioned on.
        times: float32 (n,).
        first_place: number of the first clip among all.
    """
    noise = keyed_noise(
        mean.shape[1:], len(mean), kind="posterior", seed=SEED, step=0, first_place=first_place
    )
    return validation_losses(
        network,
        mean + std * noise,
        [Tensor(array) for array in conditions],
        times=times,
        seed=SEED,
        first_place=first_place,
    )


def summary_of_losses(losses: Sequence[np.ndarray], times: np.ndarray) -> dict[str, Any]:
    """Return `flow_loss`, the mean over clips and times, and `flow_loss_at_t`, by time.

    Args:
        losses: of each batch, (clips, times).
        times: (n,).
    """
    by_time = np.concatenate(losses).mean(axis=0)  # (clips, times) -> (times,)
    return {
        "flow_loss": float(by_time.mean()),
        "flow_loss_at_t": {f"{t:.2f}": float(loss) for t, loss in zip(times, by_time, strict=True)},
    }


def _read(dataset: LatentDataset, draw: LatentDraw) -> LatentSample:
    try:
        return dataset.read(draw)
    except (OSError, ValueError) as error:
        raise ValueError(f"validation: {draw.name}: {error}") from error


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """Return (B, ...) with the last row repeated up to `size` rows."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
