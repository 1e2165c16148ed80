"""Whether a generator keeps to a first frame: held-out clips of moving shapes, and a judge.

It gets the first frame of a clip and the clip's caption. What the frame shows (colour, shape,
background, and where the shape is) has to be kept, and the motion has to be that of the caption.
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mg.pipelines.generated_files import about_generator
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import NO_INPUTS, VisualInputs
from mg.shapes.clips import Combination, synthetic_clip
from mg.shapes.judge import Judgement, judge_clip
from mg.shapes.judged_report import (
    check_report_folder,
    check_square,
    decoded,
    percentages,
    table_of_shares,
    write_report,
)

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = [
    "NUM_CLIPS",
    "FirstFrameRun",
    "check_first_frame_evaluation",
    "evaluate_first_frames",
    "held_out_clips",
    "table_of_first_frames",
]

logger = logging.getLogger("mg")

NUM_CLIPS = 48
MAX_CLIPS = 10_000
# How far from its place in the given frame a shape may begin: 2 pixels of 64.
MAX_OFFSET = 2 / 64
KEPT = ("colour", "shape", "background")
COLUMNS = (*KEPT, "start", "all kept", "motion")


@dataclasses.dataclass(frozen=True)
class FirstFrameRun:
    """One row of the table.

    Attributes:
        name: of the row.
        wanted: what each clip was to show.
        given: what the judge sees in the clip whose first frame was given.
        seen: what it sees in the generated clip.
    """

    name: str
    wanted: tuple[Combination, ...]
    given: tuple[Judgement, ...]
    seen: tuple[Judgement, ...]

    def agreements(self) -> list[dict[str, bool]]:
        """Return for each clip which of `COLUMNS` are right."""
        rows = []
        for wanted, given, seen in zip(self.wanted, self.given, self.seen, strict=True):
            right = seen.agreement(wanted)
            row = {name: right[name] for name in KEPT}
            row["start"] = _is_near(given.path.start, seen.path.start)
            row["all kept"] = all(row.values())
            rows.append({**row, "motion": right["motion"]})
        return rows

    def shares(self) -> dict[str, float]:
        """Return the share of clips in which each of `COLUMNS` is right."""
        rows = self.agreements()
        return {name: float(np.mean([row[name] for row in rows])) for name in COLUMNS}


def _is_near(place: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if place is None or other is None:
        return False
    return float(np.hypot(place[0] - other[0], place[1] - other[1])) <= MAX_OFFSET


def held_out_clips(
    num_clips: int, *, size: int, num_frames: int
) -> list[tuple[Combination, np.ndarray]]:
    """Return what clips show, and their frames, that training on the "train" split never sees.

    Raises:
        ValueError: a number out of range.
    """
    if not 1 <= num_clips <= MAX_CLIPS:
        raise ValueError(f"num_clips={num_clips}; expected 1 to {MAX_CLIPS}")
    return [
        synthetic_clip(index, split="held_out", size=size, num_frames=num_frames)
        for index in range(num_clips)
    ]


def check_first_frame_evaluation(
    folder: str | os.PathLike, settings: SamplingSettings, *, overwrite: bool
) -> None:
    """Raise unless a report may be written and clips of this size can be drawn and judged.

    Raises:
        FileExistsError: there is a report and `overwrite` is false.
        OSError: the folder cannot be written to.
        ValueError: clips that are not square.
    """
    check_report_folder(folder, overwrite=overwrite)
    check_square(settings)


def evaluate_first_frames(
    generator: "TextToVideo",
    folder: str | os.PathLike,
    *,
    settings: SamplingSettings,
    num_clips: int = NUM_CLIPS,
    seed: int = 0,
    batch_size: int = 1,
    overwrite: bool = False,
) -> list[FirstFrameRun]:
    """Return the rows of the table: with the first frame, without it, the autoencoder's own limit.

    The last row is what the autoencoder makes of the clips themselves. Writes report.md,
    report.json and contact_sheet.png (each clip and what was made from its first frame).

    Args:
        generator: to evaluate, trained with first frames.
        folder: for the report.
        settings: of all clips.
        num_clips: how many.
        seed: seed of the first clip; it rises by one with each further clip.
        batch_size: clips sampled together.
        overwrite: whether an existing report may be replaced.

    Raises:
        FileExistsError, ValueError: as `check_first_frame_evaluation`; or what the generator
            cannot take.
    """
    check_first_frame_evaluation(folder, settings, overwrite=overwrite)
    clips = held_out_clips(num_clips, size=settings.height, num_frames=settings.num_frames)
    wanted = tuple(combination for combination, _ in clips)
    given = tuple(judge_clip(frames) for _, frames in clips)
    prompts = [combination.caption for combination in wanted]
    seeds = [seed + i for i in range(num_clips)]
    plans = {
        "with the first frame": [VisualInputs(first_frame=frames[0]) for _, frames in clips],
        "without": [NO_INPUTS] * num_clips,
    }
    results = {}
    for name, inputs in plans.items():
        results[name] = decoded(
            generator, prompts, seeds, settings=settings, inputs=inputs, batch_size=batch_size
        )
    results["the autoencoder's limit"] = [
        generator.decode(generator.encode(frames), settings.num_frames) for _, frames in clips
    ]
    runs = []
    for name, made in results.items():
        runs.append(FirstFrameRun(name, wanted, given, tuple(map(judge_clip, made))))
        logger.info("%s: %s", name, percentages(runs[-1].shares()))
    shown = [x for pair in zip(clips, results["with the first frame"], strict=True) for x in pair]
    _write(folder, runs, shown, overwrite, {
        "settings": dataclasses.asdict(settings), "seed": seed, **about_generator(generator),
    })  # fmt: skip
    return runs


def _write(folder, runs: list[FirstFrameRun], shown: list, overwrite: bool, about) -> None:
    """Write the three files of the report; `shown` are clips and what was made, turn about."""
    rows = [
        {
            "name": run.name,
            "shares": run.shares(),
            "clips": [
                {"caption": wanted.caption, "seen": dataclasses.asdict(seen), "right": right}
                for wanted, seen, right in zip(run.wanted, run.seen, run.agreements(), strict=True)
            ],
        }
        for run in runs
    ]
    frames, labels = [], []
    for (combination, clip), made in zip(shown[::2], shown[1::2], strict=True):
        frames += [clip, made]
        labels += [combination.caption, "from its first frame"]
    report, table = {"runs": rows, **about}, table_of_first_frames(runs)
    write_report(folder, report, table, clips=frames, labels=labels, overwrite=overwrite)


def table_of_first_frames(runs: Sequence[FirstFrameRun]) -> str:
    """Return the table in Markdown: right in %, a row for each run."""
    return table_of_shares(
        {f"{run.name} ({len(run.wanted)} clips)": run.shares() for run in runs}, COLUMNS
    )
