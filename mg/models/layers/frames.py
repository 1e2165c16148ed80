"""Clips as batches of frames, and which frames the taps of a convolution over time see.

Which frames those are is settled while the graph is compiled; one gather with such an index is the
shift, the padding and the stride.
"""

import numpy as np
from mindspore import Tensor

__all__ = ["channel_rows", "fold_frames", "folded_frames", "unfold_frames"]


def fold_frames(video: Tensor) -> Tensor:
    """Return (B, C, T, H, W) as (B*T, C, H, W)."""
    batch, channels, frames, height, width = video.shape
    if frames == 1:
        return video.reshape(batch, channels, height, width)
    return video.transpose(0, 2, 1, 3, 4).reshape(batch * frames, channels, height, width)


def unfold_frames(x: Tensor, num_frames: int) -> Tensor:
    """Return (B*T, C, H, W) as (B, C, T, H, W); the inverse of `fold_frames`."""
    total, channels, height, width = x.shape
    if num_frames == 1:
        return x.reshape(total, channels, 1, height, width)
    x = x.reshape(total // num_frames, num_frames, channels, height, width)
    return x.transpose(0, 2, 1, 3, 4)


def folded_frames(batch: int, num_frames: int, frames: np.ndarray) -> np.ndarray:
    """Return frame numbers (num_out, taps) of a clip as positions in a folded batch of clips.

    The result has the shape (batch * num_out, taps).
    """
    starts = num_frames * np.arange(batch)[:, None, None]
    return (starts + frames).reshape(-1, frames.shape[1])


def channel_rows(frames: np.ndarray, channels: int) -> Tensor:
    """Return the rows of (N * C, H, W) that put the taps of each channel next to each other.

    Args:
        frames: which of N frames each output frame sees, (num_out, taps).
        channels: C.

    Returns:
        int32 (num_out * C * taps,).
    """
    rows = channels * frames[:, None, :] + np.arange(channels)[:, None]  # (num_out, C, taps)
    return Tensor(rows.reshape(-1).astype(np.int32))
