"""scripts/train.py on two ranks: the run of one rank, however they share the work."""

import dataclasses
import json
import shutil

import mindspore as ms
import numpy as np
import pytest

from mg.cli import save_config
from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.video import VideoReader
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.pipelines.autoencoder import config_hash, tensors_hash
from mg.training.denoiser.denoiser_config import (
    FlowValidationSettings,
    LatentDataSettings,
    SampleVideoSettings,
    TextSettings,
    TrainDenoiserConfig,
)
from mg.training.denoiser.denoiser_task import DenoiserTask
from mg.training.denoiser.denoiser_trainer import DenoiserTrainer
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.run_log import read_log
from mg.training.settings import OptimSettings
from mg.weights.checkpoint_file import read_weights
from mg.weights.tae_layers import tae_shapes
from tests.tiny import TAE, TRANSFORMER

MODEL = {**TRANSFORMER, "dim": 24, "num_heads": 3}
NUM_STEPS, LIMIT = 2, 1e-5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder: tae.safetensors, latents of 4 + 2 videos, train.csv, held_out.csv."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    shapes = tae_shapes(TAE.to_dict())
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_final_weights(folder / "tae.safetensors", tensors, TAE.to_dict())
    names = [f"{number}.mp4" for number in range(6)]
    hashes = config_hash(TAE), tensors_hash(tensors)
    for name in names:
        info = LatentInfo(4, 8, 8, 16.0, name, TAE.to_dict(), *hashes, {})
        mean = rng.standard_normal((4, 2, 4, 4), np.float32)
        with LatentWriter(folder / "latents" / f"{name}.safetensors", info) as writer:
            writer.write(mean, np.full_like(mean, -4.0))
    for table, chosen in (("train.csv", names[:4]), ("held_out.csv", names[4:])):
        rows = [f"{name},the words of number {name[0]}" for name in chosen]
        (folder / table).write_text("\n".join(["video,caption", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def make_config(data):
    """Return a function that makes the settings of a tiny run with batches of two."""

    def make(output_path, *, num_heads=2, **changes):
        return TrainDenoiserConfig(
            **{
                "output_path": str(output_path),
                "csv_path": str(data / "train.csv"),
                "latent_folder": str(data / "latents"),
                "tae": str(data / "tae.safetensors"),
                "steps": NUM_STEPS,
                "batch_size": 2,
                "checkpoint_interval": 1,
                "keep_checkpoints": 5,
                "device": "CPU",
                "model": {**MODEL, "num_heads": num_heads},
                "data": LatentDataSettings(),
                "text": TextSettings(encoders=["word,width=32"], dropout=0.5),
                "optim": OptimSettings(lr=1e-2, eps=1e-3, ema_decay=0.9, weight_decay=0.01),
                "validation": FlowValidationSettings(
                    csv_path=str(data / "held_out.csv"), num_times=2, batch_size=2
                ),
                **changes,
            }
        )

    return make


@pytest.fixture(scope="module")
def one(make_config, tmp_path_factory):
    """Return the folder of the run of one rank."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    output = tmp_path_factory.mktemp("one") / "out"
    DenoiserTrainer(make_config(output)).run()
    ms.set_context(mode=before)
    return output


@pytest.fixture(scope="module")
def run_on_two(run_limited, launch_script, tmp_path_factory):
    """Return a function that runs the script on two ranks."""

    def run(config):
        folder = tmp_path_factory.mktemp("two")
        save_config(folder / "config.yaml", config)
        command = launch_script(folder, "scripts/train.py", "--config", folder / "config.yaml")
        code, output = run_limited(command, log_folder=folder)
        return code, output + (folder / "rank_1.log").read_text()

    return run


def assert_equal_runs(one, two):
    """Weights, averages and moments of the last checkpoint, losses, and the exported generator."""
    last = f"checkpoints/step_{NUM_STEPS:08d}"
    for name in ("transformer", "transformer_state"):
        expected, found = (
            read_weights(output / last / f"{name}.safetensors") for output in (one, two)
        )
        assert expected.keys() == found.keys()
        for key, values in expected.items():
            assert np.abs(values - found[key]).max() <= LIMIT, key
    for log, key in (("log.jsonl", "loss"), ("log.jsonl", "grad_norm")):
        expected, found = ([e[key] for e in read_log(output / log)] for output in (one, two))
        assert len(found) == NUM_STEPS
        np.testing.assert_allclose(found, expected, rtol=LIMIT, err_msg=key)
    expected, found = (
        [e["flow_loss"] for e in read_log(output / "validation.jsonl")] for output in (one, two)
    )
    np.testing.assert_allclose(found, expected, rtol=LIMIT)
    expected, found = (sorted(p.name for p in (o / "generator").iterdir()) for o in (one, two))
    assert expected == found
    for file in (one / "generator").glob("transformer*.safetensors"):
        expected, found = read_weights(file), read_weights(two / "generator" / file.name)
        for key, values in expected.items():
            assert np.abs(values - found[key]).max() <= LIMIT, key


def test_half_of_the_batch_on_each(make_config, run_on_two, one, tmp_path):
    code, text = run_on_two(make_config(tmp_path / "out", batch_size=1))
    assert code == 0, text
    assert text.count("Done: 2 steps, 0 skipped.") == 1
    assert_equal_runs(one, tmp_path / "out")


def test_half_of_the_tokens_on_each(make_config, run_on_two, one, tmp_path):
    # Sampling too takes all ranks, though only the first one writes.
    samples = SampleVideoSettings(prompts=["the words of number 0"], interval=NUM_STEPS, steps=1)
    config = make_config(tmp_path / "out", sequence_parallel=2, samples=samples)
    code, text = run_on_two(config)
    assert code == 0, text
    assert_equal_runs(one, tmp_path / "out")
    with VideoReader(tmp_path / "out" / "samples" / f"step_{NUM_STEPS:08d}.mp4") as reader:
        assert reader.read(range(4)).shape == (4, 8, 8, 3)


def test_half_of_the_matrices_on_each_between_one_rank_and_one(
    make_config, run_on_two, one, tmp_path, pynative_mode
):
    output = tmp_path / "out"
    shutil.copytree(one, output)
    shutil.rmtree(output / "checkpoints" / f"step_{NUM_STEPS:08d}")
    shutil.rmtree(output / "generator")
    code, text = run_on_two(make_config(output, batch_size=1, zero_stage=3, resume=True))
    assert code == 0, text
    assert "Resuming after step 1" in text and "continues differently" not in text
    assert_equal_runs(one, output)
    alone = DenoiserTrainer(make_config(output, resume=True))  # which looks at names and shapes
    assert alone.step == NUM_STEPS


REFUSED = {
    "ranks": (ONE_RANK, {"sequence_parallel": 2}, "sequence_parallel=2 with 1 ranks: their"),
    "heads": (
        Ranks(0, 2),
        {"sequence_parallel": 2, "num_heads": 3},
        "the num_heads, 3, cannot be shared equally by sequence_parallel=2",
    ),
    "tokens": (
        Ranks(0, 3),
        {"sequence_parallel": 3, "num_heads": 3},
        "latents of 2x4x4: the number of tokens, 8, cannot be shared equally by",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_ranks_cannot_share_is_refused(case, make_config, tmp_path, pynative_mode):
    ranks, changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        DenoiserTask(make_config(tmp_path / "out", **changes), ranks)


def test_settings_that_cannot_be_meant(make_config):
    with pytest.raises(ValueError, match="sequence_parallel=0; expected 1 or more"):
        make_config("out", sequence_parallel=0)
    with pytest.raises(ValueError, match="zero_stage=4; expected 0, 1, 2 or 3"):
        make_config("out", zero_stage=4)


def test_ranks_that_share_a_batch_must_read_the_same(make_config, tmp_path, pynative_mode):
    task = DenoiserTask(make_config(tmp_path / "out"), ONE_RANK)
    batch = task.dataset.batch(0, 2)
    other = json.dumps([0, ["other.mp4", "1.mp4"]])
    channel = type("", (), {"gather": lambda self, message: [message, other.encode()]})()
    task.ranks = dataclasses.replace(Ranks(0, 2), channel=channel)
    with pytest.raises(RuntimeError, match="share a batch have read different latents"):
        task._check_same_batch(batch)
