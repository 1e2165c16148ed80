"""The gathered table of metrics."""

import json
import math

import numpy as np
import pytest

from mg.metrics.psnr import psnr
from mg.metrics.report import QualityReport
from mg.metrics.ssim import ssim


def make_clip(num_frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip of random bytes and a copy that is off by a few."""
    rng = np.random.RandomState(seed)
    reference = rng.randint(10, 246, (num_frames, 8, 9, 3))
    reconstruction = reference + rng.randint(-9, 10, reference.shape)
    return reference.astype(np.uint8), reconstruction.astype(np.uint8)


def test_means_per_clip_per_frame_and_overall():
    long, short = make_clip(4, 0), make_clip(2, 1)
    report = QualityReport()
    report.add("long", *long, lpips=np.array([0.1, 0.2, 0.3, 0.4]))
    report.add("short", *short)
    summary = report.summary()
    clip_means = [psnr(*long).mean(), psnr(*short).mean()]
    assert summary["num_clips"] == 2 and summary["num_frames"] == 6
    assert summary["num_identical_frames"] == 0
    assert [clip["psnr"] for clip in summary["clips"]] == pytest.approx(clip_means, abs=1e-12)
    assert summary["psnr"] == pytest.approx(np.mean(clip_means), abs=1e-12)
    assert summary["lpips"] == pytest.approx(0.25)
    assert "lpips" not in summary["clips"][1]
    by_frame = summary["per_frame_index"]
    assert [row["num_clips"] for row in by_frame] == [2, 2, 1, 1]
    assert by_frame[1]["ssim"] == pytest.approx((ssim(*long)[1] + ssim(*short)[1]) / 2, abs=1e-12)
    assert by_frame[3]["psnr"] == pytest.approx(psnr(*long)[3], abs=1e-12)
    assert by_frame[0]["lpips"] == pytest.approx(0.1)


def test_identical_frames_are_counted_and_left_out_of_the_mean():
    reference, reconstruction = make_clip(3, 2)
    reconstruction[0] = reference[0]
    report = QualityReport()
    report.add("partly", reference, reconstruction)
    report.add("wholly", reference, reference)
    summary = report.summary()
    expected = psnr(reference, reconstruction)[1:].mean()
    assert summary["num_identical_frames"] == 4
    assert summary["psnr"] == pytest.approx(expected, abs=1e-12)
    assert math.isinf(summary["clips"][1]["psnr"])
    stored = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert stored["clips"][1]["psnr"] is None
    assert stored["clips"][0]["psnr"] == pytest.approx(expected, abs=1e-12)
    assert "inf" in report.table()


def test_nan_is_not_hidden():
    reference = np.zeros((1, 8, 8, 3))
    report = QualityReport(data_range=1)
    report.add("diverged", reference, reference * np.nan)
    assert math.isnan(report.summary()["psnr"])
    assert json.loads(report.to_json())["psnr"] is None


def test_table_is_aligned_and_complete():
    report = QualityReport()
    report.add("folder/a.mp4", *make_clip(2, 3), lpips=np.array([0.5, 0.25]))
    report.add("b", *make_clip(3, 4))
    by_clip, by_frame = report.table().split("\n\n")
    lines = by_clip.splitlines()
    assert lines[0].split() == ["name", "num_frames", "psnr", "ssim", "lpips"]
    assert [line.split()[0] for line in lines[1:]] == ["folder/a.mp4", "b", "mean"]
    assert lines[1].endswith("0.3750") and lines[2].endswith("-")
    assert len({len(line) for line in lines}) == 1
    assert len(by_frame.splitlines()) == 1 + 3


def test_refusals():
    clip = make_clip(2, 5)
    report = QualityReport()
    with pytest.raises(ValueError, match="no clip was measured"):
        report.summary()
    with pytest.raises(ValueError, match="one number per frame"):
        report.add("a", *clip, lpips=np.zeros(3))
    report.add("a", *clip)
    with pytest.raises(ValueError, match="'a' is in the report already"):
        report.add("a", *clip)
