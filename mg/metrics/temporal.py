"""Metrics of motion: warping error, difference of flows, flicker, and how much moves at all.

All rest on the optical flow of OpenCV's DIS method (Kroeger et al., 2016, preset "medium") between
neighbouring frames, in gray levels of 8 bits. Other flow methods give other figures: compare a
video with its original and with figures of this file, not with those of papers.

Shapes: frames (T, H, W, 3); flow (H, W, 2), in pixels, (right, down).
"""

from collections.abc import Iterator

import cv2
import numpy as np

from mg.metrics.frames import checked_pair

__all__ = [
    "MIN_FLOW_SIZE",
    "TEMPORAL_FIGURES",
    "FlowMethod",
    "gray_frame",
    "occluded",
    "temporal_figures",
    "warp",
]

TEMPORAL_FIGURES = (
    "warping_error",
    "warping_error_original",
    "tof",
    "flicker",
    "flicker_original",
    "motion_energy_ratio",
)
# DIS compares patches of 8x8 on a pyramid; below this it fails.
MIN_FLOW_SIZE = 16
# Occluded is what does not come back: |f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5, with the flow f to
# the next frame and b back from there (Sundaram et al. 2010, section 4).
OCCLUSION_SHARE, OCCLUSION_FLOOR = 0.01, 0.5
# A pixel is static whose original moves less than this between the three frames, in pixels.
STATIC_MOTION = 0.25
# Mean motion per frame of an original below which a ratio to it says nothing, in pixels.
LEAST_MOTION = 0.02


class FlowMethod:
    """The optical flow between two frames."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return where the pixels of `first` are in `second`, relative to where they were.

        Args:
            first, second: gray frames, uint8 (H, W), at least 16x16.
        """
        return self._dis.calc(first, second, None)


def temporal_figures(
    reference: np.ndarray, generated: np.ndarray, *, data_range: float = 255
) -> dict[str, np.ndarray]:
    """Return the figures of motion of a clip and of its original.

    Keys, the first five with a number per frame but for the first (flicker: the first two):

    - `warping_error`: mean squared difference, of frames in [0, 1], between a frame of the
      generated video and the next one warped back along the *original's* flow, where nothing is
      occluded (Lai et al. 2018). NaN where everything is.
    - `warping_error_original`: the same of the original itself, which is not 0.
    - `tof`: mean length of the difference between the flows of both, in pixels (Chu et al. 2020).
    - `flicker`: mean |x[t-1] - 2 x[t] + x[t+1]| of the generated video, in levels of 255, where the
      original does not move. NaN where all of it does.
    - `flicker_original`: the same of the original.
    - `motion_energy_ratio`, of the whole clip: mean squared length of the generated video's flow
      over that of the original's, each without its largest hundredth. NaN if the original is still.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating in [0, data_range].
        generated: frames of the same shape and kind.
        data_range: the value of white.

    Raises:
        ValueError: the clips cannot be compared, are too small, or have one frame only.
    """
    num_frames, height, width = checked_pair(reference, generated)
    if num_frames < 2:
        raise ValueError("metrics of motion need at least 2 frames, here is 1")
    if min(height, width) < MIN_FLOW_SIZE:
        raise ValueError(
            f"frames of {height}x{width} are too small for optical flow; it needs at least "
            f"{MIN_FLOW_SIZE}x{MIN_FLOW_SIZE}"
        )
    pairs = list(_figures_of_pairs(reference, generated, data_range))
    names = ("warping_error", "warping_error_original", "tof")
    figures = {name: np.array([pair[name] for pair in pairs]) for name in names}
    still = [pair["is_static"] for pair in pairs]
    flicker = np.array(
        [
            _flicker(t, reference, generated, still[t - 1] & still[t], data_range)
            for t in range(1, num_frames - 1)
        ]
    ).reshape(-1, 2)
    figures["flicker"], figures["flicker_original"] = flicker[:, 0], flicker[:, 1]
    energy, original = (
        sum(pair[key] for pair in pairs) / len(pairs) for key in ("energy", "energy_original")
    )
    ratio = energy / original if original > LEAST_MOTION**2 else np.nan
    figures["motion_energy_ratio"] = np.array(ratio)
    return figures


def _figures_of_pairs(
    reference: np.ndarray, generated: np.ndarray, data_range: float
) -> Iterator[dict]:
    """Yield what is known of each pair of neighbouring frames."""
    flow_of = FlowMethod()
    unit = 1 / data_range
    gray = gray_frame(reference[0], data_range), gray_frame(generated[0], data_range)
    for t in range(len(reference) - 1):
        after = gray_frame(reference[t + 1], data_range), gray_frame(generated[t + 1], data_range)
        forward, backward = flow_of(gray[0], after[0]), flow_of(after[0], gray[0])
        of_generated = flow_of(gray[1], after[1])
        visible = ~occluded(forward, backward)
        yield {
            "warping_error": _warping_error(generated[t], generated[t + 1], forward, visible, unit),
            "warping_error_original": _warping_error(
                reference[t], reference[t + 1], forward, visible, unit
            ),
            "tof": float(np.linalg.norm(forward - of_generated, axis=-1).mean()),
            "is_static": np.square(forward).sum(-1) < STATIC_MOTION**2,
            "energy": _energy(of_generated),
            "energy_original": _energy(forward),
        }
        gray = after


def gray_frame(frame: np.ndarray, data_range: float = 255) -> np.ndarray:
    """Return a frame (H, W, 3) as uint8 (H, W)."""
    if frame.dtype != np.uint8:
        frame = np.rint(np.clip(frame * (255 / data_range), 0, 255)).astype(np.uint8)
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def warp(frame: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return frame(x + flow(x)), bilinear, and where x + flow(x) lies inside the frame.

    Args:
        frame: float32 (H, W) or (H, W, C).
        flow: (H, W, 2), pixels.
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    warped = cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped, inside


def occluded(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Return where a frame's pixels (H, W) are not to be seen in the next frame."""
    back, inside = warp(backward, forward)
    lengths = np.square(forward).sum(-1) + np.square(back).sum(-1)
    comes_back = np.square(forward + back).sum(-1) <= OCCLUSION_SHARE * lengths + OCCLUSION_FLOOR
    return ~(inside & comes_back)


def _warping_error(
    frame: np.ndarray, after: np.ndarray, flow: np.ndarray, visible: np.ndarray, unit: float
) -> float:
    if not visible.any():
        return np.nan
    warped, _ = warp(after.astype(np.float32) * np.float32(unit), flow)
    difference = frame.astype(np.float32) * np.float32(unit) - warped
    return float(np.square(difference[visible], dtype=np.float64).mean())


def _flicker(
    t: int, reference: np.ndarray, generated: np.ndarray, static: np.ndarray, data_range: float
) -> tuple[float, float]:
    """Return the flicker at frame t of the generated video and of the original."""
    if not static.any():
        return np.nan, np.nan
    figures = []
    for frames in (generated, reference):
        before, now, after = (frames[s].astype(np.float32) for s in (t - 1, t, t + 1))
        change = np.abs(before - 2 * now + after)[static]
        figures.append(float(change.mean(dtype=np.float64)) * 255 / data_range)
    return figures[0], figures[1]


def _energy(flow: np.ndarray) -> float:
    """Return the mean squared length of a flow without its largest hundredth, often wrong."""
    lengths = np.square(flow).sum(-1).ravel()
    kept = len(lengths) - len(lengths) // 100
    return float(np.partition(lengths, kept - 1)[:kept].mean(dtype=np.float64))
