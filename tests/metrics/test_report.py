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


def test_figures_of_whole_clips_and_of_last_frames():
    report = QualityReport()
    report.add_measured("a", {"psnr": np.full(4, 30.0), "tof": np.array([1.0, 2, 3])})
    report.add_measured("b", {"tof": np.array([5.0]), "i3d_distance": np.array(7.0)}, num_frames=2)
    summary = report.summary()
    assert summary["num_frames"] == 6 and summary["tof"] == pytest.approx((2 + 5) / 2)
    assert summary["i3d_distance"] == 7 and "i3d_distance" not in summary["clips"][0]
    rows = summary["per_frame_index"]
    assert "tof" not in rows[0] and "i3d_distance" not in rows[1]
    assert [row["tof"] for row in rows[1:]] == [3, 2, 3]
    np.testing.assert_array_equal(report.per_frame("tof")["a"], [np.nan, 1, 2, 3])
    by_frames = QualityReport(mean_over="frames")
    by_frames.add_measured("a", {"psnr": np.array([10.0, 20])})
    by_frames.add_measured("b", {"psnr": np.array([60.0])})
    assert by_frames.summary()["psnr"] == pytest.approx(30)
    with pytest.raises(ValueError, match="mean_over must be one of clips, frames"):
        QualityReport(mean_over="videos")


def test_figures_that_may_lack_are_left_out_of_means():
    report = QualityReport()
    report.add_measured("moves", {"flicker": np.array([np.nan, np.nan]), "ssim": np.ones(3)})
    report.add_measured("stands", {"flicker": np.array([np.nan, 4.0]), "ssim": np.ones(3)})
    summary = report.summary()
    assert summary["flicker"] == 4 and math.isnan(summary["clips"][0]["flicker"])
    assert report.table().splitlines()[1].split() == ["moves", "3", "1.0000", "-"]
    rows = report.to_csv().splitlines()
    assert rows[:2] == ["name,num_frames,ssim,flicker", "moves,3,1.0,"]
    assert report.frames_to_csv().splitlines()[3] == "2,2,1.0,4.0"


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
