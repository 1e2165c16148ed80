"""Decode videos once into small uint8 clips that training reads without decoding.

    mg prepare --input videos --output prepared --short_side 128
    mg train-tae --config configs/tae/train/demo.yaml --input prepared

Sources that are there already are passed over: start it again after an interruption.
"""

import argparse
import sys

from mg.cli.argument_parser import CommandParser
from mg.console import printable
from mg.data.manifest import build_manifest
from mg.data.media_rules import Reading
from mg.data.prepare import prepare_clips
from mg.data.prepared_index import PrepareSettings


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = CommandParser(__doc__, names={"size": "short_side"})
    parser.add_argument("--video_folder", help="folder of videos and images, or one file")
    parser.add_argument("--csv_path", help="table with a column `video`, optionally `caption`")
    parser.add_argument("--output_path", required=True, help="folder of the prepared clips")
    parser.add_argument(
        "--short_side", type=int, default=128, help="pixels of the shorter side (default: 128)"
    )
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=Reading.max_pixels,
        help="leave out files whose frames have more (default: %(default)s)",
    )
    parser.add_argument(
        "--keep_pixel_aspect",
        action="store_true",
        help="store frames whose pixels are not square as they are",
    )
    parser.add_argument("--split_scenes", action="store_true", help="cut at hard cuts")
    parser.add_argument(
        "--scene_threshold",
        type=float,
        default=PrepareSettings.scene_threshold,
        help="grey-level step (of 255) taken for a hard cut (default: %(default)s)",
    )
    parser.add_argument(
        "--min_frames_per_clip", type=int, default=1, help="drop shorter pieces (default: 1)"
    )
    parser.add_argument("--max_frames_per_clip", type=int, help="cut longer pieces into several")
    parser.add_argument("--overwrite", action="store_true", help="replace what is out of date")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Prepare the clips and print what was made; return the exit code."""
    flags = parse_arguments(arguments)
    try:
        settings = PrepareSettings(
            short_side=flags.short_side,
            split_scenes=flags.split_scenes,
            scene_threshold=flags.scene_threshold,
            min_frames_per_clip=flags.min_frames_per_clip,
            max_frames_per_clip=flags.max_frames_per_clip,
        )
        sources = build_manifest(
            csv_path=flags.csv_path,
            video_folder=flags.video_folder,
            reading=Reading(flags.max_pixels, square_pixels=not flags.keep_pixel_aspect),
        )
        prepare_clips(sources, flags.output_path, settings=settings, overwrite=flags.overwrite)
        prepared = build_manifest(video_folder=flags.output_path)
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    for clip in sources.clips:
        if clip.notes:
            print(f"{clip.name}  {', '.join(clip.notes)}")
    for entry in sources.rejected:
        print(printable(f"{entry.name}  left out  {entry.reason}"))
    print(printable(prepared.table(), max_lines=sys.maxsize))
    return 0
