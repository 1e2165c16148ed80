"""LPIPS as a loss on videos."""

import numpy as np
from mindspore import Tensor, nn

from mg.models.layers.frames import fold_frames
from mg.models.perceptual import LPIPS

__all__ = ["PerceptualLoss", "draw_frame_indices"]


class PerceptualLoss(nn.Cell):
    """LPIPS of a video's frames, averaged over frames and batch.

    Args:
        network: LPIPS with loaded weights (`mg.metrics.lpips.load_lpips`); it stays frozen.
    """

    def __init__(self, network: LPIPS) -> None:
        super().__init__()
        self.network = network

    def construct(
        self, reference: Tensor, reconstruction: Tensor, frame_indices: Tensor | None = None
    ) -> Tensor:
        """Return the mean distance over the compared frames, a float32 scalar.

        Args:
            reference: video (B, 3, T, H, W) in [-1, 1]; gets no gradient.
            reconstruction: the same shape.
            frame_indices: int32 (n,): compare only these frames, to save time; see
                `draw_frame_indices`. None compares all.
        """
        if frame_indices is not None:
            reference = reference.gather(frame_indices, 2)  # (B, 3, T, H, W) -> (B, 3, n, H, W)
            reconstruction = reconstruction.gather(frame_indices, 2)
        return self.network(fold_frames(reference), fold_frames(reconstruction)).mean()


def draw_frame_indices(
    num_video_frames: int, num_frames: int, *, seed: int, step: int
) -> np.ndarray:
    """Return int32 (num_frames,): evenly spaced frames from a random start, in order.

    Counting goes on at the first frame after the last, so every frame has the same chance. A step
    draws the same frames whenever it is run again.

    Args:
        num_video_frames: frames in the video (T).
        num_frames: how many to draw, 1 to T.
        seed: of the run.
        step: of the training.

    Raises:
        ValueError: `num_frames` is out of range.
    """
    if not 1 <= num_frames <= num_video_frames:
        raise ValueError(
            f"cannot draw {num_frames} frames from a video of {num_video_frames}; give a number "
            f"from 1 to {num_video_frames}"
        )
    offset = np.random.default_rng((seed, step)).integers(num_video_frames)
    starts = np.arange(num_frames) * num_video_frames // num_frames
    return np.sort((starts + offset) % num_video_frames).astype(np.int32)
