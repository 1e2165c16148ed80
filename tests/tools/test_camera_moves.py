"""Clips made of photographs: smooth, inside, and each fixed by its random numbers."""

import itertools

import cv2
import numpy as np
import pytest

from camera_moves import _window, camera_move, with_moving_object

SIZE = (72, 96)


def texture(height=240, width=320, seed=0):
    """Return a photograph-like picture: smooth noise, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).random((height // 8, width // 8, 3))
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (255 * np.clip(smooth, 0, 1)).astype(np.uint8)


def move_over(photograph, seed, *, max_turn=0.5, num_frames=32):
    return camera_move(
        photograph,
        np.random.default_rng(seed),
        size=SIZE,
        num_frames=num_frames,
        max_speed=3.0,
        max_turn=max_turn,
    )


def test_moves_are_fixed_by_the_random_numbers():
    first, again, other = (move_over(texture(), seed) for seed in (3, 3, 4))
    assert first.shape == (32, *SIZE, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


@pytest.mark.parametrize("size", [SIZE, (72, 200), (150, 96), (240, 427)])
def test_moves_never_leave_the_photograph(size):
    # Left to right the ramp covers 40 to 200: a reflection or a black border would show outside
    # the range or as a change of direction.
    ramp = np.linspace(40, 200, size[1], dtype=np.float32)
    photograph = np.repeat(np.tile(ramp, (size[0], 1))[..., None], 3, axis=2).astype(np.uint8)
    for seed in range(8):
        frames = move_over(photograph, seed, num_frames=9).astype(int)
        assert frames.min() >= 39 and frames.max() <= 201
        assert np.diff(frames[..., 0], axis=2).min() >= -1


def test_moves_are_smooth_and_not_too_fast():
    peaks = []
    window = cv2.createHanningWindow(SIZE[::-1], cv2.CV_32F)
    for seed in range(8):
        grey = move_over(texture(), seed, max_turn=0.0).astype(np.float32).mean(axis=3)
        shifts = [
            np.hypot(*cv2.phaseCorrelate(a, b, window)[0]) for a, b in itertools.pairwise(grey)
        ]
        peaks.append(max(shifts))
        assert np.abs(np.diff(shifts)).max() < 1.0
    # 3 pixels per frame on average, 1.8 times that where it is fastest, and what the zoom adds.
    assert 1.0 < max(peaks) < 6.0


def test_a_turning_camera_turns():
    photograph = texture(400, 400)
    frames = move_over(photograph, 1, max_turn=3.0)
    still = move_over(photograph, 1, max_turn=0.0)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 5
    assert np.abs(frames.astype(int) - still).mean() > 5


def test_a_window_of_the_whole_photograph_is_the_photograph():
    photograph = texture(72, 96)
    whole = _window(photograph, np.array([36.0, 48.0]), 1.0, 0.0, np.array(SIZE))
    np.testing.assert_array_equal(whole, photograph)


def test_a_window_turned_by_a_right_angle_is_turned():
    photograph = texture(96, 96)
    whole = _window(photograph, np.array([48.0, 48.0]), 1.0, np.pi / 2, np.array([96, 96]))
    error = np.abs(whole.astype(int) - np.rot90(photograph, -1))
    assert min(error.mean(), np.abs(whole.astype(int) - np.rot90(photograph)).mean()) < 0.5


def test_a_photograph_smaller_than_the_clip_is_refused():
    with pytest.raises(ValueError, match=r"at least \(72, 96\), not \(60, 128\)"):
        move_over(texture(60, 128), 0)


def test_an_object_covers_a_part_of_the_frame_and_moves():
    ground = np.zeros((16, *SIZE, 3), np.uint8)
    white = np.full((200, 200, 3), 255, np.uint8)
    paths = []
    for seed in range(6):
        frames = with_moving_object(ground, white, np.random.default_rng(seed), max_speed=3.0)
        cover = frames[..., 0] / 255  # (T, H, W)
        assert frames.shape == ground.shape and frames.dtype == np.uint8
        assert 0.01 < cover.mean() < 0.6
        x = (cover * np.arange(SIZE[1])).sum(axis=(1, 2)) / cover.sum(axis=(1, 2))
        assert np.abs(np.diff(x)).max() < 6.0  # smooth
        paths.append(np.ptp(x))
    assert max(paths) > 5.0
    assert (ground == 0).all()


def test_what_the_object_does_not_cover_stays():
    frames = np.repeat(texture(*SIZE)[None], 4, axis=0)
    black = np.zeros((200, 200, 3), np.uint8)
    result = with_moving_object(frames, black, np.random.default_rng(0), max_speed=1.0)
    same = (result == frames).all(axis=3)
    assert 0.4 < same.mean() < 0.98
    assert (result <= frames).all()
