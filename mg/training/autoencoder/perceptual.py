"""LPIPS in a training: its weights, checked against the clips, and the frames that it looks at."""

from collections.abc import Iterable

import numpy as np

from mg.losses.perceptual import PerceptualLoss, draw_frame_indices
from mg.metrics.lpips import load_lpips
from mg.training.autoencoder.loss_settings import LossSettings

__all__ = ["compared_frames", "load_perceptual"]


def load_perceptual(settings: LossSettings, sizes: Iterable[tuple[int, int]]) -> PerceptualLoss:
    """Return LPIPS with its weights.

    Args:
        settings: where the weights are.
        sizes: height and width of the clips.

    Raises:
        FileNotFoundError: its weights have not been fetched.
        ValueError: clips that are too small for it.
    """
    try:
        lpips = load_lpips("vgg", settings.lpips_path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or set loss.perceptual_loss_weight to 0") from error
    for height, width in sizes:
        if min(height, width) < lpips.min_size:
            raise ValueError(
                f"clips of {height}x{width} are too small for LPIPS, which needs "
                f"{lpips.min_size} pixels; use larger crops or loss.perceptual_loss_weight=0"
            )
    return PerceptualLoss(lpips)


def compared_frames(settings: LossSettings, num_frames: int, *, seed: int, step: int) -> np.ndarray:
    """Return the numbers of the frames of a clip that LPIPS looks at in a step, int32 (n,)."""
    num_compared = min(settings.lpips_num_frames or num_frames, num_frames)
    return draw_frame_indices(num_frames, num_compared, seed=seed, step=step)
