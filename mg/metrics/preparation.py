"""Which frames a protocol takes of a video, and what it makes of them before they are measured."""

import cv2
import numpy as np
from PIL import Image

from mg.data.transforms import resize_and_crop
from mg.metrics.protocol import FrameSettings, SizeSettings

__all__ = ["frame_indices", "prepare_frames", "resize_frames"]


def frame_indices(
    settings: FrameSettings, *, num_frames: int, fps: float, is_real: bool
) -> np.ndarray:
    """Return the numbers of the frames that a protocol takes, fewer than it wants if there are not.

    Args:
        settings: of the protocol.
        num_frames: frames of the video.
        fps: its frame rate, 0 where it is not known.
        is_real: whether it is the original.

    Raises:
        ValueError: the protocol samples by time, and the frame rate is not known.
    """
    if settings.sample_fps is not None:
        if not fps > 0:
            raise ValueError(
                f"its frame rate is not known, and the protocol takes {settings.sample_fps:g} "
                "frames per second; set frames.sample_fps to null to take frames as they are"
            )
        last = int((num_frames - 1) / fps * settings.sample_fps + 1e-6)
        indices = np.rint(np.arange(last + 1) * fps / settings.sample_fps).astype(int)
        indices = indices[indices < num_frames]
    else:
        applies = is_real or settings.sample_rate_applies_to == "both"
        indices = np.arange(0, num_frames, settings.sample_rate if applies else 1)
    return indices[: settings.num_frames]


def prepare_frames(frames: np.ndarray, settings: SizeSettings) -> np.ndarray:
    """Return the frames as they are measured: scaled, cropped at the centre, maybe rounded.

    Args:
        frames: uint8 (T, H, W, 3).
        settings: of the protocol.

    Returns:
        uint8, or with rounding "none" float32 in [0, 255].

    Raises:
        ValueError: the crop is larger than the frames.
    """
    height, width = frames.shape[1:3]
    if settings.fit == "cover":
        short_side = min(height, width) if settings.crop_size is None else None
        size = _covered_size(height, width, settings)
        return resize_and_crop(frames, size=size, short_side=short_side)
    if settings.resolution is not None:
        scale = settings.resolution / min(height, width)
        height, width = (
            settings.resolution if side == min(height, width) else int(side * scale)
            for side in (height, width)
        )
    crop = settings.crop_size
    if crop is not None and crop > min(height, width):
        raise ValueError(
            f"its frames of {height}x{width} are smaller than the protocol's crop of {crop}x{crop}"
        )
    frames = resize_frames(frames, height, width, settings)
    if crop is not None:
        top, left = (round((side - crop) / 2) for side in (height, width))
        frames = frames[:, top : top + crop, left : left + crop]
    return np.ascontiguousarray(frames)


def _covered_size(height: int, width: int, settings: SizeSettings) -> tuple[int, int]:
    """Return the (height, width) of frames that are scaled to cover a size, or that keep theirs."""
    if settings.crop_size is not None:
        return _pair(settings.crop_size)
    size = tuple(
        side // multiple * multiple
        for side, multiple in zip((height, width), _pair(settings.crop_multiple), strict=True)
    )
    if not all(size):
        raise ValueError(
            f"its frames of {height}x{width} are smaller than size.crop_multiple="
            f"{settings.crop_multiple}"
        )
    return size


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def resize_frames(
    frames: np.ndarray, height: int, width: int, settings: SizeSettings
) -> np.ndarray:
    """Return frames (T, height, width, 3) of the kind that the protocol asks for."""
    dtype = np.uint8 if settings.rounding == "bytes" else np.float32
    if frames.shape[1:3] == (height, width):
        return frames.astype(dtype, copy=False)
    result = np.empty((len(frames), height, width, 3), dtype)
    for index, frame in enumerate(frames):
        scaled = _resize(frame.astype(np.float32), height, width, settings.interpolation)
        if settings.rounding == "bytes":
            scaled = np.rint(np.clip(scaled, 0, 255))
        result[index] = scaled
    return result


def _resize(frame: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Return a float32 frame (H, W, 3) scaled to (height, width, 3)."""
    if interpolation == "bilinear_antialias":
        channels = [
            Image.fromarray(frame[..., c], mode="F").resize((width, height), Image.BILINEAR)
            for c in range(3)
        ]
        return np.stack(channels, axis=-1)
    method = cv2.INTER_LINEAR
    if interpolation == "area":
        shrinks = height * width < frame.shape[0] * frame.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(frame, (width, height), interpolation=method)
