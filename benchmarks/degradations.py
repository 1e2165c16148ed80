"""Known faults at five strengths, to see which metric sees which fault.

All functions take and return uint8 frames (T, H, W, 3); a strength is 1 (weak) to 5 (strong).
"""

import cv2
import numpy as np

__all__ = ["DEGRADATIONS", "NUM_STRENGTHS", "degrade", "is_ordered"]

NUM_STRENGTHS = 5
BLUR_SIGMAS = (0.5, 1.0, 1.5, 2.5, 4.0)  # pixels
NOISE_SIGMAS = (2, 5, 10, 20, 40)  # levels
SHUFFLED_WINDOWS = (2, 4, 6, 8, 16)  # frames that change places, further with each strength
KEPT_SHARES = (7 / 8, 3 / 4, 2 / 3, 1 / 2, 1 / 4)  # of frames; others repeat the one before
FROZEN_SHARES = (0.1, 0.25, 0.4, 0.6, 0.85)  # of the end of a video that stands still
JPEG_QUALITIES = (70, 40, 20, 10, 5)


def blur(frames: np.ndarray, strength: int) -> np.ndarray:
    """Return frames smoothed by a Gaussian."""
    sigma = BLUR_SIGMAS[strength - 1]
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def noise(frames: np.ndarray, strength: int) -> np.ndarray:
    """Return frames with independent normal noise, always the same."""
    drawn = np.random.RandomState(0).standard_normal(frames.shape)
    return np.clip(np.rint(frames + NOISE_SIGMAS[strength - 1] * drawn), 0, 255).astype(np.uint8)


def shuffle(frames: np.ndarray, strength: int) -> np.ndarray:
    """Return all frames, those of each window in another order, always the same."""
    rng, size = np.random.RandomState(0), SHUFFLED_WINDOWS[strength - 1]
    order = []
    for start in range(0, len(frames), size):
        window = np.arange(start, min(start + size, len(frames)))
        shift = 1 + rng.randint(len(window) - 1) if len(window) > 1 else 0
        mixed = np.roll(window, shift)  # no frame stays in its place
        order.extend(rng.permutation(mixed) if len(window) > 3 else mixed)
    return frames[order]


def drop(frames: np.ndarray, strength: int) -> np.ndarray:
    """Return frames of which an even share is lost, each replaced by the one before it."""
    kept = np.floor(np.arange(len(frames)) * KEPT_SHARES[strength - 1] + 1e-9)
    is_kept = np.diff(kept, prepend=-1) > 0
    last_kept = np.maximum.accumulate(np.where(is_kept, np.arange(len(frames)), 0))
    return frames[last_kept]


def freeze(frames: np.ndarray, strength: int) -> np.ndarray:
    """Return frames that stand still from some moment to the end."""
    moving = max(1, round(len(frames) * (1 - FROZEN_SHARES[strength - 1])))
    return frames[np.minimum(np.arange(len(frames)), moving - 1)]


def blocks(frames: np.ndarray, strength: int) -> np.ndarray:
    """Return frames with the 8x8 blocks of JPEG."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITIES[strength - 1]]
    coded = (cv2.imencode(".jpg", frame[..., ::-1], quality)[1] for frame in frames)
    return np.stack([cv2.imdecode(each, cv2.IMREAD_COLOR)[..., ::-1] for each in coded])


DEGRADATIONS = {
    "blur": blur,
    "noise": noise,
    "shuffle": shuffle,
    "drop": drop,
    "freeze": freeze,
    "blocks": blocks,
}


def degrade(frames: np.ndarray, fault: str, strength: int) -> np.ndarray:
    """Return frames with a fault.

    Args:
        frames: uint8 (T, H, W, 3).
        fault: of `DEGRADATIONS`.
        strength: 1 to 5.

    Raises:
        ValueError: an unknown fault or strength.
    """
    if fault not in DEGRADATIONS or not 1 <= strength <= NUM_STRENGTHS:
        raise ValueError(
            f"expected one of {', '.join(DEGRADATIONS)} at a strength of 1 to {NUM_STRENGTHS}, "
            f"got {fault!r} at {strength}"
        )
    return np.ascontiguousarray(DEGRADATIONS[fault](frames, strength))


def is_ordered(badness: np.ndarray) -> bool:
    """Return whether figures, from weak to strong, tell every strength from the one before.

    Args:
        badness: (5,), larger for worse. The undegraded video has 0.
    """
    return bool(np.all(np.diff(np.concatenate([[0.0], badness])) > 0))
