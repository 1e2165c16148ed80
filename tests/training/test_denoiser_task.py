"""Training of the Movie Gen transformer: it learns, resumes, exports, refuses what cannot fit."""

import dataclasses
import json
import shutil

import mindspore as ms
import numpy as np
import pytest

from mg.conditions.text.prompts import with_fps
from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.video import iterate_frames, probe_video
from mg.models.families import denoiser_family
from mg.parallel.ranks import ONE_RANK
from mg.parameters import set_values
from mg.pipelines.autoencoder import config_hash, tensors_hash
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.text_to_video import TextToVideo
from mg.pipelines.training_scope import scope_of_captions
from mg.training.denoiser.denoiser_config import (
    DenoiserSettings,
    FlowValidationSettings,
    LatentDataSettings,
    SampleVideoSettings,
    SamplingSettings,
    TextSettings,
    TrainDenoiserConfig,
)
from mg.training.denoiser.denoiser_data import training_scope
from mg.training.denoiser.denoiser_task import DenoiserTask
from mg.training.denoiser.denoiser_trainer import DenoiserTrainer
from mg.training.denoiser.flow_validation import FlowValidation
from mg.training.optimizers.plateau import PlateauSettings
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.run_log import read_log
from mg.training.settings import OptimSettings, PhaseSettings
from mg.weights.checkpoint_file import read_weights
from mg.weights.tae_layers import tae_shapes
from tests.tiny import TAE, TRANSFORMER

WORDS = ("red", "green", "blue", "white")
NUM_STEPS = 12
PROMPTS = ["a red square", "a white square", ""]


def write_latents(folder, tae_tensors, names, *, scaling_factor=TAE.scaling_factor):
    """Write latents (4, 2, 4, 4), each nearly constant at a value that its caption tells."""
    config = dataclasses.replace(TAE, scaling_factor=scaling_factor)
    for number, name in enumerate(names):
        info = LatentInfo(
            4, 8, 8, 16.0, name, config.to_dict(), config_hash(TAE), tensors_hash(tae_tensors), {}
        )
        noise = 0.1 * np.random.default_rng(number).standard_normal((4, 2, 4, 4), np.float32)
        with LatentWriter(folder / f"{name}.safetensors", info) as writer:
            writer.write(noise + number % len(WORDS) - 1.5, np.full_like(noise, -6.0))


def write_captions(path, names):
    rows = [f"{name},a {WORDS[n % len(WORDS)]} square" for n, name in enumerate(names)]
    path.write_text("\n".join(["video,caption", *rows]) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder: tae.safetensors, latents/ of 12 + 4 videos, train.csv, held_out.csv."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    shapes = tae_shapes(TAE.to_dict())
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_final_weights(folder / "tae.safetensors", tensors, TAE.to_dict())
    others = {name: array + 1 for name, array in tensors.items()}
    save_final_weights(folder / "other_tae.safetensors", others, TAE.to_dict())
    videos = [f"{n}.mp4" for n in range(16)]
    write_latents(folder / "latents", tensors, videos)
    write_captions(folder / "train.csv", videos[:12])
    write_captions(folder / "held_out.csv", videos[12:])
    return folder


@pytest.fixture(scope="module")
def make_config(data):
    """Return a function that makes the settings of a tiny run."""

    def make(output_path, *, model=None, text=None, validation=None, **changes):
        values = {
            "csv_path": str(data / "train.csv"),
            "latent_folder": str(data / "latents"),
            "tae": str(data / "tae.safetensors"),
            "steps": NUM_STEPS,
            "batch_size": 4,
            "checkpoint_interval": NUM_STEPS // 2,
            "device": "CPU",
            # Any loss counts as no improvement: the learning rate falls at every validation.
            "plateau": PlateauSettings(num_validations=1, min_improvement=0.99),
            **changes,
        }
        held_out = {"csv_path": str(data / "held_out.csv"), "interval": 3, "num_times": 2}
        return TrainDenoiserConfig(
            output_path=str(output_path),
            model={**TRANSFORMER, **(model or {})},
            text=TextSettings(**{"encoders": ["word,width=32"], "dropout": 0.2, **(text or {})}),
            optim=OptimSettings(lr=2e-2, ema_decay=0.9, weight_decay=0.01),
            validation=FlowValidationSettings(
                **{**held_out, "batch_size": 4, **(validation or {})}
            ),
            sampling=SamplingSettings(guidance=3.0, steps=10),
            **values,
        )

    return make


@pytest.fixture(scope="module")
def finished_run(make_config, tmp_path_factory):
    """Return the trainer of a run that is done, with samples after steps 5, 10 and 12."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    samples = SampleVideoSettings(prompts=PROMPTS, interval=5, steps=2, guidance=2.0, seed=3)
    trainer = DenoiserTrainer(make_config(tmp_path_factory.mktemp("run") / "out", samples=samples))
    trainer.run()
    ms.set_context(mode=before)
    return trainer


def test_the_loss_falls_on_what_was_held_out(finished_run):
    entries = read_log(finished_run.output / "validation.jsonl")
    assert [entry["step"] for entry in entries] == [0, 3, 6, 9, 12]
    # A new network predicts zero; its loss is the mean square of data - noise.
    assert entries[0]["flow_loss"] == pytest.approx(1 + data_mean_square(), rel=0.2)
    assert entries[-1]["flow_loss"] < 0.85 * entries[0]["flow_loss"]
    for entry in entries:
        assert entry["flow_loss"] == pytest.approx(np.mean(list(entry["flow_loss_at_t"].values())))
    # The best checkpoint is that of the lowest loss.
    assert finished_run.best_score == -min(entry["flow_loss"] for entry in entries)


def data_mean_square():
    values = TAE.scaling_factor * (np.arange(4) - 1.5) + TAE.shift_factor
    return float(np.mean(values**2))


def test_the_plateau_lowers_the_learning_rate(finished_run):
    rates = [entry["lr"] for entry in read_log(finished_run.output / "log.jsonl")]
    # The first validation sets the mark; those after steps 3, 6 and 9 are not 99 % better.
    expected = np.repeat([2e-2, 1e-2, 5e-3, 2.5e-3], 3)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_resumed_run_is_the_unbroken_one_with_samples_and_without(
    finished_run, make_config, tmp_path, graph_mode
):
    output = tmp_path / "out"
    shutil.copytree(finished_run.output, output)
    shutil.rmtree(output / "checkpoints" / f"step_{NUM_STEPS:08d}")
    shutil.rmtree(output / "generator")
    trainer = DenoiserTrainer(make_config(output, resume=True))  # without the sample of step 10
    assert trainer.step == 9  # the best checkpoint so far, saved besides those of the interval
    trainer.run()
    for name in ("transformer", "transformer_state"):
        file = f"checkpoints/step_{NUM_STEPS:08d}/{name}.safetensors"
        one, other = (read_weights(run.output / file) for run in (trainer, finished_run))
        assert one.keys() == other.keys()
        for key, values in one.items():
            np.testing.assert_array_equal(values, other[key], err_msg=key)
    for file, key in (
        ("log.jsonl", "loss"),
        ("log.jsonl", "lr"),
        ("validation.jsonl", "flow_loss"),
    ):
        one, other = ([e[key] for e in read_log(t.output / file)] for t in (trainer, finished_run))
        assert one == other and len(one) > 4


def test_the_last_sample_is_what_the_exported_generator_makes(finished_run, pynative_mode):
    folder = finished_run.output / "samples"
    names = [f"step_{step:08d}.mp4" for step in (5, 10, 12)]
    assert sorted(path.name for path in folder.iterdir()) == names
    video = probe_video(folder / names[-1])
    assert (video.num_frames, video.height, video.width, video.fps) == (4, 8, 24, 16.0)
    generator = TextToVideo.from_pretrained(finished_run.output / "generator")
    made = generator(PROMPTS, steps=2, guidance=2.0, seed=3)
    shown = np.stack(list(iterate_frames(folder / names[-1])))  # (T, 8, 24, 3)
    # H.264 halves the resolution of colours, and these frames are as noisy as the TAE is random.
    for number in range(3):
        there = shown[:, :, 8 * number : 8 * number + 8].mean(-1).ravel()
        likeness = [np.corrcoef(there, frames.mean(-1).ravel())[0, 1] for frames in made.frames]
        assert likeness.pop(number) > 0.85 and max(likeness) < 0.7


def test_samples_of_a_stopped_run_and_of_other_ranks(finished_run, make_config, tmp_path):
    task = finished_run.task
    assert task.sample(tmp_path / "one", should_stop=lambda: True) is None
    samples = finished_run.config.samples
    config = make_config(tmp_path / "out", samples=samples)
    other = DenoiserTask(config, dataclasses.replace(ONE_RANK, rank=1, size=2))
    assert other.samples is None
    assert other.sample(tmp_path / "one", should_stop=lambda: False) is None
    assert not (tmp_path / "one.mp4").exists()


def test_no_graph_is_compiled_twice_for_samples(finished_run, tmp_path, graph_mode):
    samples = finished_run.task.samples
    networks = samples.generator.transformer, samples.generator.autoencoder
    cells = [cell for network in networks for _, cell in network.cells_and_names()]
    before = [set(cell.compile_cache) for cell in cells]
    frames = samples.frames()
    assert samples.write(tmp_path / "one", frames) == tmp_path / "one.mp4"
    assert samples.write(tmp_path / "one", frames[:1]) == tmp_path / "one.png"
    assert [set(cell.compile_cache) for cell in cells] == before
    assert len(samples.generator.transformer.compile_cache) == 2  # validation's graph, and its own


def test_samples_of_weights_that_broke_are_left_out(finished_run, caplog, graph_mode):
    samples = finished_run.task.samples
    weight = dict(finished_run.task.network.parameters_and_names())["final_linear.weight"]
    before = weight.asnumpy().copy()
    set_values(weight, before * np.nan)
    try:
        assert samples.frames() is None
    finally:
        set_values(weight, before)
    assert "No sample: the transformer gave NaN" in caplog.text


def test_the_exported_folder_loads_back_with_averaged_weights(finished_run):
    parts = load_generator(finished_run.output / "generator")
    state = finished_run.task.steps["transformer"].state()
    for name, values in parts.transformer_tensors.items():
        np.testing.assert_array_equal(values, state[f"average.{name}"], err_msg=name)
    assert parts.transformer_config == finished_run.task.model
    assert [encoder.spec for encoder in parts.text_encoders] == ["word,width=32,max_tokens=16"]
    assert (
        tensors_hash(parts.autoencoder.tensors) == finished_run.task.dataset.manifest.weights_hash
    )
    assert dataclasses.asdict(parts.defaults) == {
        "num_frames": 4,
        "size": (8, 8),
        "fps": 16.0,
        "guidance": 3.0,
        "steps": 10,
        "fps_prefix": False,
        "schedule": "linear_quadratic",
        "embedded_guidance": False,
        "guidance_drops": "text",
    }
    captions = [f"a {word} square" for word in WORDS]
    assert parts.scope == scope_of_captions(captions, [4], [(8, 8)])
    manifest = finished_run.task.dataset.manifest
    with_rate = manifest.with_captions(lambda caption, clip: with_fps(caption, clip.fps))
    assert training_scope(with_rate) == parts.scope  # prompts are written without it


def test_validation_depends_on_the_weights_alone(finished_run, make_config, graph_mode):
    task = finished_run.task
    first, again = (task.validation.run(task.network) for _ in range(2))
    assert first == again
    # 4 clips as 3 + 1 (filled up to 3): the noise belongs to the clip, not to its batch.
    settings = FlowValidationSettings(csv_path="x", num_times=2, batch_size=3)
    held_out = dataclasses.replace(task.dataset, manifest=task.dataset.manifest, text_dropout=0.0)
    one, other = (
        FlowValidation(held_out, dataclasses.replace(settings, batch_size=size)).run(task.network)
        for size in (4, 3)
    )
    assert one["flow_loss"] == pytest.approx(other["flow_loss"], rel=1e-6)
    assert task.validation.run(task.network, should_stop=lambda: True) is None


def test_noise_and_times_do_not_depend_on_the_ranks(make_config, tmp_path, pynative_mode):
    task = DenoiserTask(make_config(tmp_path / "out"), ONE_RANK)
    whole = task.inputs(5, task.dataset.batch(5, 4))
    assert all(array.shape[0] == 4 for array in whole)
    task.ranks = dataclasses.replace(ONE_RANK, rank=1, size=2)
    task.dataset = dataclasses.replace(task.dataset, rank=1, num_ranks=2)
    for part, array in zip(task.inputs(5, task.dataset.batch(5, 2)), whole, strict=True):
        np.testing.assert_array_equal(part, array[2:])


def test_a_later_stage_grows_the_tables_of_an_earlier_one(
    finished_run, make_config, tmp_path, pynative_mode
):
    earlier = str(finished_run.output / "generator")
    config = make_config(
        tmp_path / "out", pretrained=earlier, model={"position_table": (5, 12, 12)}
    )
    tensors = DenoiserTask(config, ONE_RANK).network.tensors()
    stored = load_generator(earlier).transformer_tensors
    assert tensors["positions.height"].shape == (12, 32)
    np.testing.assert_array_equal(tensors["positions.height"][1::3], stored["positions.height"])
    np.testing.assert_array_equal(tensors["positions.frames"][:2], stored["positions.frames"])
    np.testing.assert_array_equal(tensors["final_linear.weight"], stored["final_linear.weight"])


REFUSED = {
    "stale latents": ({"tae": "{data}/other_tae.safetensors"}, "is stale: it was encoded with"),
    "tables smaller than the latents": (
        {"model": {"position_table": (1, 4, 4)}},
        "latents of 2x4x4: position_table=.1, 4, 4. is smaller",
    ),
    "another preset's weights": (
        {"pretrained": "{run}/generator", "model": {"dim": 64}},
        "another network: dim is 32 there and 64 here",
    ),
    "tables that would shrink": (
        {"pretrained": "{run}/generator", "model": {"position_table": (2, 2, 2)}},
        r"tables \(2, 4, 4\) .* cannot grow to \(2, 2, 2\)",
    ),
    "no generator": ({"pretrained": "{data}"}, "is not a generator"),
    "another preset's checkpoint": (
        {"output_path": "{run}", "resume": True, "model": {"dim": 64}},
        "do not fit the network",
    ),
    "another run's folder": ({"output_path": "{run}"}, "holds a run already"),
    "validation on what is trained on": (
        {"validation": {"csv_path": "{data}/train.csv"}},
        "validation: 12 of 12 held-out videos are trained on",
    ),
    "no captions": ({"csv_path": "{data}/none.csv"}, "no such table of captions"),
    "texts too long": ({"text": {"encoders": ["word,max_tokens=2"]}}, "too long for the encoder"),
    "no cache": ({"text": {"cache_folder": "{data}/latents"}}, "holds no text embeddings"),
    "samples of long prompts": (
        {"samples": {"prompts": ["red", "word " * 16]}},
        "samples: the text 'word word .* too long for the encoder 'word': 17 tokens, at most 16",
    ),
    "samples in too many steps": (
        {"samples": {"prompts": ["red"], "steps": 251}},
        "samples: .*num_reference_steps=250",
    ),
    "a pattern of nothing": ({"freeze": ["decoder"]}, "no parameter matches 'decoder'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_training(case, make_config, finished_run, data, tmp_path, pynative_mode):
    changes, message = REFUSED[case]
    places = {"{data}": str(data), "{run}": str(finished_run.output)}
    text = json.dumps({"output_path": str(tmp_path / "out"), **changes})
    for name, place in places.items():
        text = text.replace(name, place)
    changes = json.loads(text)
    if "samples" in changes:
        changes["samples"] = SampleVideoSettings(**changes["samples"])
    with pytest.raises((ValueError, OSError), match=message):
        DenoiserTrainer(make_config(**changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenoiserSettings.from_mapping({"preset": "2b"}), "model: unknown preset '2b'"),
        (lambda: DenoiserSettings.from_mapping({"dim": 30, "num_heads": 4}), "dim=30 is not a"),
        (lambda: DenoiserSettings.from_mapping({"recompute_every": -1}), "recompute_every=-1; exp"),
        (lambda: DenoiserSettings.from_mapping({"family": "movigen"}), "did you mean 'movie_gen'"),
        (lambda: DenoiserSettings.from_mapping({"latent_channels": 4}), "decided by the latents"),
        (lambda: LatentDataSettings(buckets=["big"]), "big"),
        (lambda: LatentDataSettings(num_workers=-1), "data.num_workers=-1"),
        (lambda: TextSettings(encoders=[]), "expected at least one, such as word"),
        (lambda: TextSettings(dropout=1.0), "text.dropout=1.0; expected 0 to below 1"),
        (lambda: TextSettings(truncate=True, cache_folder="x"), "text.truncate has no effect"),
        (lambda: FlowValidationSettings(num_times=0), "validation.num_times=0; expected 1"),
        (lambda: FlowValidationSettings(latent_folder="x"), "latent_folder has no effect"),
        (lambda: SamplingSettings(guidance=-1.0), "sampling.guidance=-1.0; expected 0 or more"),
        (lambda: SampleVideoSettings(prompts=[]), "samples.prompts=.*expected at least one"),
        (lambda: SampleVideoSettings(prompts=["a"], interval=0), "samples.interval=0; expected 1"),
        (lambda: SampleVideoSettings(prompts=["a"], steps=-1), "samples.steps=-1; expected 1"),
        (lambda: SampleVideoSettings(prompts=["a"], guidance=-0.5), "samples.guidance=-0.5"),
        (lambda: SampleVideoSettings(prompts=["a"], seed=-1), "samples.seed=-1; expected 0 to"),
    ],
)
def test_settings_that_cannot_be_meant(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_that_contradict_each_other(make_config):
    with pytest.raises(ValueError, match="plateau needs a validation loss"):
        make_config("out", validation={"csv_path": None})
    with pytest.raises(ValueError, match="a denoiser has one loss in all phases"):
        make_config("out", phases=[PhaseSettings(loss={"l1_weight": 0.0})])


def test_a_scaling_that_would_be_undone_wrongly_is_refused(data, make_config, tmp_path):
    folder = tmp_path / "latents"
    names = [f"{n}.mp4" for n in range(12)]
    tensors = read_weights(data / "tae.safetensors")
    write_latents(folder, tensors, names, scaling_factor=1.0)
    config = make_config(tmp_path / "out", latent_folder=str(folder))
    with pytest.raises(ValueError, match=r"scaling_factor is 1\.5305 in .* made with 1\.0"):
        DenoiserTask(config, ONE_RANK)


def test_another_scaling_is_what_the_network_sees_and_the_generator_undoes(
    finished_run, make_config, tmp_path, caplog, pynative_mode
):
    # The values are -1.5, -0.5, 0.5, 1.5 with noise of 0.1.
    caplog.set_level("INFO", "mg")
    scaling = LatentDataSettings(scaling_factor=8.9, shift_factor=0.0)
    task = DenoiserTask(make_config(tmp_path / "out", data=scaling), ONE_RANK)
    assert "std 10.0" in caplog.text and "set data.scaling_factor=0.887" in caplog.text
    usual = finished_run.task.dataset.batch(0, 4)
    batch = task.dataset.batch(0, 4)
    z = (usual.mean - TAE.shift_factor) / TAE.scaling_factor
    np.testing.assert_allclose(batch.mean, 8.9 * z, atol=1e-4)
    task.enter(task.stages[0])
    parts = load_generator(task.export(tmp_path))
    assert (parts.autoencoder.config.scaling_factor, parts.autoencoder.config.shift_factor) == (
        8.9,
        0.0,
    )


def test_start_tensors_of_the_same_tables_are_the_stored_ones(finished_run):
    parts = load_generator(finished_run.output / "generator")
    config = parts.transformer_config
    tensors = denoiser_family("movie_gen").grow(parts.transformer_tensors, config, config)
    for name, values in parts.transformer_tensors.items():
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)
