"""Measure which metric sees which fault: six faults at five strengths on the bundled clips.

    python tools/fetch_lpips.py --net alex
    python tools/fetch_i3d.py
    python benchmarks/bench_degradations.py --output_folder outputs/degradations

Writes figures.json, table.md and degradations.png, and goes on where an earlier run was stopped.
The table and the plot of docs/metrics.md are made by it. About 10 s per clip, fault and strength on
one core.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from degradations import DEGRADATIONS, NUM_STRENGTHS, degrade, is_ordered
from mg.data.video import VideoReader
from mg.device import DeviceConfig, setup_device
from mg.files import atomic_path, write_text
from mg.metrics.figures import FIGURES
from mg.metrics.measures import METRICS, Measures
from mg.metrics.preparation import prepare_frames
from mg.metrics.protocol import read_protocol

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[1]
CLIPS = sorted((ROOT / "assets" / "clips").glob("*/*.mp4"))
MEASURED = ("psnr", "ssim", "ms_ssim", "lpips_alex", "vmaf", "xpsnr")
MEASURED += ("temporal", "flolpips_dis", "i3d")
STRENGTHS = range(1, NUM_STRENGTHS + 1)
PLACES = {"high": 1, "low": -1}
# What is compared: warping error and flicker with the original's own, a ratio with 1.
SHOWN = [f for name in MEASURED for f in METRICS[name].figures if not f.endswith("_original")]


def main() -> None:
    """Measure what is missing, then write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_folder", type=Path, default=Path("outputs/degradations"))
    parser.add_argument("--num_clips", type=int, default=len(CLIPS))
    options = parser.parse_args()
    path = options.output_folder / "figures.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    protocol = read_protocol(ROOT / "protocols" / "mg.yaml")
    setup_device(DeviceConfig())
    measures = Measures(MEASURED, protocol.metrics)
    clips = CLIPS[: options.num_clips]
    for clip in clips:
        with VideoReader(clip) as reader:
            frames = prepare_frames(reader.read(range(protocol.frames.num_frames)), protocol.size)
        for fault in ("none", *DEGRADATIONS):
            for strength in STRENGTHS if fault != "none" else (0,):
                name = f"{clip.stem} {fault} {strength}"
                if name in figures:
                    continue
                given = degrade(frames, fault, strength) if strength else frames.copy()
                values, _ = measures(frames, given)
                figures[name] = {f: mean_of(values[f]) for f in values if f in FIGURES}
                write_text(path, json.dumps(figures, indent=1), overwrite=True)
                print(name, flush=True)
    names = [clip.stem for clip in clips]
    table = f"{table_of(figures, names, protocol.label())}\n{orders_table(figures, names)}"
    write_text(options.output_folder / "table.md", table, overwrite=True)
    draw(options.output_folder / "degradations.png", figures, names)
    print(table)


def mean_of(values: np.ndarray) -> float | None:
    """Return the mean of the finite numbers; None if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def mean_over_clips(figures: dict, clips: list[str], fault: str, strength: int, key: str) -> float:
    """Return a figure's mean over the clips that have it."""
    found = [figures[f"{clip} {fault} {strength}"].get(key) for clip in clips]
    found = [value for value in found if value is not None]
    return float(np.mean(found)) if found else np.nan


def badness(figures: dict, clips: list[str], fault: str, key: str) -> np.ndarray:
    """Return how much worse than the undegraded video each strength is by a figure."""
    values = np.array([mean_over_clips(figures, clips, fault, s, key) for s in STRENGTHS])
    if FIGURES[key].best in PLACES:
        sign, still = PLACES[FIGURES[key].best], mean_over_clips(figures, clips, "none", 0, key)
        if np.isnan(still):  # PSNR of the same is infinite
            still = values.max() + 1
        return sign * (still - values)
    own = 1.0 if key == "motion_energy_ratio" else None
    if own is None:
        own = mean_over_clips(figures, clips, "none", 0, f"{key}_original")
    return np.abs(values - own)


def table_of(figures: dict, clips: list[str], label: str) -> str:
    """Return a Markdown table: the figure at each strength, bold where all five are in order."""
    lines = [f"Mean of {len(clips)} clips, protocol {label}.", ""]
    lines += [f"| figure | same | {' | '.join(DEGRADATIONS)} |"]
    lines += ["|---" * (2 + len(DEGRADATIONS)) + "|"]
    for key in SHOWN:
        digits = min(FIGURES[key].digits, 3) if FIGURES[key].digits < 6 else 5
        same = mean_over_clips(figures, clips, "none", 0, key)
        cells = [key, "" if np.isnan(same) else f"{same:.{digits}f}"]
        for fault in DEGRADATIONS:
            values = [mean_over_clips(figures, clips, fault, s, key) for s in STRENGTHS]
            text = " ".join(f"{value:.{digits}f}" for value in values)
            is_seen = is_ordered(badness(figures, clips, fault, key))
            cells.append(f"**{text}**" if is_seen else text)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def orders_table(figures: dict, clips: list[str]) -> str:
    """Return a Markdown table: of how many clips a figure puts all five strengths in order."""
    lines = [f"| figure | {' | '.join(DEGRADATIONS)} |", "|---" * (1 + len(DEGRADATIONS)) + "|"]
    for key in SHOWN:
        counts = [
            sum(is_ordered(badness(figures, [clip], fault, key)) for clip in clips)
            for fault in DEGRADATIONS
        ]
        cells = [f"**{n}**" if n == len(clips) else str(n) for n in counts]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(path: Path, figures: dict, clips: list[str]) -> None:
    """Write a plot with a panel per figure: badness over strength, each fault's own line."""
    columns = 4
    rows = -(-len(SHOWN) // columns)
    drawing, axes = pyplot.subplots(
        rows, columns, figsize=(3 * columns, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis, key in zip(axes.flat, SHOWN, strict=False):
        for fault in DEGRADATIONS:
            values = [mean_over_clips(figures, clips, fault, s, key) for s in STRENGTHS]
            axis.plot(STRENGTHS, values, marker=".", label=fault)
        axis.set_title(key, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_xticks(STRENGTHS)
    for axis in axes.flat[len(SHOWN) :]:
        axis.axis("off")
    drawing.legend(*axes[0, 0].get_legend_handles_labels(), ncols=6, loc="outside lower center")
    with atomic_path(path, overwrite=True) as temporary:
        drawing.savefig(temporary, dpi=90)
    pyplot.close(drawing)


if __name__ == "__main__":
    main()
