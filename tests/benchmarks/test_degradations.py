"""Known faults: what each does, and that the metrics put their strengths in the right order."""

import cv2
import numpy as np
import pytest

from degradations import DEGRADATIONS, NUM_STRENGTHS, degrade, is_ordered
from mg.metrics.measures import Measures
from mg.metrics.protocol import MetricSettings

STRENGTHS = range(1, NUM_STRENGTHS + 1)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Return a texture that moves right by one pixel per frame, (16, 48, 64, 3)."""
    noise = cv2.GaussianBlur(np.random.RandomState(0).rand(48, 90, 3), (0, 0), 1.5)
    texture = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    return np.stack([texture[:, 20 - t :][:, :64] for t in range(16)])


@pytest.fixture(scope="module")
def figures(frames) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    measures = Measures(["psnr", "ssim", "temporal"], MetricSettings())
    return {
        (fault, strength): measures(frames, degrade(frames, fault, strength))[0]
        for fault in DEGRADATIONS
        for strength in STRENGTHS
    }


def finite_mean(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean())


@pytest.mark.parametrize("fault", DEGRADATIONS)
def test_faults_keep_form_and_first_frames_of_time_faults(frames, fault):
    for strength in STRENGTHS:
        given = degrade(frames, fault, strength)
        assert given.shape == frames.shape and given.dtype == np.uint8
        assert (given != frames).any()
        np.testing.assert_array_equal(given, degrade(frames, fault, strength))  # no chance in it
    if fault in ("shuffle", "drop", "freeze"):
        found = {frame.tobytes() for frame in frames}
        assert {frame.tobytes() for frame in given} <= found


def test_shares_of_lost_and_frozen_frames(frames):
    names = {frame.tobytes(): t for t, frame in enumerate(frames)}

    def order(fault, strength):
        return [names[frame.tobytes()] for frame in degrade(frames, fault, strength)]

    assert order("drop", 4) == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14]
    assert order("freeze", 4) == [0, 1, 2, 3, 4, 5] + [5] * 10
    assert sorted(order("shuffle", 5)) == list(range(16)) and order("shuffle", 1)[:2] == [1, 0]
    moved = [np.abs(np.array(order("shuffle", s)) - np.arange(16)).mean() for s in STRENGTHS]
    assert moved[0] == 1 and (np.diff(moved) > 0.1).all()


@pytest.mark.parametrize("fault", ["blur", "noise", "blocks"])
@pytest.mark.parametrize("figure", ["psnr", "ssim"])
def test_faults_of_frames_are_ordered_by_psnr_and_ssim(figures, fault, figure):
    values = [finite_mean(figures[fault, strength][figure]) for strength in STRENGTHS]
    assert is_ordered(100 - np.array(values))


@pytest.mark.parametrize("fault", ["noise", "drop", "freeze"])
def test_faults_of_time_are_ordered_by_tof(figures, fault):
    assert is_ordered(np.array([figures[fault, s]["tof"].mean() for s in STRENGTHS]))


def test_frozen_videos_move_less_and_less(figures):
    ratios = [float(figures["freeze", strength]["motion_energy_ratio"]) for strength in STRENGTHS]
    assert is_ordered(1 - np.array(ratios)) and ratios[-1] < 0.2


def test_blur_is_not_seen_by_flicker(figures):
    """A blur changes no pixel over time: what a metric cannot see is part of its documentation."""
    still = np.repeat(np.random.RandomState(1).randint(0, 256, (1, 32, 32, 3)), 4, 0)
    still = still.astype(np.uint8)
    measures = Measures(["temporal"], MetricSettings())
    blurred, noisy = (
        measures(still, degrade(still, fault, 3))[0]["flicker"] for fault in ("blur", "noise")
    )
    np.testing.assert_array_equal(blurred, 0)
    assert noisy.min() > 5


@pytest.mark.parametrize(("fault", "strength"), [("fog", 1), ("blur", 0), ("blur", 6)])
def test_refusals(frames, fault, strength):
    with pytest.raises(ValueError, match="at a strength of 1 to 5"):
        degrade(frames, fault, strength)


def test_order():
    assert is_ordered(np.array([1.0, 2, 3, 4, 5]))
    assert not is_ordered(np.array([0.0, 2, 3, 4, 5])) and not is_ordered(
        np.array([1, 3, 2, 4, 5.0])
    )
