"""Metrics of many clips gathered into one table: per clip, per frame index, and overall."""

import csv
import io
import json
import math

import numpy as np

from mg.metrics.figures import FIGURES
from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim

__all__ = ["QualityReport", "without_infinities"]

MEANS_OVER = ("clips", "frames")


class QualityReport:
    """Figures of reconstructed clips, by default PSNR, SSIM and LPIPS.

    A clip's figure is the mean of its frames. The overall figure is the mean of the clips, so a
    long clip weighs no more than a short one, or the mean of all frames (`mean_over`). The figure
    at a frame index is the mean over the clips that have that frame. Identical frames have an
    infinite PSNR, which would swallow any mean: they are left out of the PSNR means and counted as
    `num_identical_frames`; where every frame is identical the mean is infinite (`null` in JSON,
    `inf` in the table).
    """

    def __init__(self, *, data_range: float = 255, mean_over: str = "clips") -> None:
        """Start an empty report.

        Args:
            data_range: value range of the frames, as for `psnr` and `ssim`.
            mean_over: "clips" or "frames", what the overall figure is the mean of.

        Raises:
            ValueError: another `mean_over`.
        """
        if mean_over not in MEANS_OVER:
            raise ValueError(f"mean_over must be one of {', '.join(MEANS_OVER)}, not {mean_over!r}")
        self.data_range = data_range
        self.mean_over = mean_over
        self._clips: dict[str, dict[str, np.ndarray]] = {}
        self._num_frames: dict[str, int] = {}

    def add(
        self,
        name: str,
        reference: np.ndarray,
        reconstruction: np.ndarray,
        *,
        lpips: np.ndarray | None = None,
    ) -> None:
        """Measure one clip and keep its numbers (not its frames).

        Args:
            name: unique name of the clip, such as its path under the video folder.
            reference: frames (T, H, W, 3), uint8 or floating.
            reconstruction: frames of the same shape and kind.
            lpips: LPIPS of each frame, shape (T,), from `mg.metrics.lpips.lpips`.

        Raises:
            ValueError: the name is taken, the clips cannot be compared, or `lpips` has another
                length.
        """
        values = {
            "psnr": psnr(reference, reconstruction, data_range=self.data_range),
            "ssim": ssim(reference, reconstruction, data_range=self.data_range),
        }
        if lpips is not None:
            values["lpips"] = np.asarray(lpips, np.float64)
            if values["lpips"].shape != values["psnr"].shape:
                raise ValueError(
                    f"clip {name!r} has {len(reference)} frames, but lpips has the shape "
                    f"{values['lpips'].shape}; one number per frame is expected"
                )
        self.add_measured(name, values)

    def add_measured(
        self, name: str, values: dict[str, np.ndarray], num_frames: int | None = None
    ) -> None:
        """Keep the numbers of one clip that was measured before, or piece by piece.

        Args:
            name: unique name of the clip.
            values: by figure, an array with a number per frame, or one of no axes for the whole
                clip. Arrays of fewer numbers than frames are those of the last frames.
            num_frames: frames of the clip; None is the length of the longest array.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._clips:
            raise ValueError(f"clip {name!r} is in the report already; give each its own name")
        self._clips[name] = values
        self._num_frames[name] = num_frames or max((v.size for v in values.values()), default=0)

    def summary(self) -> dict:
        """Return the overall means, a list per clip and a list per frame index.

        Keys: `num_clips`, `num_frames`, `num_identical_frames`, one mean per figure, `clips`
        (with `name`), `per_frame_index` (with `frame` and `num_clips`). A figure that a clip
        lacks is absent there.

        Raises:
            ValueError: no clip was added.
        """
        if not self._clips:
            raise ValueError("the report is empty: no clip was measured")
        clips = [{"name": name, **self._of_clip(name)} for name in self._clips]
        return {
            "num_clips": len(clips),
            "num_frames": sum(self._num_frames.values()),
            "num_identical_frames": sum(clip["num_identical_frames"] for clip in clips),
            **{figure: self._overall(figure, clips) for figure in self.figures()},
            "clips": clips,
            "per_frame_index": self._per_frame_index(),
        }

    def figures(self) -> list[str]:
        """Return the figures that at least one clip has, in the order of `FIGURES`."""
        return [key for key in FIGURES if any(key in values for values in self._clips.values())]

    def per_frame(self, figure: str) -> dict[str, np.ndarray]:
        """Return a figure of the frames of each clip, (T,), NaN where a frame has none."""
        result = {}
        for name, values in self._clips.items():
            if figure in values and values[figure].ndim:
                missing = self._num_frames[name] - values[figure].size
                result[name] = np.concatenate([np.full(missing, np.nan), values[figure]])
        return result

    def _of_clip(self, name: str) -> dict:
        """Return the means over one clip's frames, with the number of frames they stand for."""
        values = self._clips[name]
        return {
            "num_frames": self._num_frames[name],
            "num_identical_frames": int(np.isposinf(values.get("psnr", np.zeros(0))).sum()),
            **{key: _mean(key, values[key]) for key in FIGURES if key in values},
        }

    def _overall(self, figure: str, clips: list[dict]) -> float:
        if self.mean_over == "clips":
            return _mean(figure, np.array([clip[figure] for clip in clips if figure in clip]))
        of_frames = [np.atleast_1d(v[figure]) for v in self._clips.values() if figure in v]
        return _mean(figure, np.concatenate(of_frames))

    def _per_frame_index(self) -> list[dict]:
        """Return the means over clips at each frame index."""
        of_frames = {figure: self.per_frame(figure) for figure in self.figures()}
        rows = []
        for frame in range(max(self._num_frames.values())):
            num_clips = sum(length > frame for length in self._num_frames.values())
            row: dict = {"frame": frame, "num_clips": num_clips}
            for figure, of_clips in of_frames.items():
                column = [
                    values[frame]
                    for name, values in of_clips.items()
                    if len(values) - self._clips[name][figure].size <= frame < len(values)
                ]
                if column:
                    row[figure] = _mean(figure, np.array(column))
            rows.append(row)
        return rows

    def table(self) -> str:
        """Return the per-clip figures and their mean as text, then those per frame index."""
        summary = self.summary()
        figures = self.figures()
        overall = {**summary, "name": f"mean of {summary['num_clips']} clips"}
        by_clip = _text_table(["name", "num_frames", *figures], [*summary["clips"], overall])
        of_frames = [key for key in figures if any(key in r for r in summary["per_frame_index"])]
        by_frame = _text_table(["frame", "num_clips", *of_frames], summary["per_frame_index"])
        return f"{by_clip}\n\n{by_frame}"

    def to_json(self) -> str:
        """Return the summary as strict JSON; infinite and undefined numbers become `null`."""
        return json.dumps(without_infinities(self.summary()), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """Return a line per clip as CSV, and an empty field where a clip has no such figure."""
        return _csv(["name", "num_frames", *self.figures()], self.summary()["clips"])

    def frames_to_csv(self) -> str:
        """Return a line per frame index as CSV."""
        return _csv(["frame", "num_clips", *self.figures()], self.summary()["per_frame_index"])


def _mean(figure: str, values: np.ndarray) -> float:
    """Return the mean without +inf entries; +inf if there is nothing else. NaN stays NaN.

    Where a figure may lack, its NaN entries are left out; NaN if there is nothing else.
    """
    if FIGURES[figure].may_lack:
        values = values[~np.isnan(values)]
        if not values.size:
            return math.nan
    kept = values[~np.isposinf(values)]
    return float(kept.mean()) if kept.size else math.inf


def without_infinities(value: object) -> object:
    """Return `value` with every non-finite float, however deep, replaced by None."""
    if isinstance(value, dict):
        return {key: without_infinities(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_infinities(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _text_table(columns: list[str], rows: list[dict]) -> str:
    """Return rows under their column names: text to the left, numbers to the right."""
    cells = [columns, *([_cell(row.get(column), column) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = []
    for line in cells:
        first = line[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *others]))
    return "\n".join(lines)


def _cell(value: object, column: str) -> str:
    """Return one entry as text; "-" where a clip has no such figure."""
    if value is None or (value != value and FIGURES[column].may_lack):
        return "-"
    return f"{value:.{FIGURES[column].digits}f}" if isinstance(value, float) else str(value)


def _csv(columns: list[str], rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        numbers = {k: "" if v != v else v for k, v in row.items()}  # NaN is not a figure
        writer.writerow(numbers)
    return text.getvalue()
