"""The trainer on two ranks: the run of one rank with twice the batch, resumed, stopped, broken."""

import dataclasses
import importlib.util
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mg.cli import save_config
from mg.commands.train_tae import TrainTAEConfig
from mg.data.video_writer import write_video
from mg.models.discriminator_config import DiscriminatorConfig
from mg.parallel.ranks import ONE_RANK
from mg.training.autoencoder.autoencoder_config import (
    AdversarialSettings,
    DataSettings,
    LossSettings,
    OptimSettings,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.run.checkpoint_store import CheckpointStore
from mg.training.run.run_log import read_log
from tests.tiny import TAE_OF_ONE_LEVEL

PROGRAM = Path(__file__).parent / "programs" / "train_small.py"
TIMES = ("seconds", "data_seconds")  # of a log entry: all else is the same in equal runs


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder of five videos of 3 frames, 8x8; the program cannot read bad.mp4."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4", "d.mp4", "bad.mp4")):
        frames = np.random.default_rng(number).integers(0, 255, (3, 8, 8, 3), np.uint8)
        write_video(folder / name, frames, fps=25, lossless=True)
    return folder


@pytest.fixture(scope="module")
def make_config(videos):
    """Return a function that makes the settings of one rank with a batch of two."""

    def make(output_path, **changes):
        return TrainTAEConfig(
            output_path=str(output_path),
            video_folder=str(videos),
            device="CPU",
            batch_size=2,
            checkpoint_interval=1,
            keep_checkpoints=20,
            data=DataSettings(sample_n_frames=2, size=8, num_workers=0),
            loss=LossSettings(perceptual_loss_weight=0),
            **changes,
        )

    return make


@pytest.fixture(scope="module")
def run_on_two(run_limited, launch_script, tmp_path_factory):
    """Return a function that runs a script on two ranks, half of the batch on each."""

    def run(script, config, *, faults=""):
        folder = tmp_path_factory.mktemp("two_ranks")
        config = dataclasses.replace(config, batch_size=1)
        save_config(folder / "config.yaml", config)
        command = launch_script(folder, script, "--config", folder / "config.yaml")
        code, output = run_limited(["env", f"FAULTS={faults}", *command], log_folder=folder)
        return code, output + (folder / "rank_1.log").read_text()

    return run


@pytest.fixture(scope="module", autouse=True)
def in_graph_mode():
    """Compile networks of this process."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


def checkpoint_of(output, step):
    """Return the progress and all tensors of the checkpoint of a step."""
    stored = CheckpointStore(Path(output) / "checkpoints", keep=2).load(step)
    names = [name for name in stored.manifest.files if name.endswith(".safetensors")]
    tensors = {name: stored.tensors(name.removesuffix(".safetensors")) for name in names}
    return stored.document("progress"), tensors


def assert_equal_checkpoints(first, second, step, *, limit):
    (progress, tensors), (other_progress, other) = (
        checkpoint_of(output, step) for output in (first, second)
    )
    means = [p.pop("running_means") for p in (progress, other_progress)]
    assert progress == other_progress
    assert means[0] == pytest.approx(means[1], rel=1e-5, abs=1e-6)
    assert tensors.keys() == other.keys()
    for name, arrays in tensors.items():
        assert arrays.keys() == other[name].keys()
        for key, values in arrays.items():
            largest = np.abs(values - other[name][key]).max()
            assert largest <= limit, f"{name}: {key} differs by {largest}"


def assert_equal_logs(first, second, *, limit, num_steps=None):
    one, other = (read_log(Path(output) / "log.jsonl")[:num_steps] for output in (first, second))
    assert len(one) == len(other) == (num_steps or len(one)) > 0
    for a, b in zip(one, other, strict=True):
        a, b = ({k: v for k, v in entry.items() if k not in TIMES} for entry in (a, b))
        # Logits near 0 are sums whose terms cancel: an absolute limit for those.
        assert a == pytest.approx(b, rel=limit, abs=limit / 10, nan_ok=True)


# -- the autoencoder with a discriminator ---------------------------------------------------------


def test_the_script_on_two_ranks_trains_like_one_rank_with_twice_the_batch(
    make_config, run_on_two, tmp_path
):
    """Sharded on two ranks, plain on one; the adaptive weight is a ratio of mean gradients."""
    config = make_config(
        tmp_path / "two",
        steps=3,
        zero_stage=1,
        model=TAE_OF_ONE_LEVEL,
        # Of some biases the gradient is rounding alone, which Adam would make as large as others.
        optim=OptimSettings(lr=1e-3, eps=1e-2, weight_decay=0.1),
        adversarial=AdversarialSettings(
            lecam_weight=0.1,
            network=DiscriminatorConfig(kind="video", ch=8, num_layers=1, norm_groups=4),
        ),
    )
    with ThreadPoolExecutor() as threads:
        two = threads.submit(run_on_two, "scripts/train_tae.py", config)
        one = dataclasses.replace(config, output_path=str(tmp_path / "one"), zero_stage=0)
        AutoencoderTrainer(one).run()
        code, output = two.result()
    assert code == 0, output
    assert "Running on 2 ranks." in output and output.count("Done: 3 steps, 0 skipped.") == 1
    assert_equal_logs(tmp_path / "one", tmp_path / "two", limit=1e-6)
    assert_equal_checkpoints(tmp_path / "one", tmp_path / "two", 3, limit=1e-6)
    assert all(e["adv_weight"] > 0 for e in read_log(tmp_path / "two" / "log.jsonl"))


# -- faults, on a small network -------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("train_small", PROGRAM)
    module = sys.modules["train_small"] = importlib.util.module_from_spec(spec)  # to be compiled
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run_on_one(small):
    """Return a function that runs the program's training on one rank, in this process."""

    def run(config, **faults):
        trainer = small.make_trainer(config, ONE_RANK, faults)
        trainer.run()
        return trainer

    return run


@pytest.fixture(scope="module")
def make_small_config(make_config):
    def make(output_path, **changes):
        optim = OptimSettings(lr=1e-2, ema_decay=0.9, weight_decay=0.1)
        return make_config(output_path, steps=10, optim=optim, **changes)

    return make


@pytest.fixture(scope="module")
def unbroken(make_small_config, run_on_one, tmp_path_factory):
    """Return the folder of ten steps on one rank, of which the second is bad."""
    output = tmp_path_factory.mktemp("unbroken") / "out"
    run_on_one(make_small_config(output), nan=1)
    return output


def test_two_ranks_are_stopped_go_on_lose_one_and_go_on_alone(
    make_small_config, run_on_two, run_on_one, unbroken, tmp_path
):
    """One run in three pieces, with sharded moments on two ranks and then whole ones on one."""
    output = tmp_path / "out"
    config = make_small_config(output, zero_stage=1)
    code, text = run_on_two(PROGRAM, config, faults="nan:1 full_disk:2 sigterm:4")
    assert code == 0, text
    # The launcher's SIGTERM: both finish the step at hand, and one of them saves.
    assert text.count("Stopped after step 5") == 1 and "rank 1" not in text
    store = CheckpointStore(output / "checkpoints", keep=20)
    assert store.steps() == [0, 1, 4, 5]  # none of a bad step, none while the disk was full
    assert "Step 3: the checkpoint was not written, the run goes on" in text
    assert_equal_logs(unbroken, output, limit=1e-6, num_steps=5)
    assert_equal_checkpoints(unbroken, output, 5, limit=1e-6)
    # Rank 0 makes the samples, and the other waits.
    assert [path.name for path in (output / "samples").iterdir()] == ["step_00000004.txt"]
    # The step that is bad on rank 1 alone is left out on both, and listed once with both's clips.
    (bad,), (expected,) = (read_log(o / "bad_steps.jsonl") for o in (output, unbroken))
    assert bad["step"] == 1 and bad["clips"] == expected["clips"] and len(bad["clips"]) == 2
    assert not (output / "tae.safetensors").exists()

    config = dataclasses.replace(config, resume=True)
    code, text = run_on_two(PROGRAM, config, faults="sigkill:8")
    assert code == 1
    assert "Resuming after step 5." in text
    assert "error: rank 1 of 2 was killed by signal 9; all ranks are stopped" in text
    assert store.load().step == 8
    assert_equal_checkpoints(unbroken, output, 8, limit=1e-6)

    run_on_one(dataclasses.replace(config, zero_stage=0))
    assert_equal_logs(unbroken, output, limit=1e-6)
    assert_equal_checkpoints(unbroken, output, 10, limit=1e-6)


def test_two_ranks_go_on_where_one_stopped(make_small_config, run_on_two, unbroken, tmp_path):
    """From plain to sharded moments; only rank 0 writes, so the folder is that of one rank."""
    output = tmp_path / "out"
    shutil.copytree(unbroken, output)
    for step in range(5, 11):
        shutil.rmtree(output / "checkpoints" / f"step_{step:08d}")
    (output / "network.safetensors").unlink()
    config = make_small_config(output, resume=True, zero_stage=1)
    code, text = run_on_two(PROGRAM, config)
    assert code == 0, text
    assert text.count("Done: 10 steps, 1 skipped.") == 1
    # Half the batch on twice the ranks is not another run.
    assert "batch_size: 2 -> 1" in text and "continues differently" not in text
    assert text.count("1 clips could not be read") == 1
    assert_equal_logs(unbroken, output, limit=1e-6)
    assert_equal_checkpoints(unbroken, output, 10, limit=1e-6)
    assert checkpoint_of(output, 10)[0]["bad_clips"] == {"bad.mp4": "torn"}
    listed = [sorted(p.relative_to(o) for p in o.rglob("*")) for o in (unbroken, output)]
    assert listed[0] == listed[1]


def test_two_ranks_line_by_line_train_as_two_that_compile(make_small_config, run_on_two, tmp_path):
    for mode in ("graph", "pynative"):
        config = make_small_config(tmp_path / mode, zero_stage=1, mode=mode)
        code, text = run_on_two(PROGRAM, dataclasses.replace(config, steps=3))
        assert code == 0, text
        assert "Running on 2 ranks." in text and text.count("Done: 3 steps, 0 skipped.") == 1
    assert_equal_logs(tmp_path / "graph", tmp_path / "pynative", limit=1e-6)
    assert_equal_checkpoints(tmp_path / "graph", tmp_path / "pynative", 3, limit=1e-6)
