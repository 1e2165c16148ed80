"""Resizing, cropping and value ranges of frames (functions of numpy arrays)."""

import cv2
import numpy as np

__all__ = [
    "MAX_SIDE",
    "check_image_size",
    "flip_horizontal",
    "from_model_range",
    "height_width",
    "resize_and_crop",
    "to_model_range",
]

MAX_SIDE = 16_384  # pixels; far beyond what is trained on


def check_image_size(name: str, size: int | tuple[int, int]) -> None:
    """Raise ValueError unless frames may be scaled to a size: checked before memory is asked for.

    Args:
        name: of the setting.
        size: side of a square, or (height, width), in pixels.
    """
    sides = (size,) if isinstance(size, int) else tuple(size)
    if len(sides) not in (1, 2) or not all(1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(
            f"{name} must be one or two numbers of pixels from 1 to {MAX_SIDE}, not {size!r}"
        )


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size: the side of a square, or both."""
    return (size, size) if isinstance(size, int) else tuple(size)


def resize_and_crop(
    frames: np.ndarray,
    *,
    size: tuple[int, int],
    short_side: int | None = None,
    crop: str = "center",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Return `frames` scaled without distortion and cropped to `size`, uint8 (T, *size, 3).

    All frames get the same crop. Scaling down averages areas, scaling up is bicubic.

    Args:
        frames: uint8 (T, H, W, 3).
        size: (height, width) of the result, pixels.
        short_side: length the shorter side is scaled to before the crop; it is raised where the
            scaled frame would not cover `size`. None: just large enough to cover `size`.
        crop: "center", or "random" for a place drawn from `rng`.
        rng: needed for crop="random".

    Raises:
        ValueError: unknown `crop`, or a random crop without `rng`.
    """
    if crop not in ("center", "random"):
        raise ValueError(f"crop must be 'center' or 'random', not {crop!r}")
    if crop == "random" and rng is None:
        raise ValueError("crop='random' needs a random generator (rng)")
    height, width = frames.shape[1:3]
    scale = max(size[0] / height, size[1] / width)
    if short_side is not None:
        scale = max(scale, short_side / min(height, width))
    scaled_height = max(size[0], round(height * scale))
    scaled_width = max(size[1], round(width * scale))
    spare_height, spare_width = scaled_height - size[0], scaled_width - size[1]
    if crop == "random":
        top = int(rng.integers(spare_height + 1))
        left = int(rng.integers(spare_width + 1))
    else:
        top, left = spare_height // 2, spare_width // 2
    window = np.s_[top : top + size[0], left : left + size[1]]
    result = np.empty((len(frames), *size, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        result[number] = resize_frame(frame, scaled_height, scaled_width)[window]
    return result


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a uint8 (H, W, 3) frame scaled to (height, width, 3)."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = height * width < frame.shape[0] * frame.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=method)


def flip_horizontal(frames: np.ndarray) -> np.ndarray:
    """Return frames (T, H, W, 3) mirrored left to right."""
    return np.ascontiguousarray(frames[:, :, ::-1])


def to_model_range(frames: np.ndarray) -> np.ndarray:
    """Return uint8 frames (T, H, W, 3) as float32 (3, T, H, W) in [-1, 1]."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    scaled = np.transpose(frames, (3, 0, 1, 2)).astype(np.float32)  # (3, T, H, W)
    scaled /= 127.5
    scaled -= 1.0
    return np.ascontiguousarray(scaled)


def from_model_range(frames: np.ndarray) -> np.ndarray:
    """Return float frames (3, T, H, W) in [-1, 1] as uint8 (T, H, W, 3), rounded and clipped."""
    if frames.ndim != 4 or frames.shape[0] != 3:
        raise ValueError(f"expected (3, T, H, W), got {frames.shape}")
    scaled = (np.asarray(frames, dtype=np.float32) + 1.0) * 127.5
    scaled = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.transpose(scaled, (1, 2, 3, 0)))  # (T, H, W, 3)
