"""Learning rate by step."""

import math

from mg.training.settings import OptimSettings

__all__ = ["learning_rate"]


def learning_rate(step: int, total_steps: int, settings: OptimSettings) -> float:
    """Return the learning rate of update `step` (0-based) of `total_steps`.

    Linear warm-up, then constant, or half a cosine or a straight line from `lr` down to `lr_end`.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.lr
    span = max(1, total_steps - 1 - settings.warmup_steps)
    progress = min(1.0, (step - settings.warmup_steps) / span)
    if settings.lr_schedule == "linear":
        return settings.lr + (settings.lr_end - settings.lr) * progress
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.lr_end + (settings.lr - settings.lr_end) * cosine
