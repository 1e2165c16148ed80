"""Whether a generator listens: held-out captions of the synthetic clips, judged without a network.

The combinations of colour, shape, motion and background in these captions were not trained on.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.pipelines.generated_files import about_generator
from mg.pipelines.sampling_settings import SamplingSettings
from mg.shapes.clips import (
    BACKGROUNDS,
    COLOURS,
    DISTANCE_RANGE,
    MOTIONS,
    SHAPES,
    Combination,
    combinations,
)
from mg.shapes.judge import ATTRIBUTES, Judgement, judge_clip
from mg.shapes.judged_report import (
    check_report_folder,
    decoded,
    percentages,
    table_of_shares,
    write_report,
)

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["EvaluationRun", "check_evaluation", "evaluate_prompts", "table_of", "wanted_clips"]

logger = logging.getLogger("mg")

MAX_VIDEOS_PER_PROMPT = 10_000
MIN_SIZE = 16  # of what the judge takes, in pixels
# A shape moves evenly if a straight line explains so much of its path (R^2), and goes as far as
# those it was trained on if it does so up to this share.
MIN_EVENNESS, TRAVEL_TOLERANCE = 0.97, 0.1
PATH_COLUMNS = ("even motion", "full travel")


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """One row of the table.

    Attributes:
        name: of the row.
        wanted: what each clip was to show.
        seen: what it shows.
        colours: those that the judge told apart.
    """

    name: str
    wanted: tuple[Combination, ...]
    seen: tuple[Judgement, ...]
    colours: Mapping[str, tuple[int, int, int]] = dataclasses.field(default_factory=COLOURS.copy)

    def chance(self) -> dict[str, float]:
        """Return the shares of a generator that shows anything of the grammar at random."""
        known = (self.colours, SHAPES, MOTIONS, BACKGROUNDS)
        shares = {name: 1 / len(words) for name, words in zip(ATTRIBUTES, known, strict=True)}
        return shares | {"all": float(np.prod(list(shares.values())))}

    def shares(self) -> dict[str, float]:
        """Return the share of clips with each attribute right, and of those with `all` right.

        Beside these stand the shares of clips whose shape moves evenly, and as far as in training.
        """
        agreements = [seen.agreement(w) for w, seen in zip(self.wanted, self.seen, strict=True)]
        shares = {name: float(np.mean([a[name] for a in agreements])) for name in ATTRIBUTES}
        shares["all"] = float(np.mean([all(a.values()) for a in agreements]))
        low, high = DISTANCE_RANGE
        low, high = low * (1 - TRAVEL_TOLERANCE), high * (1 + TRAVEL_TOLERANCE)
        paths = [seen.path for seen in self.seen]
        is_even = [path.evenness >= MIN_EVENNESS for path in paths]
        is_full = [low <= path.travel <= high for path in paths]
        for name, values in zip(PATH_COLUMNS, (is_even, is_full), strict=True):
            shares[name] = float(np.mean(values))
        return shares


def wanted_clips(
    num_prompts: int | None = None, videos_per_prompt: int = 1, *, split: str = "held_out"
) -> list[Combination]:
    """Return what the clips are to show: held-out combinations, each as often as asked.

    Args:
        num_prompts: so many of them, always the same; None takes all (48 of "held_out").
        videos_per_prompt: of each.
        split: which combinations.

    Raises:
        ValueError: a number out of range.
    """
    every = combinations(split)
    count = len(every) if num_prompts is None else num_prompts
    if not 1 <= count <= len(every):
        raise ValueError(f"num_prompts={count}; expected 1 to {len(every)}")
    if not 1 <= videos_per_prompt <= MAX_VIDEOS_PER_PROMPT:
        raise ValueError(
            f"videos_per_prompt={videos_per_prompt}; expected 1 to {MAX_VIDEOS_PER_PROMPT}"
        )
    order = np.random.default_rng(0).permutation(len(every))  # neighbours are much alike
    return [every[i] for i in sorted(order[:count])] * videos_per_prompt


def check_evaluation(
    folder: str | os.PathLike, settings: SamplingSettings, *, overwrite: bool
) -> None:
    """Raise unless a report may be written and its clips can be judged.

    Raises:
        FileExistsError: there is a report and `overwrite` is false.
        OSError: the folder cannot be written to.
        ValueError: clips too small or too short to judge, or sampled without guidance (a row of
            the table shows that by itself).
    """
    check_report_folder(folder, overwrite=overwrite)
    if settings.num_frames < 2 or min(settings.height, settings.width) < MIN_SIZE:
        raise ValueError(
            f"{settings.num_frames} frames of {settings.height}x{settings.width}: motion and "
            f"shape can be judged on 2 or more frames of {MIN_SIZE}x{MIN_SIZE} or more"
        )
    if settings.guidance == 1:
        raise ValueError("guidance=1 is one of the rows in any case; give the guidance to compare")


def evaluate_prompts(
    generator: "TextToVideo",
    wanted: Sequence[Combination],
    folder: str | os.PathLike,
    *,
    settings: SamplingSettings,
    seed: int = 0,
    batch_size: int = 1,
    colours: Mapping[str, tuple[int, int, int]] = COLOURS,
    overwrite: bool = False,
) -> list[EvaluationRun]:
    """Return the rows of the table: with guidance, without it, and without a prompt.

    All rows start from the same noise. Writes report.md, report.json and contact_sheet.png (of the
    first row).

    Args:
        generator: to evaluate.
        wanted: what each clip is to show.
        folder: for the report.
        settings: of all clips; the guidance is that of the first row.
        seed: seed of the first clip; it rises by one with each further clip.
        batch_size: clips sampled together.
        colours: that the judge tells apart.
        overwrite: whether an existing report may be replaced.

    Raises:
        FileExistsError, ValueError: as `check_evaluation`; or a prompt or size that the generator
            cannot take.
    """
    check_evaluation(folder, settings, overwrite=overwrite)
    unguided = dataclasses.replace(settings, guidance=1.0, negative_prompt="", two_passes=False)
    captions = [combination.caption for combination in wanted]
    plans = {
        f"guidance {settings.guidance:g}": (captions, settings),
        "guidance 1": (captions, unguided),
        # Both branches of guidance are the same here.
        "empty prompt": ([""] * len(captions), unguided),
    }
    seeds = [seed + i for i in range(len(wanted))]
    runs, sheet = [], None
    for name, (prompts, own_settings) in plans.items():
        clips = decoded(generator, prompts, seeds, settings=own_settings, batch_size=batch_size)
        seen = tuple(judge_clip(clip, colours) for clip in clips)
        runs.append(EvaluationRun(name, tuple(wanted), seen, colours))
        logger.info("%s: %s", name, percentages(runs[-1].shares()))
        sheet = clips if sheet is None else sheet
    about = {"settings": dataclasses.asdict(settings), "seed": seed, **about_generator(generator)}
    report = {"runs": [_plain(run) for run in runs], "chance": runs[0].chance(), **about}
    labels = [_label(w, seen) for w, seen in zip(wanted, runs[0].seen, strict=True)]
    table = table_of(runs)
    write_report(folder, report, table, clips=sheet, labels=labels, overwrite=overwrite)
    return runs


def table_of(runs: Sequence[EvaluationRun]) -> str:
    """Return the table in Markdown: right in %, a row for each run, and one for chance."""
    rows = {f"{run.name} ({len(run.wanted)} videos)": run.shares() for run in runs}
    rows["chance"] = runs[0].chance()
    return table_of_shares(rows, [*ATTRIBUTES, "all", *PATH_COLUMNS])


def _plain(run: EvaluationRun) -> dict[str, Any]:
    clips = [
        {"caption": w.caption, "seen": dataclasses.asdict(seen), "right": seen.agreement(w)}
        for w, seen in zip(run.wanted, run.seen, strict=True)
    ]
    return {"name": run.name, "num_videos": len(clips), "shares": run.shares(), "clips": clips}


def _label(wanted: Combination, seen: Judgement) -> str:
    """Return the caption and what of it was not seen."""
    wrong = [
        f"{name}: {getattr(seen, name).name or 'none'}"
        for name, is_right in seen.agreement(wanted).items()
        if not is_right
    ]
    return f"{wanted.caption}\n" + (f"but {', '.join(wrong)}" if wrong else "all right")
