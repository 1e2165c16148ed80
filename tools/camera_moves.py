"""Clips with smooth motion made of photographs: a camera that moves over one, objects before it."""

import cv2
import numpy as np

from mg.data.transforms import resize_frame

__all__ = ["camera_move", "with_moving_object"]

# Share of the photograph's smaller extent, in windows, that the camera starts with, and the largest
# change of that on the way, as a natural logarithm.
SCALE_RANGE, MAX_ZOOM = (0.3, 0.8), 0.3
# Largest part of the speed that comes and goes once on the way.
MAX_EASE = 0.8
# Radius of an object as a share of the height, and how much it grows or shrinks.
OBJECT_RADIUS, OBJECT_ZOOM = (0.12, 0.35), 0.25


def camera_move(
    photograph: np.ndarray,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    num_frames: int,
    max_speed: float,
    max_turn: float,
) -> np.ndarray:
    """Return a smooth camera move over a photograph, uint8 (num_frames, *size, 3).

    A window moves straight on, turns, and grows or shrinks, sometimes faster, sometimes slower. It
    never leaves the photograph: there the move is shorter.

    Args:
        photograph: uint8 (H, W, 3), both sides at least those of `size`.
        rng: fixes the move.
        size: height and width of the clip.
        num_frames: length of the clip, at least 2.
        max_speed: largest mean speed, in pixels of the clip per frame.
        max_turn: largest mean turn, in degrees per frame.

    Raises:
        ValueError: the photograph is smaller than the clip.
    """
    size, extent = np.array(size), np.array(photograph.shape[:2])
    if (extent < size).any():
        raise ValueError(f"a photograph must be at least {tuple(size)}, not {tuple(extent)}")
    last_turn = np.radians(max_turn) * (num_frames - 1) * rng.uniform(-1, 1)
    angles = np.array([0.0, last_turn]) + rng.uniform(-0.5, 0.5) * abs(last_turn)
    # Half of what a turned window covers along y and x, in pixels of the clip.
    cos, sin = np.abs(np.cos(angles)).max(), np.abs(np.sin(angles)).max()
    half = (size * cos + size[::-1] * sin) / 2
    limit = 0.999 * (extent / (2 * half)).min()  # less a little for rounding
    # Photograph pixels per pixel of the clip, at the first and the last frame.
    least = min(1.0, limit)
    first = np.clip((extent / size).min() * rng.uniform(*SCALE_RANGE), least, limit)
    last = np.clip(first * np.exp(rng.uniform(-MAX_ZOOM, MAX_ZOOM)), least, limit)
    speed, direction = rng.uniform(0, max_speed), rng.uniform(0, 2 * np.pi)
    distance = speed * (num_frames - 1) * (first + last) / 2
    # Where the window's centre (y, x) may be, at the first and the last frame.
    low_first, low_last = half * first, half * last
    high_first, high_last = extent - low_first, extent - low_last
    move = distance * np.array([np.sin(direction), np.cos(direction)])
    move = np.clip(move, low_last - high_first, high_last - low_first)
    start = rng.uniform(
        np.maximum(low_first, low_last - move), np.minimum(high_first, high_last - move)
    )
    shares = _eased(num_frames, rng)
    frames = [
        _window(
            photograph,
            start + share * move,
            first + share * (last - first),
            angles[0] + share * (angles[1] - angles[0]),
            size,
        )
        for share in shares
    ]
    return np.stack(frames)  # (T, H, W, 3)


def with_moving_object(
    frames: np.ndarray, texture: np.ndarray, rng: np.random.Generator, *, max_speed: float
) -> np.ndarray:
    """Return the clip with an object that moves before it, uint8 like `frames`.

    The object is an ellipse cut out of a photograph; it moves straight through a place within the
    frame, turns, and grows or shrinks.

    Args:
        frames: uint8 (T, H, W, 3).
        texture: the photograph, uint8 RGB.
        rng: fixes the object.
        max_speed: its largest mean speed, in pixels per frame.
    """
    num_frames, height, width = frames.shape[:3]
    radius = height * rng.uniform(*OBJECT_RADIUS)
    patch = _cut_out(texture, rng, side=int(np.ceil(2 * radius)))  # (side, side, 4)
    centre = np.array([height, width]) * rng.uniform(0.2, 0.8, 2)
    speed, direction = rng.uniform(0, max_speed), rng.uniform(0, 2 * np.pi)
    move = speed * (num_frames - 1) * np.array([np.sin(direction), np.cos(direction)])
    turn, zoom = rng.uniform(-60, 60), rng.uniform(-OBJECT_ZOOM, OBJECT_ZOOM)
    result = []
    for frame, share in zip(frames, _eased(num_frames, rng), strict=True):
        middle = (patch.shape[0] - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), turn * share, np.exp(zoom * share))
        matrix[:, 2] += (centre + (share - 0.5) * move)[::-1] - middle
        layer = cv2.warpAffine(patch, matrix, (width, height), flags=cv2.INTER_LINEAR)
        cover = layer[..., 3:]
        result.append(np.rint(frame * (1 - cover) + layer[..., :3]).clip(0, 255).astype(np.uint8))
    return np.stack(result)


def _eased(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return shares (T,) of the way from 0 to 1, rising, with a speed that swings once."""
    place = np.linspace(0, 1, num_frames)
    ease, phase = rng.uniform(0, MAX_EASE), rng.uniform(0, 2 * np.pi)
    swing = np.sin(2 * np.pi * place + phase) - np.sin(phase)
    return place + ease * swing / (2 * np.pi)


def _cut_out(texture: np.ndarray, rng: np.random.Generator, *, side: int) -> np.ndarray:
    """Return an ellipse of the texture with a soft edge, float32 (side, side, 4).

    The fourth channel is the ellipse's cover of each pixel; the colours are multiplied by it.
    """
    extent = min(texture.shape[:2])
    cut = int(np.clip(rng.uniform(0.3, 1.0) * extent, min(side, extent), extent))
    top, left = (rng.integers(length - cut + 1) for length in texture.shape[:2])
    colours = resize_frame(texture[top : top + cut, left : left + cut], side, side)
    y, x = (np.mgrid[:side, :side] + 0.5) * 2 / side - 1
    radius = np.hypot(x, y / rng.uniform(0.5, 1.0))
    cover = np.clip((0.95 - radius) * side / 4, 0, 1)[..., None]
    return np.concatenate((colours * cover, cover), axis=2).astype(np.float32)


def _window(
    photograph: np.ndarray, centre: np.ndarray, scale: float, angle: float, size: np.ndarray
) -> np.ndarray:
    """Return the window around `centre` (y, x), `scale` photograph pixels per pixel of the clip.

    It is turned by `angle` (radians), sampled at least as finely as the photograph and then
    averaged over areas, so that fine texture does not flicker as it moves.
    """
    factor = int(np.ceil(scale))
    height, width = size * factor
    step = scale / factor
    cos, sin = step * np.cos(angle), step * np.sin(angle)
    # Pixel (x, y) of the window covers the photograph around the centre plus its turned distance
    # from the window's own centre, both counted from the middle of the first pixel.
    turned = np.array([[cos, -sin], [sin, cos]])
    offset = centre[::-1] - 0.5 - turned @ np.array([width - 1, height - 1]) / 2
    fine = cv2.warpAffine(
        photograph,
        np.column_stack((turned, offset)),
        (int(width), int(height)),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return resize_frame(fine, *map(int, size))
