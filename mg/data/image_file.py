"""Images, and animations of several (WebP, PNG), with Pillow; PNGs of 16 bits with OpenCV."""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from mg.data.frame_times import VARIABLE_RATE, is_variable
from mg.data.media_rules import BrokenVideoError, Reading, image_format
from mg.data.media_source import MediaSource, MediaState, media_state, open_media
from mg.data.orientation import Orientation

__all__ = ["ImageScan", "iterate_image", "read_image", "scan_image"]

# Pillow's own `Image.open` would try other formats, and has a limit of pixels of its own.
READERS = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WEBP": WebPImageFile, "BMP": BmpImageFile}
EXIF_ORIENTATION = 0x0112
ANIMATED_FORMATS = ("WEBP", "PNG")  # a JPEG's further pictures are previews or other views
MAX_BYTES_PER_PIXEL = 8  # of a file; four channels of 16 bits, not compressed, take as many
PNG_BIT_DEPTH = 24  # where it stands in the file (PNG specification, 11.2.2)


@dataclass(frozen=True)
class ImageScan:
    """Size and length of an image file (`fps` is 0 for a single image)."""

    num_frames: int
    height: int
    width: int
    fps: float
    notes: tuple[str, ...]


def scan_image(path: MediaSource, reading: Reading) -> ImageScan:
    """Return the size and length of an image, all of it decoded; again for free until it changes.

    Raises:
        BrokenVideoError: not a readable image, or too large.
    """
    return _scan_cached(path, reading, media_state(path))


@functools.lru_cache(maxsize=512)
def _scan_cached(path: MediaSource, reading: Reading, state: MediaState) -> ImageScan:
    num_frames, shape, milliseconds = 0, (0, 0), []
    for picture, duration in _pictures(path, reading):
        num_frames, shape = num_frames + 1, picture.shape
        milliseconds.append(duration)
    if num_frames == 1:
        return ImageScan(1, *shape[:2], 0.0, ())
    seconds = sum(milliseconds[:-1]) / 1000  # how long the last one stays is of no use
    fps = (num_frames - 1) / seconds if seconds else 0.0
    notes = (VARIABLE_RATE,) if is_variable(np.array(milliseconds[:-1])) else ()
    return ImageScan(num_frames, *shape[:2], fps, notes)


def iterate_image(path: MediaSource, reading: Reading) -> Iterator[np.ndarray]:
    """Yield the frames of an image file, uint8 (H, W, 3), turned as its EXIF data says."""
    for picture, _ in _pictures(path, reading):
        yield picture


def read_image(path: MediaSource, indices: Sequence[int], reading: Reading) -> list[np.ndarray]:
    """Return the frames at `indices`, uint8 (H, W, 3); an animation is decoded up to the last."""
    pictures = itertools.islice(iterate_image(path, reading), max(indices) + 1)
    wanted = set(indices)
    found = {number: picture for number, picture in enumerate(pictures) if number in wanted}
    return [found[index] for index in indices]


def _pictures(path: MediaSource, reading: Reading) -> Iterator[tuple[np.ndarray, float]]:
    """Yield (frame, how long it is shown in milliseconds)."""
    with _open(path, reading) as image:
        orientation = Orientation.of_exif(image.getexif().get(EXIF_ORIENTATION))
        is_animated = image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)
        if not is_animated:
            yield orientation.apply(_still(path, image)), 0.0
            return
        # A PNG may begin with a still for programs that show no animations.
        first = 1 if getattr(image, "default_image", False) else 0
        for number in range(first, image.n_frames):
            image.seek(number)
            frame = np.array(image.convert("RGB"))
            yield orientation.apply(frame), float(image.info.get("duration", 0.0))


@contextlib.contextmanager
def _open(path: MediaSource, reading: Reading) -> Iterator[Image.Image]:
    """Yield an image whose size is known, but not decoded; all faults are BrokenVideoErrors."""
    try:
        with (
            open_media(path) as file,
            _opened(path, file, reading) as image,
        ):
            reading.check_pixels(path, image.height, image.width)
            yield image
    except BrokenVideoError:
        raise
    except Exception as error:  # Pillow's readers raise all kinds of errors
        raise BrokenVideoError(f"{path.name}: not a readable image ({error})") from error


def _opened(path: MediaSource, file: BinaryIO, reading: Reading) -> Image.Image:
    """Return the image in a file, which may be read as a whole for that."""
    num_bytes = media_state(path).num_bytes
    if num_bytes > MAX_BYTES_PER_PIXEL * reading.max_pixels:
        raise BrokenVideoError(
            f"{path.name}: {num_bytes} bytes are more than an image of the {reading.max_pixels} "
            "pixels takes that max_pixels allows"
        )
    reader = READERS[image_format(file.read(16))]
    file.seek(0)
    return reader(file)


def _still(path: MediaSource, image: Image.Image) -> np.ndarray:
    """Return an image as it is stored, uint8 (H, W, 3)."""
    if image.format == "PNG" and _bit_depth(path) == 16:
        return _still_of_16_bits(path)
    return np.array(image.convert("RGB"))


def _bit_depth(path: MediaSource) -> int:
    with open_media(path) as file:
        return file.read(PNG_BIT_DEPTH + 1)[PNG_BIT_DEPTH]


def _still_of_16_bits(path: MediaSource) -> np.ndarray:
    """Return a PNG of 16 bits, grey or in colour, scaled to 8; Pillow would cut or clip them."""
    with open_media(path) as file:
        stored = np.frombuffer(file.read(), np.uint8)
    values = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    if values is None:
        raise BrokenVideoError(f"{path.name}: not a readable image (damaged or cut off)")
    if values.ndim == 2:
        values = np.stack([values] * 3, axis=-1)
    values = values[..., 2::-1]  # BGR, perhaps with alpha, to RGB
    small = np.empty(values.shape, np.uint8)
    for row, stored_row in zip(small, values, strict=True):
        row[:] = (stored_row.astype(np.uint32) + 128) // 257  # 65535 / 257 = 255
    return small
