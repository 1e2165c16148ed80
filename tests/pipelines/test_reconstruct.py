"""Reconstruction of a set of clips: numbers of the report, files, restarts."""

import json
import math

import numpy as np
import pytest
from mindspore import Tensor

from mg.data.manifest import build_manifest
from mg.data.transforms import from_model_range, to_model_range
from mg.data.video import VideoReader
from mg.metrics.psnr import psnr
from mg.pipelines.clip_results import numbers_of_record
from mg.pipelines.evaluate import evaluate_pairs, find_pairs
from mg.pipelines.reconstruct import reconstruct_videos
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from report_comparison import read_report

SETTINGS = ReconstructionSettings(num_frames=8, image_size=None, batch_size=2)


@pytest.fixture(autouse=True)
def no_lpips_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "cache"))


def build(video_folder, settings=SETTINGS):
    return build_manifest(video_folder=video_folder, min_frames=settings.num_source_frames)


def test_report_and_videos(make_tae, make_frames, video_folder, tmp_path, caplog):
    caplog.set_level("INFO", logger="mg")
    tae = make_tae()
    reconstruct_videos(tae, build(video_folder), tmp_path, SETTINGS)
    frames = make_frames(20, 24, 32)[:8]
    _, mean, _ = tae.encode(Tensor(to_model_range(frames)[np.newaxis]))
    expected = from_model_range(tae.decode(mean, 8).asnumpy()[0])

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["num_clips"] == 2 and len(report["per_frame_index"]) == 8
    assert "too short: 3 frames, 8 needed" in report["left_out"]["short.mp4"]
    assert "broken" in report["left_out"]["bad.mp4"]
    by_name = {clip["name"]: clip for clip in report["clips"]}
    assert by_name["a.mp4"]["psnr"] == pytest.approx(psnr(frames, expected).mean(), abs=1e-3)
    assert "lpips" not in report and "mg fetch-lpips" in caplog.text
    assert "mean of 2 clips" in caplog.text
    protocol = SETTINGS.protocol(tae.spec)
    assert report["protocol"]["hash"] == protocol.hash()
    assert f"protocol {protocol.label()}" in (tmp_path / "report.txt").read_text()

    with VideoReader(tmp_path / "clips" / "sub" / "b.mp4") as reader:
        shown = reader.read(range(8)).astype(np.float64)
    assert shown.shape == (8, 24, 64, 3)
    assert np.abs(shown[:, :, :32] - make_frames(13, 24, 32)[:8]).mean() < 8  # H.264 loses a bit
    assert np.abs(shown[:, :, 32:] - expected).mean() < 40


def test_batches_give_the_numbers_of_single_clips(make_tae, video_folder, tmp_path):
    single = ReconstructionSettings(num_frames=3, image_size=16, batch_size=1)
    pairs = ReconstructionSettings(num_frames=3, image_size=16, batch_size=2)
    reports = []
    for number, settings in enumerate((single, pairs)):
        # Three clips in pairs: the last batch is filled up.
        manifest = build(video_folder, settings)
        report = reconstruct_videos(make_tae(), manifest, tmp_path / str(number), settings)
        reports.append(report.summary())
    assert reports[0]["num_clips"] == reports[1]["num_clips"] == 3
    for a, b in zip(*(report["clips"] for report in reports), strict=True):
        assert a["name"] == b["name"] and a["psnr"] == pytest.approx(b["psnr"], abs=0.01)


def test_whole_clips_are_streamed(make_tae, make_frames, video_folder, tmp_path):
    tae = make_tae(use_tile=True)
    settings = ReconstructionSettings(num_frames=0, image_size=None, side_by_side=False)
    summary = reconstruct_videos(tae, build(video_folder, settings), tmp_path, settings).summary()
    assert {clip["name"]: clip["num_frames"] for clip in summary["clips"]} == {
        "a.mp4": 20,
        "short.mp4": 3,
        "sub/b.mp4": 13,
    }
    frames = make_frames(13, 24, 32)
    _, mean, _ = tae.encode(Tensor(to_model_range(frames)[np.newaxis]))
    expected = from_model_range(tae.decode(mean, 13).asnumpy()[0])
    clip = next(clip for clip in summary["clips"] if clip["name"] == "sub/b.mp4")
    assert clip["psnr"] == pytest.approx(psnr(frames, expected).mean(), abs=1e-6)
    with VideoReader(tmp_path / "clips" / "sub" / "b.mp4") as reader:
        assert (reader.info.num_frames, reader.info.width) == (13, 32)


def test_stride_takes_every_nth_frame(make_tae, make_frames, video_folder, tmp_path):
    settings = ReconstructionSettings(num_frames=4, image_size=None, sample_stride=5)
    reconstruct_videos(make_tae(), build(video_folder, settings), tmp_path, settings)
    with VideoReader(tmp_path / "clips" / "a.mp4") as reader:
        assert reader.info.fps == pytest.approx(5)
        shown = reader.read(range(4)).astype(np.float64)
    assert np.abs(shown[:, :, :32] - make_frames(20, 24, 32)[::5]).mean() < 8
    assert not (tmp_path / "clips" / "sub").exists()  # 13 frames, 16 needed


def test_restart_continues_with_the_same_report(make_tae, video_folder, tmp_path):
    tae = make_tae()
    reconstruct_videos(tae, build(video_folder), tmp_path, SETTINGS)
    before = json.loads((tmp_path / "report.json").read_text())
    record = tmp_path / "clips" / "a.json"
    stopped = json.loads(record.read_text()) | {"output": {"name": "a.mp4", "num_bytes": None}}
    del stopped["frames"]
    record.write_text(json.dumps(stopped))  # stopped between video and numbers
    untouched = (tmp_path / "clips" / "sub" / "b.mp4").stat().st_mtime_ns
    reconstruct_videos(tae, build(video_folder), tmp_path, SETTINGS)
    after = json.loads((tmp_path / "report.json").read_text())
    assert (tmp_path / "clips" / "sub" / "b.mp4").stat().st_mtime_ns == untouched
    assert after["psnr"] == pytest.approx(before["psnr"], abs=0.01)
    assert sorted(c["name"] for c in after["clips"]) == sorted(c["name"] for c in before["clips"])


def test_outputs_of_other_settings_are_refused(make_tae, video_folder, tmp_path):
    reconstruct_videos(make_tae(), build(video_folder), tmp_path, SETTINGS)
    other = ReconstructionSettings(num_frames=4, image_size=None)
    with pytest.raises(ValueError, match=r"a\.json exists, .* \(settings\.num_frames differ\)"):
        reconstruct_videos(make_tae(), build(video_folder, other), tmp_path, other)
    tae = make_tae()
    parameter = next(tae.get_parameters())
    parameter.set_data(parameter + 1)
    with pytest.raises(ValueError, match=r"a\.json exists, .* \(settings\.weights differ\)"):
        reconstruct_videos(tae, build(video_folder), tmp_path, SETTINGS)
    (tmp_path / "clips" / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        reconstruct_videos(make_tae(), build(video_folder), tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_frames": -1}, "num_frames=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_frames": 0, "batch_size": 2}, "streams whole clips one at a time"),
    ],
)
def test_settings_without_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionSettings(**wrong)


def test_evaluate_measures_by_the_same_protocol(make_tae, video_folder, tmp_path):
    """Figures of frames as decoded, and of the written video, differ by its compression alone."""
    settings = ReconstructionSettings(num_frames=4, image_size=(16, 24), side_by_side=False)
    tae = make_tae()
    report = reconstruct_videos(tae, build(video_folder, settings), tmp_path / "own", settings)
    protocol = settings.protocol(tae.spec)
    pairs, _ = find_pairs(video_folder, tmp_path / "own" / "clips")
    measured = evaluate_pairs(pairs, tmp_path / "report", protocol, ["psnr", "ssim"])
    for stored in (tmp_path / "own", tmp_path / "report"):
        assert read_report(stored).hash == protocol.hash()
    by_name = {clip["name"]: clip for clip in measured.summary()["clips"]}
    for clip in report.summary()["clips"]:
        assert by_name[clip["name"]]["psnr"] == pytest.approx(clip["psnr"], abs=1.0)


def test_figures_of_older_records_have_their_new_name():
    record = {"frames": {"psnr": [20.0, None], "lpips": [0.5, 0.25]}}
    numbers = numbers_of_record("clip.json", record)
    assert list(numbers) == ["psnr", "lpips_vgg"]
    assert numbers["psnr"].tolist() == [20.0, math.inf]
