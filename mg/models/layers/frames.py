"""Clips as batches of frames, and which frames the taps of a convolution over time see.

Which frames those are is settled while the graph is compiled; one gather with such an index is the
shift, the padding and the stride.
"""

import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import constexpr

__all__ = [
    "channel_rows",
    "fold_frames",
    "folded_frames",
    "join_frames",
    "mix_frames",
    "take_frames",
    "unfold_frames",
]


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


def take_frames(x: Tensor, num_frames: int, frames: tuple[int, ...]) -> Tensor:
    """Return the frames of each clip that are named, in this order, (B * len(frames), C, H, W).

    Args:
        x: folded clips (B*T, C, H, W).
        num_frames: T.
        frames: numbers in 0..T-1.
    """
    return ops.gather(x, _positions(x.shape[0] // num_frames, num_frames, frames), 0)


@constexpr
def _positions(batch: int, num_frames: int, frames: tuple[int, ...]) -> Tensor:
    positions = folded_frames(batch, num_frames, np.array(frames)[:, None])
    return Tensor(positions.reshape(-1).astype(np.int32))


def mix_frames(x: Tensor, num_frames: int, weights: Tensor) -> Tensor:
    """Return weighted sums of the frames of each clip, (B*T', C, H, W).

    Args:
        x: folded clips (B*T, C, H, W).
        num_frames: T.
        weights: (T', T) of the old frames in each new one.
    """
    total, channels, height, width = x.shape
    frames = x.reshape(total // num_frames, num_frames, -1)
    return ops.matmul(weights.astype(x.dtype), frames).reshape(-1, channels, height, width)


def join_frames(first: Tensor, second: Tensor, num_clips: int) -> Tensor:
    """Return clips one after the other in time, (B*(T1+T2), C, H, W).

    Args:
        first, second: folded clips (B*T1, C, H, W) and (B*T2, C, H, W).
        num_clips: B.
    """
    if num_clips == 1:
        return ops.concat((first, second), 0)
    shape = first.shape[1:]
    first = first.reshape(num_clips, -1, *shape)
    return ops.concat((first, second.reshape(num_clips, -1, *shape)), 1).reshape(-1, *shape)
