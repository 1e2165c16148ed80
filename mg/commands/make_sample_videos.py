"""Make captioned clips of a moving shape, to train and test a text-to-video model on.

    mg make-samples --output_folder datasets/shapes --num_videos 1000
    mg make-samples --output_folder datasets/shapes_held_out --split held_out \
        --num_videos 48

Writes one mp4 per clip and `captions.csv` (columns `video`, `caption`). The same settings give the
same clips, and a larger set begins with the smaller one. 48 of the 216 combinations of colour,
shape, motion and background are held out of the training split.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

from tqdm import tqdm

from mg.data.contact_sheet import write_contact_sheet
from mg.data.synthetic import FPS, SPLITS, synthetic_clip
from mg.data.video_writer import write_video
from mg.files import write_text

NUM_SHOWN = 24


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_folder", required=True, type=Path, help="folder of the clips")
    parser.add_argument("--num_videos", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="train",
        help="which combinations to show (default: %(default)s)",
    )
    parser.add_argument(
        "--size", type=int, default=64, help="side of the frames in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--num_frames", type=int, default=16, help="frames per clip (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--lossy",
        action="store_true",
        help="write H.264 that every player shows, with blurred colour edges, instead of exact RGB",
    )
    parser.add_argument(
        "--contact_sheet", type=Path, help=f"also write an image (.png) of the first {NUM_SHOWN}"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing clips")
    return parser.parse_args(arguments)


def make_sample_videos(flags: argparse.Namespace) -> None:
    """Write the clips and their captions, and a contact sheet of the first ones if asked for.

    Raises:
        FileExistsError: the folder is not empty or the sheet exists, and `overwrite` is false.
        ValueError: a number out of range.
    """
    folder, sheet = flags.output_folder, flags.contact_sheet
    if flags.num_videos < 1:
        raise ValueError(f"num_videos must be at least 1, not {flags.num_videos}")
    if folder.exists() and any(folder.iterdir()) and not flags.overwrite:
        raise FileExistsError(
            f"{folder} is not empty; choose another folder or allow replacing its clips "
            "(--overwrite)"
        )
    if sheet is not None and sheet.exists() and not flags.overwrite:
        raise FileExistsError(f"{sheet} exists already; choose another name or add --overwrite")
    rows, shown = [], []
    for index in tqdm(range(flags.num_videos), desc="drawing clips", disable=None):
        combination, frames = synthetic_clip(
            index,
            seed=flags.seed,
            split=flags.split,
            size=flags.size,
            num_frames=flags.num_frames,
        )
        name = f"{flags.split}_{index:05d}.mp4"
        write_video(
            folder / name, frames, fps=FPS, overwrite=flags.overwrite, lossless=not flags.lossy
        )
        rows.append((name, combination.caption))
        if index < NUM_SHOWN:
            shown.append(frames)
    _write_captions(folder / "captions.csv", rows, flags.overwrite)
    if sheet is not None:
        captions = [caption for _, caption in rows[: len(shown)]]
        write_contact_sheet(sheet, shown, captions, overwrite=flags.overwrite)


def _write_captions(path: Path, rows: list[tuple[str, str]], overwrite: bool) -> None:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("video", "caption"), *rows])
    write_text(path, table.getvalue(), overwrite=overwrite)


def main(arguments: list[str] | None = None) -> int:
    """Make the clips and print where they are; return the exit code."""
    flags = parse_arguments(arguments)
    try:
        make_sample_videos(flags)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{flags.num_videos} clips and captions.csv are in {flags.output_folder}")
    return 0
