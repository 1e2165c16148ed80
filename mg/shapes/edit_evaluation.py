"""Whether a generator obeys its source: held-out edits of synthetic clips, and a judge of them.

An edit changes one attribute of a clip (`mg/shapes/edits.py`). It is right if the edited
attribute is the wanted one and the three others are those of the source.
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
from mg.shapes.edits import Edit, synthetic_edit
from mg.shapes.judge import ATTRIBUTES, Judgement, judge_clip
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
    "NUM_EDITS",
    "EditRun",
    "check_edit_evaluation",
    "evaluate_edits",
    "held_out_edits",
    "table_of_edits",
]

logger = logging.getLogger("mg")

NUM_EDITS = 48
MAX_EDITS = 10_000
FIRST_NEW_PAIR = 1_000_000  # of the "train" split, behind all that anybody draws to train on
COLUMNS = ("edited", *(f"{name} kept" for name in ATTRIBUTES), "all")


@dataclasses.dataclass(frozen=True)
class EditRun:
    """One row of the table.

    Attributes:
        name: of the row.
        edits: what was to be done.
        seen: what each clip shows.
    """

    name: str
    edits: tuple[Edit, ...]
    seen: tuple[Judgement, ...]

    def shares(self) -> dict[str, float]:
        """Return the share of clips with the edited attribute right, and with all four right.

        Of each attribute, beside these, the share of clips that keep it, of those whose edit is of
        another one.
        """
        agreements = [s.agreement(e.target) for e, s in zip(self.edits, self.seen, strict=True)]
        pairs = list(zip(self.edits, agreements, strict=True))
        shares = {"edited": _mean([agreed[edit.edited] for edit, agreed in pairs])}
        for name in ATTRIBUTES:
            kept = [agreed[name] for edit, agreed in pairs if edit.edited != name]
            shares[f"{name} kept"] = _mean(kept)
        shares["all"] = _mean([all(agreed.values()) for agreed in agreements])
        return shares


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def held_out_edits(
    num_edits: int, *, size: int, num_frames: int, split: str = "held_out"
) -> list[tuple[Edit, np.ndarray, np.ndarray]]:
    """Return edits, with source and target clip, that training on the "train" split never sees.

    Args:
        num_edits: how many.
        size: side of the square frames in pixels.
        num_frames: of each clip.
        split: "held_out", edits to combinations of colour, shape and motion that no training pair
            shows; or "train", further pairs of those that training pairs show.

    Raises:
        ValueError: a number out of range, or an unknown split.
    """
    if not 1 <= num_edits <= MAX_EDITS:
        raise ValueError(f"num_edits={num_edits}; expected 1 to {MAX_EDITS}")
    first = FIRST_NEW_PAIR if split == "train" else 0
    return [
        synthetic_edit(first + index, split=split, size=size, num_frames=num_frames)
        for index in range(num_edits)
    ]


def check_edit_evaluation(
    folder: str | os.PathLike, settings: SamplingSettings, *, overwrite: bool
) -> None:
    """Raise unless a report may be written and clips of this size can be drawn and judged.

    Raises:
        FileExistsError: there is a report and `overwrite` is false.
        OSError: the folder cannot be written to.
        ValueError: clips that are not square.
    """
    check_report_folder(folder, overwrite=overwrite)
    check_square(settings, "--pairs")


def evaluate_edits(
    generator: "TextToVideo",
    folder: str | os.PathLike,
    *,
    settings: SamplingSettings,
    num_edits: int = NUM_EDITS,
    split: str = "held_out",
    seed: int = 0,
    batch_size: int = 1,
    overwrite: bool = False,
) -> list[EditRun]:
    """Return the rows of the table: with the source, without it, and the autoencoder's own limit.

    The last row is what the autoencoder makes of the clips that the edits should give. Writes
    report.md, report.json and contact_sheet.png (source and result of each edit, first row).

    Args:
        generator: to evaluate, trained with a source.
        folder: for the report.
        settings: of all clips.
        num_edits: how many.
        split: as of `held_out_edits`.
        seed: seed of the first clip; it rises by one with each further clip.
        batch_size: clips sampled together.
        overwrite: whether an existing report may be replaced.

    Raises:
        FileExistsError, ValueError: as `check_edit_evaluation`; or what the generator cannot take.
    """
    check_edit_evaluation(folder, settings, overwrite=overwrite)
    pairs = held_out_edits(
        num_edits, size=settings.height, num_frames=settings.num_frames, split=split
    )
    edits = tuple(edit for edit, _, _ in pairs)
    prompts = [edit.instruction for edit in edits]
    seeds = [seed + i for i in range(num_edits)]
    plans = {
        "with the source": [VisualInputs(source=source) for _, source, _ in pairs],
        "without": [NO_INPUTS] * num_edits,
    }
    results = {}
    for name, inputs in plans.items():
        results[name] = decoded(
            generator, prompts, seeds, settings=settings, inputs=inputs, batch_size=batch_size
        )
    results["the autoencoder's limit"] = [
        generator.decode(generator.encode(target), settings.num_frames) for _, _, target in pairs
    ]
    runs = []
    for name, clips in results.items():
        runs.append(EditRun(name, edits, tuple(map(judge_clip, clips))))
        logger.info("%s: %s", name, percentages(runs[-1].shares()))
    _write(folder, runs, pairs, results["with the source"], overwrite, {
        "settings": dataclasses.asdict(settings), "split": split, "seed": seed,
        **about_generator(generator),
    })  # fmt: skip
    return runs


def _write(folder, runs, pairs, clips, overwrite, about) -> None:
    """Write the three files of the report."""
    rows = [
        {
            "name": run.name,
            "shares": run.shares(),
            "clips": [
                {
                    "instruction": edit.instruction,
                    "source": edit.source.caption,
                    "seen": dataclasses.asdict(seen),
                    "right": seen.agreement(edit.target),
                }
                for edit, seen in zip(run.edits, run.seen, strict=True)
            ],
        }
        for run in runs
    ]
    shown, labels = [], []
    for (edit, source, _), clip in zip(pairs, clips, strict=True):
        shown += [source, clip]
        labels += [edit.source.caption, edit.instruction]
    report, table = {"runs": rows, **about}, table_of_edits(runs)
    write_report(folder, report, table, clips=shown, labels=labels, overwrite=overwrite)


def table_of_edits(runs: Sequence[EditRun]) -> str:
    """Return the table in Markdown: right in %, a row for each run."""
    return table_of_shares(
        {f"{run.name} ({len(run.edits)} edits)": run.shares() for run in runs}, COLUMNS
    )
