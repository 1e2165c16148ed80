"""Two folders of videos measured: pairs, report, restarts, and what bad input does to it."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from mg.cli import run_main
from mg.commands import evaluate as evaluate_command
from mg.data.video_writer import write_video
from mg.metrics import measures
from mg.metrics.protocol import FrameSettings, MetricSettings, Protocol, SizeSettings
from mg.metrics.psnr import psnr
from mg.parallel.ranks import Ranks
from mg.pipelines import evaluate
from mg.pipelines.evaluate import evaluate_pairs, find_pairs
from mg.pipelines.evaluation_pictures import draw_figures, worst_clips, write_worst_clips

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
PROTOCOL = Protocol(
    name="tiny", frames=FrameSettings(num_frames=4), size=SizeSettings(resolution=16, crop_size=16)
)
METRICS = ["psnr", "ssim"]


def make_frames(num_frames=5, height=16, width=20, seed=0) -> np.ndarray:
    rng = np.random.RandomState(seed)
    return rng.randint(20, 236, (num_frames, height, width, 3)).astype(np.uint8)


def noisy(frames: np.ndarray, amount: int) -> np.ndarray:
    noise = np.random.RandomState(1).randint(-amount, amount + 1, frames.shape)
    return (frames + noise).astype(np.uint8)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Return two folders of lossless clips: three pairs, and one video in each without partner."""
    real, generated = tmp_path / "real", tmp_path / "generated"
    for folder in (real, generated):
        (folder / "sub").mkdir(parents=True)
    for seed, (name, amount) in enumerate((("a", 4), ("b", 16), ("sub/c", 8))):
        frames = make_frames(seed=seed)
        np.save(real / f"{name}.npy", frames)
        np.save(generated / f"{name}.npy", noisy(frames, amount))
    np.save(real / "only_here.npy", make_frames())
    np.save(generated / "only_there.npy", make_frames())
    return real, generated


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than all the rest; test_pictures draws."""
    monkeypatch.setattr(evaluate, "draw_figures", lambda *_: None)
    monkeypatch.setattr(evaluate, "write_worst_clips", lambda *_: None)


def run(folders, output, *, protocol=PROTOCOL, metrics=METRICS, **options):
    pairs, left_out = find_pairs(*folders)
    return evaluate_pairs(pairs, output, protocol, metrics, left_out=left_out, **options)


def stored(output: Path) -> dict:
    return json.loads((output / "report.json").read_text(), parse_constant=pytest.fail)


def test_report(folders, tmp_path, caplog):
    caplog.set_level("INFO", logger="mg")
    output = tmp_path / "out"
    report = run(folders, output).summary()
    assert [clip["name"] for clip in report["clips"]] == ["a.npy", "b.npy", "sub/c.npy"]
    real, generated = (np.load(folder / "b.npy")[:4, :, 2:18] for folder in folders)
    assert report["clips"][1]["psnr"] == pytest.approx(psnr(real, generated).mean(), abs=1e-9)
    assert report["per_frame_index"][3]["num_clips"] == 3
    content = stored(output)
    assert content["psnr"] == pytest.approx(report["psnr"], abs=1e-12)
    assert content["protocol"]["hash"] == PROTOCOL.hash()
    assert content["protocol"]["settings"]["frames"]["num_frames"] == 4
    assert content["left_out"].keys() == {"real only_here.npy", "generated only_there.npy"}
    label = f"protocol tiny v1 {PROTOCOL.hash()}"
    assert label in caplog.text and (output / "report.txt").read_text().startswith(label)
    with open(output / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a.npy", "b.npy", "sub/c.npy"]
    assert float(rows[2]["ssim"]) == pytest.approx(report["clips"][2]["ssim"], abs=1e-12)
    assert len((output / "frames.csv").read_text().splitlines()) == 1 + 4


def test_pictures(folders, tmp_path):
    report = run(folders, tmp_path / "out")
    assert worst_clips(report) == ("psnr", ["b.npy", "sub/c.npy", "a.npy"])
    draw_figures(tmp_path / "figures.png", report, "title")
    pairs = {pair.name: pair for pair in find_pairs(*folders)[0]}
    write_worst_clips(tmp_path / "worst.png", report, pairs, PROTOCOL)
    for name in ("figures.png", "worst.png"):
        image = cv2.imread(str(tmp_path / name))
        assert image is not None and image.std() > 10


def test_a_second_run_measures_only_what_is_missing(folders, tmp_path, monkeypatch):
    output = tmp_path / "out"
    first = run(folders, output).summary()
    loaded = []
    real_load = evaluate.load_pair
    monkeypatch.setattr(
        evaluate, "load_pair", lambda pair, p: loaded.append(pair.name) or real_load(pair, p)
    )
    assert run(folders, output).summary() == first and loaded == []
    (output / "clips" / "b.json").unlink()
    assert run(folders, output).summary() == first and loaded == ["b.npy"]
    again = run(folders, output, metrics=["ssim"]).summary()
    assert "psnr" not in again and again["ssim"] == first["ssim"] and loaded == ["b.npy"]
    protocol = Protocol(name="large", frames=PROTOCOL.frames, size=PROTOCOL.size)
    assert run(folders, output, protocol=protocol, metrics=["ssim"]).summary() == again


class Meeting:
    """A channel between two threads that stand for ranks."""

    def __init__(self, rank, messages, barrier):
        self.rank, self.messages, self.barrier = rank, messages, barrier

    def gather(self, message):
        self.messages[self.rank] = message
        self.barrier.wait(60)
        gathered = list(self.messages)
        self.barrier.wait(60)
        return gathered


def test_ranks_share_the_pairs(folders, tmp_path, monkeypatch):
    alone = run(folders, tmp_path / "alone").summary()
    loaded, real_load = [], evaluate.load_pair
    monkeypatch.setattr(
        evaluate, "load_pair", lambda pair, p: loaded.append(pair.name) or real_load(pair, p)
    )
    messages, barrier = [b"", b""], threading.Barrier(2)
    ranks = [Ranks(rank, 2, Meeting(rank, messages, barrier)) for rank in range(2)]
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(run, folders, tmp_path / "two", ranks=each) for each in ranks]
        reports = [call.result().summary() for call in calls]
    assert reports == [alone, alone] and sorted(loaded) == ["a.npy", "b.npy", "sub/c.npy"]
    assert stored(tmp_path / "two") == stored(tmp_path / "alone")


def test_one_pair_is_in_memory_at_a_time(folders, tmp_path, monkeypatch):
    """So memory does not grow with the number of clips, but for their figures."""
    alive, real_load = [], evaluate.load_pair

    def load(pair, protocol):
        assert [array() for array in alive] == [None] * len(alive)
        loaded = real_load(pair, protocol)
        alive.extend(weakref.ref(frames) for frames in loaded[:2])
        return loaded

    monkeypatch.setattr(evaluate, "load_pair", load)
    run(folders, tmp_path / "out")
    assert len(alive) == 6


@pytest.mark.parametrize("what", ["protocol", "original", "generated video"])
def test_figures_of_something_else_are_not_mixed_in(folders, tmp_path, what):
    output = tmp_path / "out"
    run(folders, output)
    protocol = PROTOCOL
    if what == "protocol":
        protocol = PROTOCOL.changed(num_frames=3)
    else:
        np.save(folders[what != "original"] / "a.npy", make_frames(seed=9))
    with pytest.raises(ValueError, match=f"another {what}.*--overwrite"):
        run(folders, output, protocol=protocol)
    report = run(folders, output, protocol=protocol, overwrite=True)
    assert stored(output)["psnr"] == pytest.approx(report.summary()["psnr"], abs=1e-12)


@pytest.mark.parametrize("text", ["", "[]", '{"made_by": 1}', "[" * 100000])
def test_damaged_records_are_told(folders, tmp_path, text):
    output = tmp_path / "out"
    run(folders, output)
    (output / "clips" / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not a record of an evaluation"):
        run(folders, output)


def test_pairs_are_made_by_name_and_never_by_order(tmp_path):
    real, generated = tmp_path / "real", tmp_path / "generated"
    for folder in (real, generated):
        folder.mkdir()
    for name in ("a.npy", "b.png", "twice.npy", "twice.png"):
        path = real / name
        np.save(path, make_frames()) if path.suffix == ".npy" else cv2.imwrite(
            str(path), make_frames()[0]
        )
    for name in ("b.npy", "twice.npy", "0.npy"):
        np.save(generated / name, make_frames())
    pairs, left_out = find_pairs(real, generated)
    assert [(p.real.name, p.generated.name) for p in pairs] == [
        ("b.png", "b.npy"),
        ("twice.npy", "twice.npy"),
    ]
    assert left_out.keys() == {"real a.npy", "real twice.png", "generated 0.npy"}
    assert len(find_pairs(real, generated, subset_size=1)[0]) == 1


def test_no_common_name(folders, tmp_path):
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "z.npy", make_frames())
    with pytest.raises(ValueError, match=r"no video in .*a\.npy, .*has the name of one.*z\.npy"):
        find_pairs(folders[0], tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no such video folder"):
        find_pairs(folders[0], tmp_path / "missing")


def test_two_files_are_a_pair(folders):
    pairs, _ = find_pairs(folders[0] / "a.npy", folders[1] / "b.npy")
    assert [(p.real.name, p.generated.name) for p in pairs] == [("a.npy", "b.npy")]


def test_bad_videos_are_left_out(folders, tmp_path):
    (folders[1] / "a.npy").write_bytes(b"no array")
    np.save(folders[1] / "b.npy", make_frames(3))
    output = tmp_path / "out"
    assert run(folders, output).summary()["num_clips"] == 1
    left_out = stored(output)["left_out"]
    assert "not a readable .npy file" in left_out["generated a.npy"]
    assert "gives 4 frames, the generated video 3; the protocol wants 4" in left_out["b.npy"]


def test_other_lengths_are_cut_where_the_protocol_says_so(folders, tmp_path):
    np.save(folders[1] / "b.npy", make_frames(3))
    cut = FrameSettings(num_frames=4, too_short="cut")
    protocol = Protocol(frames=cut, size=PROTOCOL.size)
    report = run(folders, tmp_path / "out", protocol=protocol).summary()
    assert [clip["num_frames"] for clip in report["clips"]] == [4, 3, 4]
    assert "b.npy: cut to 3 frames" in stored(tmp_path / "out")["notes"][0]


def test_other_sizes(folders, tmp_path):
    np.save(folders[1] / "a.npy", make_frames(height=32, width=40))
    whole = SizeSettings(resolution=None, crop_size=None)
    protocol = Protocol(frames=PROTOCOL.frames, size=whole)
    run(folders, tmp_path / "refused", protocol=protocol)
    reasons = stored(tmp_path / "refused")["left_out"]
    assert "is 20x16, the generated video 40x32" in reasons["a.npy"]
    resized = Protocol(frames=PROTOCOL.frames, size=SizeSettings(None, None, different="resize"))
    assert run(folders, tmp_path / "resized", protocol=resized).summary()["num_clips"] == 3
    run(folders, tmp_path / "cropped")  # a protocol that brings both to one size says so
    assert stored(tmp_path / "cropped")["notes"] == [
        "a.npy: the original is 20x16, the generated video 40x32"
    ]


def test_nothing_to_measure_ends_in_an_error(folders, tmp_path):
    protocol = PROTOCOL.changed(num_frames=9)
    with pytest.raises(ValueError, match="not one of 5 files could be used"):
        run(folders, tmp_path / "out", protocol=protocol)


def test_large_clips_are_refused_before_they_are_read(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("mg.pipelines.video_pairs.LARGEST_CLIP", 3000)
    with pytest.raises(ValueError, match=r"4 frames of 16x16 take .* choose --num_frames"):
        run(folders, tmp_path / "out")


def test_figures_of_sets_stand_beside_their_number(folders, tmp_path, monkeypatch):
    """FVD of the pairs' features; where pairs are left out on the way, the rest still stands."""
    rng = np.random.RandomState(0)
    features = {"i3d_distance": np.array(1.0), "i3d_features": rng.randn(2, 4)}
    metric = dataclasses.replace(
        measures.METRICS["i3d"], build=lambda *_: (lambda x, y: features, None), min_frames=1
    )
    monkeypatch.setitem(measures.METRICS, "i3d", metric)
    metrics = ["psnr", "i3d", "fvd"]
    with pytest.raises(ValueError, match="FVD of 3 clips would say more"):
        run(folders, tmp_path / "few", metrics=metrics)
    run(folders, tmp_path / "out", metrics=metrics, allow_few=True)
    content = stored(tmp_path / "out")
    assert content["fvd"]["num_clips"] == 3 and content["i3d_distance"] == 1
    value = np.square(features["i3d_features"][0] - features["i3d_features"][1]).sum()
    assert content["fvd"]["value"] == pytest.approx(value)  # all alike: only the means differ
    assert "FVD" in (tmp_path / "out" / "report.txt").read_text()
    np.save(folders[1] / "b.npy", make_frames(3))
    three = dataclasses.replace(PROTOCOL, metrics=MetricSettings(min_clips=3))
    run(folders, tmp_path / "lost", metrics=metrics, protocol=three)
    content = stored(tmp_path / "lost")
    assert "fvd" not in content and content["num_clips"] == 2
    assert "FVD of 2 clips would say more" in content["notes"][0]


def test_identical_videos(folders, tmp_path):
    report = run((folders[0], folders[0]), tmp_path / "out").summary()
    assert report["num_identical_frames"] == 16 and report["ssim"] == pytest.approx(1, abs=1e-12)
    assert stored(tmp_path / "out")["psnr"] is None  # infinite


def test_a_record_keeps_infinite_figures(folders, tmp_path):
    run((folders[0], folders[0]), tmp_path / "out")
    again = run((folders[0], folders[0]), tmp_path / "out").summary()
    assert again["num_identical_frames"] == 16


def call_script(monkeypatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *flags])
    run_main(evaluate_command.main)


def test_script_measures_videos(tmp_path, monkeypatch):
    """The command itself on H.264 files."""
    frames = make_frames(6, 32, 48)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in frames])
    for folder, content in (("a", smooth), ("b", noisy(smooth, 5))):
        write_video(tmp_path / folder / "clip.mp4", content, fps=8)
    flags = ["--real_video_dir", str(tmp_path / "a"), "--generated_video_dir", str(tmp_path / "b")]
    flags += ["--output_path", str(tmp_path / "out"), "--metric", "psnr,ssim", "--num_frames", "5"]
    call_script(monkeypatch, *flags, "--resolution", "32", "--crop_size", "32")
    content = stored(tmp_path / "out")
    assert content["num_frames"] == 5 and 20 < content["psnr"] < 50
    assert content["protocol"]["name"] == "mg+"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metric", "psnr,fid"], "unknown metric fid; there are psnr, ssim"),
        (["--protocol", "none"], "no such protocol: none"),
        (["--subset_size", "0"], "subset_size=0"),
        (["--num_frame", "3"], "did you mean 'num_frames'"),
        (["--crop_size", "999"], "crop_size=999 is larger"),
        (["--output_path", f"{SCRIPT}/out"], "evaluate.py is a file, not a folder"),
    ],
)
def test_script_says_what_is_wrong_in_one_line(folders, flags, message, monkeypatch, capsys):
    folder_flags = ["--real_video_dir", str(folders[0]), "--generated_video_dir", str(folders[1])]
    with pytest.raises(SystemExit):
        call_script(monkeypatch, *folder_flags, *flags)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_eval_sh_runs_the_seed_call(tmp_path):
    """scripts/causalvae/eval.sh, with its flags overridden by small ones."""
    frames = make_frames(3, 16, 16)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "clip.npy", frames)
    command = ["bash", str(SCRIPT.parent / "causalvae" / "eval.sh")]
    command += ["--real_video_dir", str(tmp_path / "a")]
    command += ["--generated_video_dir", str(tmp_path / "b"), "--metric", "psnr,ssim"]
    command += ["--resolution", "16", "--crop_size", "16", "--output_path", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPT.parents[1])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    content = stored(tmp_path / "out")
    assert content["protocol"]["name"] == "open_sora_plan+"
    assert content["psnr"] == 100 and "cut to 3 frames" in content["notes"][0]  # as the original
