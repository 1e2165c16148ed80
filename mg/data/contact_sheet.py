"""A contact sheet: some frames of many clips in one image, each clip with its caption."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mg.data.transforms import resize_frame
from mg.files import atomic_path

__all__ = ["captioned", "contact_sheet", "write_contact_sheet"]

SUFFIXES = (".png", ".jpg")
# Pixels, but for the scale of the letters.
GAP, LINE_HEIGHT, FONT_SCALE = 8, 16, 0.42
FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK = (226, 228, 234), (30, 30, 30)  # darker than a white clip


def contact_sheet(
    clips: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    num_columns: int = 3,
    num_frames: int = 4,
    frame_height: int = 96,
) -> np.ndarray:
    """Return one uint8 RGB image (H, W, 3): a strip of frames per clip, its caption below.

    Args:
        clips: uint8 RGB (T, H, W, 3) each; sizes and lengths may differ.
        captions: as many; long ones are wrapped, "\\n" starts a new line, and what the font lacks
            (it knows ASCII) is shown as "?".
        num_columns: clips side by side.
        num_frames: frames of each clip, evenly spread from the first to the last.
        frame_height: height at which frames are shown, pixels.

    Raises:
        ValueError: no clip, as many captions as clips are not given, frames of another form, or a
            number below 1.
    """
    if not clips or len(clips) != len(captions):
        raise ValueError(f"expected one caption per clip, got {len(captions)} for {len(clips)}")
    if min(num_columns, num_frames, frame_height) < 1:
        raise ValueError("num_columns, num_frames and frame_height must be at least 1")
    strips = [_strip(clip, num_frames, frame_height) for clip in clips]
    cell_width = max(strip.shape[1] for strip in strips)
    texts = [_wrap(caption, cell_width) for caption in captions]
    num_lines = max(len(lines) for lines in texts)
    cells = [
        _cell(strip, lines, cell_width, num_lines)
        for strip, lines in zip(strips, texts, strict=True)
    ]
    num_columns = min(num_columns, len(cells))
    num_rows = math.ceil(len(cells) / num_columns)
    height, width = cells[0].shape[0] + GAP, cell_width + GAP
    sheet = np.full((GAP + num_rows * height, GAP + num_columns * width, 3), PAPER, np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, num_columns)
        top, left = GAP + row * height, GAP + column * width
        sheet[top : top + cell.shape[0], left : left + cell_width] = cell
    return sheet


def write_contact_sheet(
    path: str | os.PathLike,
    clips: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    num_columns: int = 3,
    num_frames: int = 4,
    frame_height: int = 96,
    overwrite: bool = False,
) -> None:
    """Write a contact sheet as an image; the suffix of `path` (.png, .jpg) chooses the format.

    Args and Raises: as `contact_sheet`; FileExistsError if the file exists and `overwrite` is
    false.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"a contact sheet is a {' or '.join(SUFFIXES)} file, not {path}")
    sheet = contact_sheet(
        clips,
        captions,
        num_columns=num_columns,
        num_frames=num_frames,
        frame_height=frame_height,
    )
    with atomic_path(path, overwrite=overwrite) as temporary:
        if not cv2.imwrite(str(temporary), sheet[..., ::-1]):
            raise OSError(f"cannot write the image {path}")


def captioned(frame: np.ndarray, caption: str) -> np.ndarray:
    """Return a frame, uint8 RGB (H, W, 3), on paper with a caption below."""
    lines = _wrap(caption, frame.shape[1])
    return _cell(frame, lines, frame.shape[1], len(lines))


def _strip(clip: np.ndarray, num_frames: int, frame_height: int) -> np.ndarray:
    """Return some frames of a clip side by side, one pixel of paper between them."""
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3 or not len(clip):
        raise ValueError(f"expected uint8 clips (T, H, W, 3), got {clip.dtype} {clip.shape}")
    indices = np.linspace(0, len(clip) - 1, min(num_frames, len(clip))).round().astype(int)
    width = max(1, round(clip.shape[2] * frame_height / clip.shape[1]))
    frames = [resize_frame(clip[index], frame_height, width) for index in indices]
    return np.concatenate([_padded(frame, frame_height, width + 1) for frame in frames], axis=1)


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the image with paper added below and to the right."""
    result = np.full((height, width, 3), PAPER, np.uint8)
    result[: image.shape[0], : image.shape[1]] = image
    return result


def _wrap(caption: str, width: int) -> list[str]:
    """Return the lines of a caption that fit into `width` pixels; a longer word stands alone."""
    lines = []
    for paragraph in caption.encode("ascii", "replace").decode().split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and cv2.getTextSize(longer, FONT, FONT_SCALE, 1)[0][0] > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _cell(strip: np.ndarray, lines: list[str], width: int, num_lines: int) -> np.ndarray:
    """Return a strip of frames with its caption below."""
    cell = _padded(strip, strip.shape[0] + num_lines * LINE_HEIGHT + 4, width)
    for number, line in enumerate(lines):
        baseline = strip.shape[0] + (number + 1) * LINE_HEIGHT - 2
        cv2.putText(cell, line, (0, baseline), FONT, FONT_SCALE, INK, 1, cv2.LINE_AA)
    return cell
