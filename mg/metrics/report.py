"""Metrics of many clips gathered into one table: per clip, per frame index, and overall."""

import json
import math

import numpy as np

from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim

__all__ = ["QualityReport"]

METRICS = ("psnr", "ssim", "lpips")
DECIMALS = {"psnr": 3, "ssim": 4, "lpips": 4}


class QualityReport:
    """PSNR, SSIM and LPIPS of reconstructed clips.

    A clip's figure is the mean of its frames; the overall figure is the mean of the clips, so a
    long clip weighs no more than a short one. The figure at a frame index is the mean over the
    clips that have that frame. Identical frames have an infinite PSNR, which would swallow any
    mean: they are left out of the PSNR means and counted as `num_identical_frames`; where every
    frame is identical the mean is infinite (`null` in JSON, `inf` in the table).
    """

    def __init__(self, *, data_range: float = 255) -> None:
        """Start an empty report.

        Args:
            data_range: value range of the frames, as for `psnr` and `ssim`.
        """
        self.data_range = data_range
        self._clips: dict[str, dict[str, np.ndarray]] = {}

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
        if name in self._clips:
            raise ValueError(f"clip {name!r} is in the report already; give each its own name")
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
        self._clips[name] = values

    def summary(self) -> dict:
        """Return the overall means, a list per clip and a list per frame index.

        Keys: `num_clips`, `num_frames`, `num_identical_frames`, one mean per metric, `clips`
        (with `name`), `per_frame_index` (with `frame` and `num_clips`). A metric that a clip
        lacks is absent there.

        Raises:
            ValueError: no clip was added.
        """
        if not self._clips:
            raise ValueError("the report is empty: no clip was measured")
        clips = [{"name": name, **_frame_means(v)} for name, v in self._clips.items()]
        return {
            "num_clips": len(clips),
            "num_frames": sum(clip["num_frames"] for clip in clips),
            "num_identical_frames": sum(clip["num_identical_frames"] for clip in clips),
            **{
                metric: _finite_mean(np.array([clip[metric] for clip in clips if metric in clip]))
                for metric in METRICS
                if any(metric in clip for clip in clips)
            },
            "clips": clips,
            "per_frame_index": self._per_frame_index(),
        }

    def _per_frame_index(self) -> list[dict]:
        """Return the means over clips at each frame index."""
        length = max(len(values["psnr"]) for values in self._clips.values())
        rows = []
        for frame in range(length):
            present = [v for v in self._clips.values() if len(v["psnr"]) > frame]
            row: dict = {"frame": frame, "num_clips": len(present)}
            for metric in METRICS:
                column = np.array([v[metric][frame] for v in present if metric in v])
                if column.size:
                    row[metric] = _finite_mean(column)
            rows.append(row)
        return rows

    def table(self) -> str:
        """Return the per-clip figures and their mean as text, then those per frame index."""
        summary = self.summary()
        metrics = [metric for metric in METRICS if metric in summary]
        overall = {**summary, "name": f"mean of {summary['num_clips']} clips"}
        by_clip = _text_table(["name", "num_frames", *metrics], [*summary["clips"], overall])
        by_frame = _text_table(["frame", "num_clips", *metrics], summary["per_frame_index"])
        return f"{by_clip}\n\n{by_frame}"

    def to_json(self) -> str:
        """Return the summary as strict JSON; infinite and undefined numbers become `null`."""
        return json.dumps(_without_infinities(self.summary()), indent=2, allow_nan=False)


def _frame_means(values: dict[str, np.ndarray]) -> dict:
    """Return the means over one clip's frames, with the number of frames they stand for."""
    return {
        "num_frames": len(values["psnr"]),
        "num_identical_frames": int(np.isposinf(values["psnr"]).sum()),
        **{metric: _finite_mean(values[metric]) for metric in METRICS if metric in values},
    }


def _finite_mean(values: np.ndarray) -> float:
    """Return the mean without +inf entries; +inf if there is nothing else. NaN stays NaN."""
    kept = values[~np.isposinf(values)]
    return float(kept.mean()) if kept.size else math.inf


def _without_infinities(value: object) -> object:
    """Return `value` with every non-finite float, however deep, replaced by None."""
    if isinstance(value, dict):
        return {key: _without_infinities(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_infinities(entry) for entry in value]
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
    if value is None:
        return "-"
    return f"{value:.{DECIMALS[column]}f}" if isinstance(value, float) else str(value)
