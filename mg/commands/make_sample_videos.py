"""Make captioned clips of a moving shape, to train and test a text-to-video model on.

    mg make-samples --output_folder datasets/shapes --num_videos 1000
    mg make-samples --output_folder datasets/shapes_held_out --split held_out \\
        --num_videos 48
    mg make-samples --output_folder datasets/edits --pairs --num_videos 1000
    mg make-samples --output_folder datasets/crowds --crowd --num_videos 1000
    mg make-samples --output_folder data/videos --table metadata.json --captions \
        "a green circle moving right on a black background" \
        "a blue square growing on a black background" \
        "a red line rotating on a black background"

Writes one mp4 per clip and `captions.csv` (columns `video`, `caption`), or with --table NAME.json
a JSON file that maps videos to captions. The same settings give the same clips, and a larger set
begins with the smaller one. 48 of the 216 combinations of colour, shape, motion and background are
held out of the training split; "changing" is a set of its own, of shapes that grow, shrink or
rotate, and of lines; "new_colour" is one of a colour that no other split has. With --captions the
videos show what these say. With --pairs each video is an edit of another one: `captions.csv` gets a
column `source`, and captions say what to do, such as "make it red". With --crowd each video has
many shapes of any colours at once, for an autoencoder to learn edges and motion from: it learns
nothing from a background without any.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mg.cli.argument_parser import CommandParser
from mg.data.contact_sheet import write_contact_sheet
from mg.data.video_table import write_video_table
from mg.data.video_writer import write_video
from mg.progress import with_progress
from mg.shapes.clips import FPS, SPLITS, captioned_clip, parse_caption, synthetic_clip
from mg.shapes.crowd import CROWD_CAPTION, crowd_clip
from mg.shapes.edits import synthetic_edit

NUM_SHOWN = 24


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = CommandParser(__doc__)
    parser.add_argument("--output_folder", required=True, type=Path, help="folder of the clips")
    parser.add_argument("--num_videos", type=int, help="(default: 1000, or one per caption)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="train",
        help="which combinations to show (default: %(default)s)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--pairs", action="store_true", help="write pairs for editing, of train or held_out"
    )
    kind.add_argument(
        "--crowd", action="store_true", help="draw many shapes at once; the split is not looked at"
    )
    kind.add_argument(
        "--captions",
        nargs="+",
        metavar="CAPTION",
        help="draw what these say, in turn; the split is not looked at",
    )
    parser.add_argument(
        "--table",
        default="captions.csv",
        help="name of the table of captions, .csv or .json (default: %(default)s)",
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
    flags = parser.parse_args(arguments)
    if flags.num_videos is None:
        flags.num_videos = len(flags.captions) if flags.captions else 1000
    return flags


def make_sample_videos(flags: argparse.Namespace) -> None:
    """Write the clips and their captions, and a contact sheet of the first ones if asked for.

    Raises:
        FileExistsError: the folder is not empty or the sheet exists, and `overwrite` is false.
        ValueError: a number out of range.
    """
    folder, sheet = flags.output_folder, flags.contact_sheet
    if flags.num_videos < 1:
        raise ValueError(f"num_videos must be at least 1, not {flags.num_videos}")
    if Path(flags.table).name != flags.table or Path(flags.table).suffix not in (".csv", ".json"):
        raise ValueError(f"--table {flags.table}: expected a name that ends in .csv or .json")
    for caption in flags.captions or ():  # before the first clip is written
        parse_caption(caption)
    if folder.exists() and any(folder.iterdir()) and not flags.overwrite:
        raise FileExistsError(
            f"{folder} is not empty; choose another folder or allow replacing its clips "
            "(--overwrite)"
        )
    if sheet is not None and sheet.exists() and not flags.overwrite:
        raise FileExistsError(f"{sheet} exists already; choose another name or add --overwrite")
    rows, shown = [], []
    for index in with_progress(range(flags.num_videos), "drawing clips", unit="clip"):
        for name, frames, row in _clips(index, flags):
            write_video(
                folder / name, frames, fps=FPS, overwrite=flags.overwrite, lossless=not flags.lossy
            )
            if len(shown) < NUM_SHOWN:
                shown.append((frames, row[1] if row else "(source of the next one)"))
            if row:
                rows.append(row)
    columns = ("video", "caption", "source")[: len(rows[0])]
    write_video_table(folder / flags.table, columns, rows, overwrite=flags.overwrite)
    if sheet is not None:
        clips, captions = zip(*shown, strict=True)
        write_contact_sheet(sheet, clips, captions, overwrite=flags.overwrite)


def _clips(index: int, flags: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, tuple]]:
    """Yield name and frames of each clip of a number, and its row of the table, () for a source."""
    settings = {name: getattr(flags, name) for name in ("seed", "split", "size", "num_frames")}
    if flags.crowd:
        del settings["split"]
        name = f"crowd_{index:05d}.mp4"
        yield name, crowd_clip(index, **settings), (name, CROWD_CAPTION)
        return
    if flags.captions:
        del settings["split"]
        caption = flags.captions[index % len(flags.captions)]
        combination, frames = captioned_clip(caption, index, **settings)
        name = f"sample_{index:05d}.mp4"
        yield name, frames, (name, combination.caption)
        return
    stem = f"{flags.split}_{index:05d}"
    if not flags.pairs:
        combination, frames = synthetic_clip(index, **settings)
        yield f"{stem}.mp4", frames, (f"{stem}.mp4", combination.caption)
        return
    edit, source, target = synthetic_edit(index, **settings)
    yield f"{stem}_source.mp4", source, ()
    yield f"{stem}.mp4", target, (f"{stem}.mp4", edit.instruction, f"{stem}_source.mp4")


def main(arguments: list[str] | None = None) -> int:
    """Make the clips and print where they are; return the exit code."""
    flags = parse_arguments(arguments)
    try:
        make_sample_videos(flags)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{flags.num_videos} clips and {flags.table} are in {flags.output_folder}")
    return 0
