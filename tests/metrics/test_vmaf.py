"""VMAF and XPSNR through ffmpeg: identical clips, order of faults, what is missing."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from mg.metrics import vmaf as module
from mg.metrics.vmaf import ffmpeg_version, find_ffmpeg, vmaf, xpsnr


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a moving texture (4, 96, 128, 3) and blurs of it, weak ones first."""
    noise = cv2.GaussianBlur(np.random.RandomState(0).rand(96, 140, 3), (0, 0), 1.2)
    texture = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    frames = np.stack([texture[:, 3 * t :][:, :128] for t in range(4)])
    blurred = [np.stack([cv2.GaussianBlur(f, (0, 0), s) for f in frames]) for s in (0.7, 1.5, 3)]
    return frames, blurred


def test_identical_clips(clips):
    frames, _ = clips
    assert vmaf(frames, frames).shape == (4,) and vmaf(frames, frames).min() > 95
    assert np.isposinf(xpsnr(frames, frames)).all()


def test_more_blur_is_worse(clips):
    frames, blurred = clips
    for metric in (vmaf, xpsnr):
        means = [metric(frames, each).mean() for each in blurred]
        assert means[0] > means[1] > means[2], metric.__name__
        assert len(metric(frames, blurred[0])) == 4


def test_twice_the_error_costs_six_decibels(clips):
    """XPSNR weighs pixels by the original alone, so it follows the size of the error as PSNR."""
    reference = clips[0] // 3
    once, twice = (xpsnr(reference, reference + error) for error in (np.uint8(51), np.uint8(102)))
    # The first frame, which has none before it, is weighed in another way.
    np.testing.assert_allclose((once - twice)[1:], 20 * np.log10(2), rtol=0, atol=0.1)


def test_floats_are_rounded(clips):
    frames, blurred = clips
    floats = frames.astype(np.float32) + 0.2, blurred[1].astype(np.float32) - 0.2
    np.testing.assert_array_equal(vmaf(*floats), vmaf(frames, blurred[1]))


def test_version_is_named():
    assert ffmpeg_version().startswith("ffmpeg ") and len(ffmpeg_version()) < 60


def test_a_missing_package_is_one_clear_sentence(monkeypatch):
    find_ffmpeg.cache_clear()
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'mg-video\[vmaf\]'"):
        find_ffmpeg()


def test_an_ffmpeg_without_vmaf_is_told(monkeypatch):
    find_ffmpeg.cache_clear()
    monkeypatch.setattr(module, "_output", lambda _: " .. xpsnr  VV->V  Calculate")
    with pytest.raises(ValueError, match="lacks libvmaf on this platform"):
        find_ffmpeg()
    find_ffmpeg.cache_clear()


def test_what_ffmpeg_refuses_is_told_in_one_line(monkeypatch, clips):
    def refuse(command, **_options):
        return subprocess.CompletedProcess(command, 1, "", "first\nframes are odd\n")

    find_ffmpeg()
    monkeypatch.setattr(module.subprocess, "run", refuse)
    with pytest.raises(ValueError, match="could not measure 128x96 frames: frames are odd"):
        vmaf(clips[0], clips[0])
