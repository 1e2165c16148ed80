"""Metrics of motion against cases whose figures are known: shifts, flicker, stillness."""

import cv2
import numpy as np
import pytest

from mg.metrics.temporal import TEMPORAL_FIGURES, occluded, temporal_figures, warp

HEIGHT, WIDTH = 48, 72


def make_shifted(pixels: int, num_frames: int = 4) -> np.ndarray:
    """Return uint8 frames (T, 48, 72, 3) of a smooth texture that moves right by whole pixels."""
    noise = np.random.RandomState(0).rand(HEIGHT, WIDTH + 60, 3)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = 30 + 190 * (texture - texture.min()) / np.ptp(texture)
    frames = [texture[:, 30 - pixels * t :][:, :WIDTH] for t in range(num_frames)]
    return np.rint(frames).astype(np.uint8)


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    return make_shifted(0)


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    return make_shifted(2)


def test_a_video_against_itself(moving):
    figures = temporal_figures(moving, moving)
    assert tuple(figures) == TEMPORAL_FIGURES
    assert [figures[name].shape for name in TEMPORAL_FIGURES] == [(3,)] * 3 + [(2,)] * 2 + [()]
    # The next frame, warped back by a flow that is right to a tenth of a pixel, is the frame.
    np.testing.assert_allclose(figures["warping_error"], 0, atol=2e-6)
    np.testing.assert_array_equal(figures["warping_error"], figures["warping_error_original"])
    np.testing.assert_array_equal(figures["tof"], 0)
    assert figures["motion_energy_ratio"] == 1


def test_a_uniform_shift_of_known_size(still, moving):
    """The original moves by 2 pixels per frame, the generated video does not move at all."""
    figures = temporal_figures(moving, still)
    np.testing.assert_allclose(figures["tof"], 2, atol=0.02)
    assert figures["motion_energy_ratio"] == pytest.approx(0, abs=1e-4)
    # Where the flow says 2 pixels and none are due, the error is that of a shift by 2 pixels.
    frame = still[0] / 255
    expected = np.square(frame[:, 2:] - frame[:, :-2]).mean()
    np.testing.assert_allclose(figures["warping_error"], expected, rtol=0.05)
    np.testing.assert_allclose(figures["warping_error_original"], 0, atol=2e-6)


def test_twice_the_speed_is_four_times_the_energy(moving):
    figures = temporal_figures(moving, make_shifted(4))
    assert float(figures["motion_energy_ratio"]) == pytest.approx(4, rel=0.02)
    np.testing.assert_allclose(figures["tof"], 2, atol=0.03)


def test_a_flicker_of_known_amplitude(still):
    """Every second frame is 5 levels brighter: |x - 2 (x + 5) + x| = 10, its square (5/255)^2."""
    flickering = still.copy()
    flickering[::2] += 5
    figures = temporal_figures(still, flickering)
    np.testing.assert_allclose(figures["flicker"], 10, atol=1e-6)
    np.testing.assert_array_equal(figures["flicker_original"], 0)
    np.testing.assert_allclose(figures["warping_error"], (5 / 255) ** 2, rtol=1e-3)
    of_floats = temporal_figures(
        still.astype(np.float32) / 255, flickering.astype(np.float32) / 255, data_range=1
    )
    for name in TEMPORAL_FIGURES:
        np.testing.assert_allclose(of_floats[name], figures[name], rtol=1e-4, atol=1e-6)


def test_what_is_not_defined_is_nan(still, moving):
    """No pixel of the original stands still; an original without motion has no ratio."""
    assert np.isnan(temporal_figures(moving, still)["flicker"]).all()
    assert np.isnan(temporal_figures(still, moving)["motion_energy_ratio"])
    two = temporal_figures(still[:2], still[:2])
    assert two["flicker"].shape == (0,) and two["tof"].shape == (1,)


def test_occluded_is_what_does_not_come_back():
    forward, backward = np.zeros((2, 12, 12, 2), np.float32)
    forward[2:6, 2:6] = (3, 0)
    backward[2:6, 5:9] = (-3, 0)  # what moved right comes from the left
    expected = np.zeros((12, 12), bool)
    expected[2:6, 6:9] = True  # still pixels that the square has covered
    np.testing.assert_array_equal(occluded(forward, backward), expected)
    forward[:, -1] = (1, 0)  # leaves the frame
    expected[:, -1] = True
    np.testing.assert_array_equal(occluded(forward, backward), expected)


def test_warp_takes_pixels_from_where_the_flow_points():
    frame = np.arange(20, dtype=np.float32).reshape(4, 5)
    flow = np.zeros((4, 5, 2), np.float32)
    flow[..., 0], flow[..., 1] = 1.5, 1
    warped, inside = warp(frame, flow)
    np.testing.assert_allclose(warped[0], [6.5, 7.5, 8.5, 9, 9])
    assert inside[0].tolist() == [True, True, True, False, False] and not inside[3].any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 20, 20, 3), "at least 2 frames"), ((3, 15, 20, 3), "15x20 are too small")],
)
def test_refusals(shape, message):
    frames = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=message):
        temporal_figures(frames, frames)
