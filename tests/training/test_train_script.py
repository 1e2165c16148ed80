"""scripts/train_tae.py as a user starts it."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mg.cli import run_main
from mg.commands import train_tae
from mg.data.video import probe_video
from mg.files import write_text
from mg.models.tae.tae import TemporalAutoencoder
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.run import checkpoint_store
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.checkpoint_store import CheckpointStore
from mg.training.run.run_log import read_log
from mg.weights.checkpoint_file import read_weights
from tests.tiny import TAE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_tae.py"


def checkpoint_arrays(output, step):
    """Return every tensor of a checkpoint, weights and state."""
    folder = output / "checkpoints" / f"step_{step:08d}"
    weights, state = (read_weights(folder / f"{n}.safetensors") for n in ("tae", "tae_state"))
    return {**weights, **state}


def test_a_run_resumed_by_the_script_is_the_unbroken_one(finished_run, videos, tmp_path):
    """Steps 3 and 4 again from the checkpoint after step 2: not one bit differs."""
    unbroken, output = finished_run.trainer.output, tmp_path / "out"
    shutil.copytree(unbroken, output)
    shutil.rmtree(output / "checkpoints" / "step_00000004")
    (output / "tae.safetensors").unlink()
    # The same clips, named by a table.
    table = tmp_path / "video_caption_train.csv"
    table.write_text("video,caption\na.mp4,one\nb.mp4,two\n")
    # fmt: off
    result = subprocess.run(
        [
            sys.executable, str(SCRIPT),
            "--config", str(unbroken / "config.yaml"),
            f"--output_path={output}",
            "--csv_path", str(table),
            "--video_folder", str(videos / "train"),
            "--device", "auto",
            "--resume",
        ],
        cwd=tmp_path, env={**os.environ, "GLOG_v": "3"}, capture_output=True, text=True,
        timeout=600, check=False,
    )
    # fmt: on
    assert result.returncode == 0, result.stderr
    expected, resumed = checkpoint_arrays(unbroken, 4), checkpoint_arrays(output, 4)
    assert expected.keys() == resumed.keys()
    assert max(np.abs(expected[n] - resumed[n]).max() for n in expected) == 0
    final, again = read_weights(finished_run.final), read_weights(output / "tae.safetensors")
    assert max(np.abs(final[n] - again[n]).max() for n in final) == 0
    for name, key in (("log.jsonl", "loss"), ("validation.jsonl", "psnr")):
        old, new = read_log(unbroken / name), read_log(output / name)
        assert [(e["step"], e[key]) for e in new] == [(e["step"], e[key]) for e in old]
    assert probe_video(output / "validation" / "step_00000004.mp4").num_frames == 4
    _check_messages(result.stderr, output)


def _check_messages(text, output):
    assert "Resuming after step 2." in text
    assert "Done: 4 steps, 0 skipped." in text and "c.mp4: " in text
    assert f"Weights: {output / 'tae.safetensors'}" in text
    assert "mg reconstruct --ckpt_path" in text
    # One clear line about the device, none of the libraries that other devices would need.
    assert len([line for line in text.splitlines() if "unning on" in line]) == 1
    assert "Load dynamic library" not in text and "WARNING" not in text


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Return a function that runs the script in this process: arguments -> (exit code, stderr)."""
    # MindSpore takes a device only once per process, before its first kernel.
    monkeypatch.setattr(ms, "set_device", lambda name: None)
    mode = ms.get_context("mode")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train_tae.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            run_main(train_tae.main)
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    yield run
    ms.set_context(mode=mode)


TINY = (
    "--device=CPU",
    "--steps=1",
    "--model.ch=32",
    "--model.ch_mult=[1,1]",
    "--model.num_res_blocks=1",
    "--model.z_channels=4",
    "--model.temporal_downsample_level=[0]",
    "--model.temporal_upsample_level=[1]",
    "--data.size=16",
    "--data.sample_n_frames=4",
    "--data.num_workers=0",
    "--loss.perceptual_loss_weight=0",
)


@pytest.fixture
def refused(run_script, tmp_path):
    """Return a function that gives the error line of a run that must not start."""

    def message(*arguments):
        output = tmp_path / "refused"
        code, text = run_script(f"--output_path={output}", *arguments)
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert code == 1 and len(errors) == 1 and "Traceback" not in text
        assert not output.exists()
        return text[text.index("error: ") :]

    return message


def test_a_missing_config_file(refused):
    assert refused("--config", "none.yaml") == "error: no such config file: none.yaml\n"


def test_a_mistyped_flag(refused):
    text = refused("--video_folder=x", "--stepps=3")
    assert text == "error: unknown setting 'stepps'; did you mean 'steps'?\n"


def test_a_missing_folder_or_table(refused, tmp_path):
    assert "no such video folder or file: nowhere" in refused(*TINY, "--video_folder=nowhere")
    text = refused(*TINY, f"--video_folder={tmp_path}", "--csv_path=none.csv")
    assert "no such CSV file: none.csv" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clip\na.mp4\n", "the path of the video, named 'video' (or one of"),
        ("video\n../held_out/c.mp4\n", "'../held_out/c.mp4' leads outside the folder"),
        ("video\nnone.mp4\n", "none.mp4  left out  file not found"),
        ("video\n", "no usable clip"),
    ],
)
def test_a_table_that_does_not_work(refused, videos, tmp_path, content, message):
    table = tmp_path / "table.csv"
    table.write_text(content)
    assert message in refused(*TINY, f"--csv_path={table}", f"--video_folder={videos / 'train'}")


def test_clips_that_are_all_too_short(refused, videos):
    text = refused(*TINY, f"--video_folder={videos}", "--data.sample_n_frames=16")
    assert "no usable clip" in text and "too short: 6 frames, 16 needed" in text


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    """Return the weights of a network that is not TINY's."""
    tae = TemporalAutoencoder(dataclasses.replace(TAE, z_channels=8))
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_final_weights(path, tae.tensors(), tae.config.to_dict())
    return path


def test_weights_of_another_config(refused, videos, other_weights):
    text = refused(*TINY, f"--video_folder={videos}", f"--pretrained={other_weights}")
    assert "z_channels" in text and "other.safetensors" in text


def test_truncated_weights(refused, videos, other_weights, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(other_weights.read_bytes()[:-100])
    assert str(path) in refused(*TINY, f"--video_folder={videos}", f"--pretrained={path}")
    assert "does not exist" in refused(*TINY, f"--video_folder={videos}", "--pretrained=none.ckpt")


def test_bfloat16_on_a_cpu(refused, videos):
    text = refused(*TINY, f"--video_folder={videos}", "--dtype=bfloat16")
    assert "bfloat16" in text and "use float32 or float16 on CPU" in text


def test_missing_lpips_weights(refused, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "empty"))
    arguments = [*TINY, f"--video_folder={videos}", "--loss.perceptual_loss_weight=1"]
    assert "mg fetch-lpips" in refused(*arguments)


def test_nothing_to_resume(refused, videos):
    assert "nothing to resume" in refused(*TINY, f"--video_folder={videos}", "--resume")


def test_a_folder_that_holds_another_run(run_script, videos, tmp_path):
    write_text(tmp_path / "config.yaml", "steps: 7\n")
    code, text = run_script(*TINY, f"--video_folder={videos}", f"--output_path={tmp_path}")
    assert code == 1 and "holds a run already" in text
    assert (tmp_path / "config.yaml").read_text() == "steps: 7\n"


def test_a_full_disk(run_script, videos, tmp_path, monkeypatch):
    """The run ends with a clear message and the checkpoint that was there before."""

    def train(self):
        self.step = 1
        self.save()
        monkeypatch.setattr(checkpoint_store, "write_weights", full_disk)
        self.step = 2

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AutoencoderTrainer, "_train", train)
    code, text = run_script(*TINY, f"--video_folder={videos}", f"--output_path={tmp_path}")
    assert code == 1 and "Traceback" not in text
    assert "step_00000002 (No space left on device); older ones are intact" in text
    assert CheckpointStore(tmp_path / "checkpoints", keep=2).steps() == [0, 1]
