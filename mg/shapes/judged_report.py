"""What the judged evaluations share: clips of prompts, and a report on them in three files."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.data.contact_sheet import write_contact_sheet
from mg.files import check_writable_folder, write_text
from mg.pipelines.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = [
    "check_report_folder",
    "check_square",
    "decoded",
    "percentages",
    "table_of_shares",
    "write_report",
]

REPORT_FILES = ("report.json", "report.md", "contact_sheet.png")


def check_report_folder(folder: str | os.PathLike, *, overwrite: bool) -> None:
    """Raise unless a report may be written.

    Raises:
        FileExistsError: there is one and `overwrite` is false.
        OSError: the folder cannot be written to.
    """
    check_writable_folder(folder)
    there = [name for name in REPORT_FILES if (Path(folder) / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{Path(folder) / there[0]} exists already; choose another folder or pass --overwrite"
        )


def check_square(settings: SamplingSettings, flags: str = "") -> None:
    """Raise ValueError unless videos are square, as drawn clips are.

    Args:
        settings: of the videos.
        flags: of tools/make_sample_videos.py, which drew what the generator was trained on.
    """
    if settings.height != settings.width:
        tool = f"tools/make_sample_videos.py {flags}".strip()
        raise ValueError(
            f"{settings.height}x{settings.width}: drawn clips are square; the generator is not "
            f"one of {tool}"
        )


def decoded(
    generator: "TextToVideo",
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    settings: SamplingSettings,
    **options: Any,
) -> list[np.ndarray]:
    """Return the videos of prompts, each uint8 (T, H, W, 3).

    Args:
        generator, prompts, seeds, settings: as of `TextToVideo.latents`.
        options: more of its arguments.
    """
    latents = generator.latents(prompts, seeds, settings=settings, **options)
    return [generator.decode(latent, settings.num_frames) for latent in latents]


def write_report(
    folder: str | os.PathLike,
    report: Mapping[str, Any],
    table: str,
    *,
    clips: Sequence[np.ndarray],
    labels: Sequence[str],
    overwrite: bool,
) -> None:
    """Write the three files.

    Args:
        folder: to write them to.
        report: plain values, for report.json.
        table: Markdown, for report.md.
        clips, labels: for contact_sheet.png.
        overwrite: whether files that are there may be replaced.
    """
    paths = [Path(folder) / name for name in REPORT_FILES]
    write_text(paths[0], json.dumps(report, indent=2) + "\n", overwrite=overwrite)
    write_text(paths[1], table, overwrite=overwrite)
    write_contact_sheet(paths[2], clips, labels, overwrite=overwrite)


def table_of_shares(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> str:
    """Return shares in % as a table in Markdown; a column that a row lacks stays empty."""
    lines = [f"| right in % | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, shares in rows.items():
        cells = [f"{100 * shares[key]:.1f}" if key in shares else "" for key in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def percentages(shares: Mapping[str, float]) -> str:
    """Return shares as one line of text."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
