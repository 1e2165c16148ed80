"""Pictures of an evaluation: figures over the frames and over the clips, and the worst clips."""

import logging
import os

import matplotlib
import numpy as np

from mg.data.contact_sheet import write_contact_sheet
from mg.files import atomic_path
from mg.metrics.figures import FIGURES
from mg.metrics.protocol import Protocol
from mg.metrics.report import QualityReport
from mg.pipelines.video_pairs import Pair, load_pair

matplotlib.use("Agg")  # no window, and no display needed
from matplotlib import pyplot

__all__ = ["draw_figures", "worst_clips", "write_worst_clips"]

logger = logging.getLogger("mg")

NUM_WORST = 6
PANEL = (3.6, 2.4)  # inches
INK, BAND = "#1f5a8a", "#a9c7e0"


def draw_figures(path: str | os.PathLike, report: QualityReport, title: str) -> None:
    """Write a plot with a column per figure: over the frame index above, over the clips below.

    Above: the mean of the clips and the band from their 10th to their 90th percentile. Below: the
    clips' own figures, sorted. A plot that is there is replaced.

    Args:
        path: of the PNG file.
        report: with at least one clip.
        title: the protocol.
    """
    figures = report.figures()
    size = (PANEL[0] * max(len(figures), 2), 2 * PANEL[1])
    drawing, axes = pyplot.subplots(
        2, len(figures), figsize=size, squeeze=False, layout="constrained"
    )
    clips = report.summary()["clips"]
    for (above, below), figure in zip(axes.T, figures, strict=True):
        unit = f" ({FIGURES[figure].unit})" if FIGURES[figure].unit else ""
        above.set_title(f"{figure}{unit}", fontsize=9)
        _draw_over_frames(above, list(report.per_frame(figure).values()))
        _draw_over_clips(below, np.array([clip.get(figure, np.nan) for clip in clips]))
    drawing.suptitle(title, fontsize=9)
    with atomic_path(path, overwrite=True) as temporary:
        drawing.savefig(temporary, dpi=110)
    pyplot.close(drawing)


def _draw_over_frames(axis: "pyplot.Axes", clips: list[np.ndarray]) -> None:
    axis.set_xlabel("frame", fontsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.tick_params(labelsize=7)
    longest = max((len(clip) for clip in clips), default=0)
    rows = np.full((len(clips), longest), np.nan)
    for row, clip in zip(rows, clips, strict=True):
        row[: len(clip)] = np.where(np.isfinite(clip), clip, np.nan)
    columns = [t for t in range(longest) if not np.isnan(rows[:, t]).all()]
    if not columns:
        axis.text(0.5, 0.5, "one figure per clip", ha="center", fontsize=8)
        return
    low, high = np.nanpercentile(rows[:, columns], (10, 90), axis=0)
    axis.fill_between(columns, low, high, color=BAND, linewidth=0)
    axis.plot(columns, np.nanmean(rows[:, columns], axis=0), color=INK, marker=".", markersize=3)


def _draw_over_clips(axis: "pyplot.Axes", values: np.ndarray) -> None:
    axis.set_xlabel("clips, sorted", fontsize=8)
    axis.tick_params(labelsize=7)
    values = np.sort(values[np.isfinite(values)])
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.plot(range(1, len(values) + 1), values, ".", color=INK, markersize=5)


def worst_clips(report: QualityReport) -> tuple[str, list[str]]:
    """Return the first figure that says which clips are worse, and the worst clips' names by it."""
    figure = next((key for key in report.figures() if FIGURES[key].best != "original"), "")
    clips = [c for c in report.summary()["clips"] if np.isfinite(c.get(figure, np.nan))]
    sign = 1 if figure and FIGURES[figure].best == "high" else -1
    clips.sort(key=lambda clip: sign * clip[figure])
    return figure, [clip["name"] for clip in clips[:NUM_WORST]]


def write_worst_clips(
    path: str | os.PathLike, report: QualityReport, pairs: dict[str, Pair], protocol: Protocol
) -> None:
    """Write a contact sheet of the worst clips, original above generated; an older one goes."""
    figure, names = worst_clips(report)
    figures = {clip["name"]: clip.get(figure) for clip in report.summary()["clips"]}
    shown, captions = [], []
    for name in names:
        try:
            frames = load_pair(pairs[name], protocol)[:2]
        except (ValueError, OSError) as error:  # it could be read a moment ago
            logger.warning("%s is not on the sheet of the worst clips: %s", name, error)
            continue
        shown.append(np.concatenate([np.rint(f).astype(np.uint8) for f in frames], axis=1))
        captions.append(f"{name}\n{figure} {figures[name]:.{FIGURES[figure].digits}f}")
    if shown:
        write_contact_sheet(path, shown, captions, num_columns=2, frame_height=160, overwrite=True)
