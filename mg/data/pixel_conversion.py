"""From a video file's pixel format to RGB and back, by swscale's accurate path.

Its default is fast and biased: each pass through 4:2:0 darkens a picture by more than one level of
255. With accurate rounding, and chroma interpolated for every pixel, the means stay.
"""

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

__all__ = ["from_rgb", "to_rgb"]

# Flags of libswscale/swscale.h; PyAV before version 18 has no names for the last three.
BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND = 0x4, 0x2000, 0x4000, 0x40000
ACCURATE = BICUBIC | FULL_CHR_H_INT | FULL_CHR_H_INP | ACCURATE_RND


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a decoded frame's pixels as uint8 (H, W, 3) RGB, not rotated."""
    return frame.to_ndarray(format="rgb24", interpolation=ACCURATE)


def from_rgb(image: np.ndarray) -> av.VideoFrame:
    """Return a frame in yuv420p, BT.709, limited range.

    Args:
        image: uint8 (H, W, 3) RGB, H and W even.
    """
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=ACCURATE,
    )
