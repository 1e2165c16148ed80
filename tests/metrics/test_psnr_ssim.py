"""PSNR and SSIM against scikit-image 0.26, MS-SSIM against sewar 0.4.10.

The expected values come from `peak_signal_noise_ratio(a, b, data_range=...)` and
`structural_similarity(a, b, channel_axis=-1, data_range=...)` on the clips of `make_clips`, those
of Gaussian windows with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.
"""

import subprocess
import sys

import numpy as np
import pytest

from mg.metrics.ms_ssim import SCALE_WEIGHTS, ms_ssim
from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim

PSNR = (37.22359743927994, 23.471477128488736, 17.730674660214987)
SSIM = (0.9874412046303688, 0.8049949031776681, 0.6235556330355158)
SSIM_WINDOW_11 = (0.9945399679805154, 0.9027464708560684, 0.790634287464158)
SSIM_CROP_7X7 = (0.9822546907577058, 0.6630189152821314, 0.2713487020077597)
SSIM_GAUSSIAN = (0.9791740941384729, 0.7124685450734765, 0.5615583127236301)
# `sewar.full_ref.msssim` of each channel of the frames of `make_waves`. Its 2x2 means start half a
# pixel elsewhere, which is worth some 1e-3.
MS_SSIM_CHANNELS = (0.9549432699035738, 0.9489443750752993, 0.9458216550050845)
SSIM_FLOATS = (0.9864010322670905, 0.7868657481351259, 0.5750298743598025)


def make_clips() -> tuple[np.ndarray, np.ndarray]:
    """Return a drawn clip (3, 20, 31, 3) and a copy that is noisier from frame to frame."""
    y, x = np.mgrid[0:20, 0:31]
    base = np.stack([x * 8, y * 12, (x * y) % 256], -1)
    reference = np.stack([(base + 40 * t) % 256 for t in range(3)]).astype(np.uint8)
    # RandomState, because numpy promises that its stream never changes.
    noise = np.random.RandomState(0).randint(-60, 61, reference.shape)
    noise = noise * np.array([0.1, 0.5, 1.0]).reshape(3, 1, 1, 1)
    return reference, np.clip(np.rint(reference + noise), 0, 255).astype(np.uint8)


def make_waves() -> tuple[np.ndarray, np.ndarray]:
    """Return a drawn clip (1, 184, 192, 3) and a noisy copy."""
    y, x = np.mgrid[0:184, 0:192]
    waves = [127 + 100 * np.sin(x / 9 + c) * np.cos(y / (7 + c)) for c in range(3)]
    reference = np.rint(np.stack(waves, -1)).astype(np.uint8)[np.newaxis]
    noise = np.random.RandomState(0).randint(-30, 31, reference.shape[1:])
    return reference, np.clip(reference + noise, 0, 255).astype(np.uint8)


def test_bytes_agree_with_scikit_image():
    clips = make_clips()
    np.testing.assert_allclose(ssim(*clips, window="gaussian"), SSIM_GAUSSIAN, rtol=0, atol=1e-9)
    np.testing.assert_allclose(psnr(*clips), PSNR, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ssim(*clips), SSIM, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-6)])
def test_floats_agree_with_scikit_image(dtype, tolerance):
    reference, reconstruction = ((clip / 127.5 - 1).astype(dtype) for clip in make_clips())
    np.testing.assert_allclose(
        psnr(reference, reconstruction, data_range=2), PSNR, rtol=0, atol=10 * tolerance
    )
    np.testing.assert_allclose(
        ssim(reference, reconstruction, data_range=2), SSIM_FLOATS, rtol=0, atol=tolerance
    )


def test_window_size_and_smallest_frame_agree_with_scikit_image():
    reference, reconstruction = make_clips()
    np.testing.assert_allclose(
        ssim(reference, reconstruction, window_size=11), SSIM_WINDOW_11, rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        ssim(reference[:, :7, :7], reconstruction[:, :7, :7]), SSIM_CROP_7X7, rtol=0, atol=1e-9
    )


def test_ms_ssim_agrees_with_sewar():
    expected = np.mean(MS_SSIM_CHANNELS)
    np.testing.assert_allclose(ms_ssim(*make_waves()), expected, rtol=0, atol=1e-3)


def test_ms_ssim_of_flat_frames_is_their_luminance():
    """No structure to compare: what is left is the coarsest luminance term to its exponent."""
    reference, darker = (np.full((1, 176, 176, 3), value, np.uint8) for value in (120, 80))
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 120 * 80 + c1) / (120**2 + 80**2 + c1)
    np.testing.assert_allclose(
        ms_ssim(reference, darker), luminance ** SCALE_WEIGHTS[-1], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(ms_ssim(reference, reference), 1, rtol=0, atol=1e-12)


def test_ms_ssim_refuses_small_frames():
    with pytest.raises(ValueError, match="175x176 are too small for MS-SSIM"):
        ms_ssim(*[np.zeros((1, 175, 176, 3), np.uint8)] * 2)


def test_identical_frames_are_infinite_and_one():
    reference, reconstruction = make_clips()
    reconstruction[1] = reference[1]
    assert np.isposinf(psnr(reference, reconstruction)).tolist() == [False, True, False]
    np.testing.assert_allclose(ssim(reference, reconstruction)[1], 1, rtol=0, atol=1e-12)


def test_bytes_do_not_wrap_around():
    black, white = (np.full((1, 8, 8, 3), value, np.uint8) for value in (0, 255))
    np.testing.assert_allclose(psnr(black, white), [0.0], atol=1e-12)
    np.testing.assert_allclose(psnr(white, black), [0.0], atol=1e-12)


def test_nan_stays_visible():
    reference = np.zeros((2, 8, 8, 3), np.float32)
    reconstruction = reference + np.float32(0.1)
    reconstruction[1, 0, 0, 0] = np.nan
    assert np.isnan(psnr(reference, reconstruction, data_range=1)).tolist() == [False, True]
    assert np.isnan(ssim(reference, reconstruction, data_range=1)).tolist() == [False, True]


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("reference", "reconstruction", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8), "differ in shape"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), r"\(T, H, W, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8), r"\(T, H, W, 3\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), "both as uint8"),
        (np.zeros((2, 8, 8, 3), int), np.zeros((2, 8, 8, 3), int), "uint8 or floating"),
    ],
)
def test_clips_that_cannot_be_compared(metric, reference, reconstruction, message):
    with pytest.raises(ValueError, match=message):
        metric(reference, reconstruction)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 6, 20, 3), {}, "6x20 are smaller than the 7x7 window"),
        ((1, 20, 20, 3), {"window_size": 8}, "odd"),
        ((1, 20, 20, 3), {"window_size": 1}, "at least 3"),
        ((1, 20, 20, 3), {"data_range": 0}, "positive"),
        ((1, 10, 20, 3), {"window": "gaussian"}, "11x11 window"),
        ((1, 20, 20, 3), {"window": "hann"}, "one of uniform, gaussian"),
    ],
)
def test_ssim_refuses(shape, options, message):
    frames = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=message):
        ssim(frames, frames, **options)


def test_metrics_import_no_mindspore():
    code = (
        "import sys, mg.metrics.report, mg.metrics.measures; "
        "assert 'mindspore' not in sys.modules and 'skimage' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
