"""A picture of a run: its loss, the parts of the loss, and its validations, over steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.files import atomic_path
from mg.training.metric import MAX_LISTED, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["save_curves", "smoothed"]

# A point of a smooth curve is the mean of this share of the run around it.
SMOOTHING_SHARE = 0.05
# A term that is a factor of another, not a part of the loss.
FACTORS = ("adv_weight",)


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Return the running mean of values, float64 (n,), over a twentieth of them.

    What is not finite is left out; the mean is NaN where nothing else is near.
    """
    values = np.asarray(values, float)
    if not len(values):
        return values
    width = 2 * (max(1, round(SMOOTHING_SHARE * len(values))) // 2) + 1
    is_finite = np.isfinite(values)
    window = np.ones(width)
    counts = np.convolve(is_finite, window)[width // 2 :][: len(values)]
    sums = np.convolve(np.where(is_finite, values, 0.0), window)[width // 2 :][: len(values)]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def save_curves(
    path: Path,
    train: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    metric: Metric,
    *,
    terms: Sequence[str] = (),
) -> None:
    """Draw the training loss, its parts and the validations over steps into a PNG.

    The loss is drawn as it is and smoothed, its parts smoothed and unweighted. Validations are
    drawn by their parts; where these are too many to tell apart, as a whole.

    Args:
        path: of the PNG.
        train: entries of the log, with `step` and `loss`.
        validation: entries of the validations.
        metric: that these are judged by.
        terms: names of the loss's parts in the entries; those that are zero throughout are not
            drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [t for t in terms if t not in FACTORS and any(entry.get(t) for entry in train)]
    num_panels = 3 if shown else 2
    figure, panels = pyplot.subplots(
        1, num_panels, figsize=(5 * num_panels, 4), layout="constrained"
    )
    _draw_loss(panels[0], train)
    if shown:
        _draw_terms(panels[1], train, shown)
    _draw_validations(panels[-1], validation, metric)
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def _draw_loss(axes: "Axes", train: list[dict[str, Any]]) -> None:
    steps, loss = [entry["step"] for entry in train], [entry["loss"] for entry in train]
    axes.plot(steps, loss, linewidth=0.6, alpha=0.4, color="tab:blue", label="each step")
    axes.plot(steps, smoothed(loss), linewidth=1.8, color="tab:blue", label="smoothed")
    axes.set(xlabel="step", ylabel="training loss", title="Loss (weighted sum of its parts)")
    if train:
        axes.legend(fontsize="small")
        if min(loss) > 0:
            axes.set_yscale("log")


def _draw_terms(axes: "Axes", train: list[dict[str, Any]], terms: list[str]) -> None:
    lowest = np.inf
    for name in terms:
        # A part may join later: the discriminator's after its first step.
        points = [(entry["step"], entry[name]) for entry in train if name in entry]
        steps, values = zip(*points, strict=True)
        smooth = smoothed(values)
        lowest = min(lowest, np.nanmin(smooth, initial=np.inf))
        axes.plot(steps, smooth, linewidth=1.4, label=name)
    axes.set(xlabel="step", ylabel="smoothed, unweighted", title="Parts of the loss")
    axes.set_yscale("log" if lowest > 0 else "symlog")
    axes.legend(fontsize="small")


def _draw_validations(axes: "Axes", validation: list[dict[str, Any]], metric: Metric) -> None:
    names = sorted({name for entry in validation for name in entry[metric.parts_key]})
    curves = {
        metric.name_of_part(name): [
            (entry["step"], entry[metric.parts_key][name])
            for entry in validation
            if name in entry[metric.parts_key]
        ]
        for name in names
    }
    if len(names) > MAX_LISTED:
        curves = {"all": [(entry["step"], entry[metric.key]) for entry in validation]}
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel="step", ylabel=metric.label, title="Held-out clips")
    if validation:
        axes.legend(fontsize="small")
