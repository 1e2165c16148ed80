"""The validation of a denoiser: the loss of held-out latents at fixed times, with fixed noise."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from mg.data.latent_dataset import LatentBatch, LatentDataset, LatentDraw, LatentSample
from mg.flow.noise import keyed_noise
from mg.flow.objectives import FlowObjective, Objective
from mg.flow.validation_loss import validation_losses
from mg.training.denoiser.denoiser_config import FlowValidationSettings
from mg.training.metric import DIFFUSION_LOSS, FLOW_LOSS, Metric

__all__ = ["FlowValidation", "held_out_losses", "metric_of", "summary_of_losses"]

FLOW = FlowObjective()
SEED = 0  # the same in all runs, so that their losses can be compared


def metric_of(objective: Objective) -> Metric:
    """Return the number that an objective is judged by."""
    return FLOW_LOSS if isinstance(objective, FlowObjective) else DIFFUSION_LOSS


class FlowValidation:
    """Measures the loss of held-out latents; they are kept in memory.

    Args:
        dataset: the latents, with their text.
        settings: how many are measured, and how.
        objective: what the network was trained for.

    Raises:
        FileNotFoundError, ValueError: a latent cannot be read.
    """

    def __init__(
        self,
        dataset: LatentDataset,
        settings: FlowValidationSettings,
        objective: Objective = FLOW,
    ) -> None:
        self.objective = objective
        self.times = objective.time_grid(settings.num_times)
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
        """Return the mean over clips and times, and the losses by time, as `summary_of_losses`.

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
        return summary_of_losses(losses, self.times, self.objective)

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
            objective=self.objective,
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
    objective: Objective = FLOW,
) -> np.ndarray:
    """Return the losses (clips, times) of latents with fixed noise.

    Args:
        network: gives what the objective has it predict.
        mean, std: of the posterior of each latent, scaled, float32 (B, C, T, H, W).
        conditions: what the network is conditioned on.
        times: float32 (n,).
        first_place: number of the first clip among all.
        objective: what the network was trained for.
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
        objective=objective,
    )


def summary_of_losses(
    losses: Sequence[np.ndarray], times: np.ndarray, objective: Objective = FLOW
) -> dict[str, Any]:
    """Return `flow_loss`, the mean over clips and times, and `flow_loss_at_t`, by time.

    Of a diffusion they are called `diffusion_loss` and `diffusion_loss_at_step`.

    Args:
        losses: of each batch, (clips, times).
        times: (n,).
        objective: what the network was trained for.
    """
    by_time = np.concatenate(losses).mean(axis=0)  # (clips, times) -> (times,)
    named = zip(map(objective.name_of, times), by_time, strict=True)
    metric = metric_of(objective)
    return {
        metric.key: float(by_time.mean()),
        metric.parts_key: {name: float(loss) for name, loss in named},
    }


def _read(dataset: LatentDataset, draw: LatentDraw) -> LatentSample:
    try:
        return dataset.read(draw)
    except (OSError, ValueError) as error:
        raise ValueError(f"validation: {draw.name}: {error}") from error


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """Return (B, ...) with the last row repeated up to `size` rows."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
