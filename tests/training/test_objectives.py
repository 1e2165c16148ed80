"""What a denoiser is trained to predict: losses, times, schedulers, and runs from end to end."""

import dataclasses
import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.objectives import DiffusionObjective, FlowObjective
from mg.flow.scheduler_config import diffusion_config, flow_config, noise_schedule
from mg.flow.times import draw_steps, draw_times, step_grid, time_grid
from mg.flow.validation_loss import validation_losses
from mg.models.families import denoiser_family
from mg.parallel.ranks import ONE_RANK
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.text_to_video import TextToVideo
from mg.training.denoiser.denoiser_config import (
    DenoiserLossSettings,
    FlowValidationSettings,
    LoraSettings,
    ObjectiveSettings,
    SampleVideoSettings,
    SamplingSettings,
    TextSettings,
    TrainDenoiserConfig,
)
from mg.training.denoiser.denoiser_task import DenoiserTask
from mg.training.denoiser.denoiser_trainer import DenoiserTrainer
from mg.training.denoiser.diffusion_loss import DiffusionLoss
from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.denoiser.objective import TrainingObjective
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.run_log import read_log
from mg.training.settings import OptimSettings
from mg.weights.tae_layers import tae_shapes
from tests.tiny import DENOISERS, TAE, TRANSFORMER
from tests.training.test_denoiser_task import write_captions, write_latents

SHAPE = (3, 4, 2, 5, 5)  # (B, C, T, H, W)
OF_2B = NoiseSchedule(snr_shift_scale=3.0)
TAE_FRAMES = 2  # of video in one of latents
NOT_TO_NOISE = NoiseSchedule(snr_shift_scale=3.0, zero_terminal_snr=False)
STEPS = np.array([0, 400, 999], np.float32)


class Gain(nn.Cell):
    """Predicts gain x + 0.001 time."""

    def __init__(self):
        super().__init__()
        self.gain = ms.Parameter(Tensor(np.array([0.7, -0.2, 0.1, 1.0], np.float32)), name="gain")

    def construct(self, latent, time):
        return latent * self.gain.reshape((1, -1, 1, 1, 1)) + 0.001 * time.reshape(-1, 1, 1, 1, 1)


def make_batch():
    rng = np.random.default_rng(0)
    mean, posterior_noise, noise = (rng.standard_normal(SHAPE, np.float32) for _ in range(3))
    return mean, rng.uniform(0.1, 0.5, SHAPE).astype(np.float32), posterior_noise, noise


def expected_diffusion(objective, weights, steps=STEPS):
    """Return (loss of each clip, gradient of the gain), by numpy in float64."""
    mean, std, posterior_noise, noise = (a.astype(np.float64) for a in make_batch())
    data, gain = mean + std * posterior_noise, Gain().gain.asnumpy().astype(np.float64)
    alphas = objective.schedule.alphas()[steps.astype(int)].reshape(-1, 1, 1, 1, 1)
    signal, sigma = np.sqrt(alphas), np.sqrt(1 - alphas)
    x = signal * data + sigma * noise
    target = noise if objective.prediction == "noise" else signal * noise - sigma * data
    time = 0.001 * steps.reshape(-1, 1, 1, 1, 1)
    difference = x * gain.reshape(1, -1, 1, 1, 1) + time - target
    mse, l1 = weights
    per_clip = (mse * difference**2 + l1 * np.abs(difference)).mean((1, 2, 3, 4))
    slope = (2 * mse * difference + l1 * np.sign(difference)) / difference.size
    return per_clip, (slope * x).sum((0, 2, 3, 4))


def check_diffusion_loss(objective, weights):
    loss = DiffusionLoss(Gain(), objective, *weights)
    function = ms.value_and_grad(loss, None, weights=loss.trainable_params(), has_aux=True)
    (value, terms, per_clip), gradients = function(*map(Tensor, make_batch()), Tensor(STEPS))
    expected, gradient = expected_diffusion(objective, weights)
    np.testing.assert_allclose(per_clip.asnumpy(), expected, rtol=1e-5)
    assert float(value.asnumpy()) == pytest.approx(expected.mean(), rel=1e-5)
    assert len(terms) == 1
    np.testing.assert_allclose(gradients[0].asnumpy(), gradient, rtol=1e-4, atol=1e-6)


def test_a_diffusion_loss_is_that_of_numpy_in_graphs(graph_mode):
    check_diffusion_loss(DiffusionObjective("v", OF_2B), (1.0, 0.5))


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize(("prediction", "schedule"), [("v", OF_2B), ("noise", NOT_TO_NOISE)])
def test_a_diffusion_loss_is_that_of_numpy(prediction, schedule, weights, pynative_mode):
    check_diffusion_loss(DiffusionObjective(prediction, schedule), weights)


def test_the_errors_of_a_flow(pynative_mode):
    batch, t = make_batch(), np.array([0.1, 0.5, 0.9], np.float32)

    def loss(*weights):
        value, _, per_clip = FlowLoss(Gain(), *weights)(*map(Tensor, batch), Tensor(t))
        assert float(value.asnumpy()) == pytest.approx(per_clip.asnumpy().mean(), rel=1e-6)
        return per_clip.asnumpy()

    data = batch[0] + batch[1] * batch[2]
    x, target = FlowObjective().mixed(data, batch[3], t)
    difference = Gain()(Tensor(x), Tensor(t)).asnumpy() - target
    squared, absolute = (f(difference).mean((1, 2, 3, 4)) for f in (np.square, np.abs))
    np.testing.assert_array_equal(loss(), loss(1.0, 0.0))
    np.testing.assert_allclose(loss(), squared, rtol=1e-5)
    np.testing.assert_allclose(loss(0.0, 3.0), 3 * absolute, rtol=1e-5)
    np.testing.assert_allclose(loss(2.0, 0.5), 2 * squared + 0.5 * absolute, rtol=1e-5)


@pytest.mark.parametrize(("prediction", "schedule"), [("v", OF_2B), ("noise", NOT_TO_NOISE)])
def test_validation_is_the_squared_error_of_training(prediction, schedule, pynative_mode):
    objective = DiffusionObjective(prediction, schedule)
    latent = make_batch()[0]
    found = validation_losses(Gain(), latent, [], times=STEPS, objective=objective)
    again = validation_losses(
        Gain(), latent[1:], [], times=STEPS, objective=objective, first_place=1
    )
    np.testing.assert_allclose(again, found[1:], rtol=1e-5)
    assert found.shape == (3, 3)
    perfect = validation_losses(
        lambda x, step: Tensor(np.zeros(SHAPE, np.float32)), latent, [], times=STEPS[:1]
    )
    # A network that predicts zero is off by data - noise.
    assert perfect.mean() == pytest.approx(2.0, rel=0.2)


def test_shifted_times_are_those_of_the_sampler():
    keys = {"seed": 3, "step": 5, "first_place": 2}
    plain = draw_times(64, **keys)
    np.testing.assert_array_equal(FlowObjective().draw_times(64, **keys), plain)
    np.testing.assert_array_equal(FlowObjective().time_grid(8), time_grid(8))
    sigma = 1 - plain.astype(np.float64)
    shifted = 1 - FlowObjective(7.0).draw_times(64, **keys)
    np.testing.assert_allclose(shifted, 7 * sigma / (1 + 6 * sigma), atol=1e-6)
    sigma = 1 - time_grid(8).astype(np.float64)
    grid = 1 - FlowObjective(7.0).time_grid(8)
    np.testing.assert_allclose(grid, 7 * sigma / (1 + 6 * sigma), atol=1e-6)


def test_steps_are_drawn_evenly_and_keyed_by_place():
    steps = draw_steps(2000, 1000, seed=0, step=0)
    assert steps.min() >= 0 and steps.max() <= 999 and (steps == steps.round()).all()
    assert steps.mean() == pytest.approx(499.5, abs=20)  # 3 standard errors
    np.testing.assert_array_equal(draw_steps(5, 1000, seed=0, step=0, first_place=7), steps[7:12])
    assert (draw_steps(64, 1000, seed=0, step=1) != steps[:64]).mean() > 0.9
    assert step_grid(4, 1000).tolist() == [125, 375, 625, 875]
    assert step_grid(1000, 1000).tolist() == list(range(1000))
    with pytest.raises(ValueError, match="num_times=1001; expected 1 to 1000"):
        step_grid(1001, 1000)


def schedule_of(learned):
    return noise_schedule(learned.scheduler)


def test_settings_and_start_decide_the_objective():
    flow, v, epsilon = (ObjectiveSettings(kind=kind) for kind in ("flow", "v", "epsilon"))
    for own in ("velocity", "v", "flow"):  # as ever
        assert TrainingObjective.of(flow, own) == TrainingObjective(FlowObjective(), own, None)
    learned = TrainingObjective.of(v, "v")
    assert learned.objective == DiffusionObjective("v", OF_2B)
    assert learned.scheduler["prediction_type"] == "v_prediction"
    assert schedule_of(learned) == OF_2B
    learned = TrainingObjective.of(epsilon, "velocity")
    assert learned.objective == DiffusionObjective("noise", NOT_TO_NOISE)
    assert learned.scheduler["prediction_type"] == "epsilon"
    # Shifted flows have a scheduler too, but for networks that go on predicting v.
    shifted = ObjectiveSettings(shift=7.0)
    assert TrainingObjective.of(shifted, "flow").scheduler == flow_config(7.0)
    learned = TrainingObjective.of(shifted, "v")
    assert learned.objective.shift == 7.0 and learned.scheduler is None


def test_a_run_goes_on_with_the_scheduler_it_starts_from():
    flow, v = ObjectiveSettings(), ObjectiveSettings(kind="v")
    stored = diffusion_config(OF_2B, class_name="CogVideoXDPMScheduler")

    def of(settings, own="v", stored=stored):
        return TrainingObjective.of(settings, own, is_start=True, stored=stored)

    assert of(flow) == TrainingObjective(FlowObjective(), "v", stored)
    assert of(v) == TrainingObjective(DiffusionObjective("v", OF_2B), "v", stored)
    other = of(ObjectiveSettings(kind="v", snr_shift_scale=1.0))
    assert other.scheduler == {**stored, "snr_shift_scale": 1.0}
    assert other.objective.schedule == NoiseSchedule()
    assert of(v, stored=None).objective.schedule == NoiseSchedule()  # its own clock so far
    published = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 7.0, "extra": 1}
    assert of(flow, "flow", published) == TrainingObjective(FlowObjective(7.0), "flow", published)
    again = of(ObjectiveSettings(shift=3.0), "flow", published)
    assert again.objective.shift == 3.0 and again.scheduler == {**published, "shift": 3.0}
    for own, there, kind in (("flow", published, "v"), ("velocity", None, "v"), ("v", stored, "e")):
        settings = ObjectiveSettings(kind={"v": "v", "e": "epsilon"}[kind])
        with pytest.raises(ValueError, match=r"the network of the generator predicts '.*leave obj"):
            of(settings, own, there)
    other.check_lora(diffusion_config(NoiseSchedule()))
    with pytest.raises(ValueError, match=r"changes the schedule .* which a LoRA does not carry"):
        other.check_lora(stored)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObjectiveSettings(kind="x0"), "objective.kind='x0'; expected one of flow, v, ep"),
        (lambda: ObjectiveSettings(shift=0.0), "objective.shift=0.0; expected more than 0"),
        (lambda: ObjectiveSettings(kind="v", shift=7.0), "shift has no effect with objective.kin"),
        (lambda: ObjectiveSettings(snr_shift_scale=3.0), "snr_shift_scale has no effect with obj"),
        (
            lambda: ObjectiveSettings(kind="epsilon", zero_terminal_snr=True),
            "zero_terminal_snr=true with objective.kind=epsilon: the last step would be pure noise",
        ),
        (lambda: DenoiserLossSettings(mse_weight=0.0), "loss: both weights are 0"),
        (lambda: DenoiserLossSettings(l1_weight=-1.0), "loss.l1_weight=-1.0; expected 0 or more"),
        (
            lambda: TrainingObjective.of(ObjectiveSettings(kind="v", beta_start=0.5), "v"),
            "objective: beta_start=0.5 and beta_end=0.012; expected 0 <",
        ),
    ],
)
def test_objectives_that_cannot_be_meant(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder: tae.safetensors, latents/ of 8 + 4 videos, train.csv, held_out.csv."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    shapes = tae_shapes(TAE.to_dict())
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_final_weights(folder / "tae.safetensors", tensors, TAE.to_dict())
    videos = [f"{n}.mp4" for n in range(12)]
    write_latents(folder / "latents", tensors, videos)
    write_captions(folder / "train.csv", videos[:8])
    write_captions(folder / "held_out.csv", videos[8:])
    return folder


def make_config(data, output_path, family, **changes):
    fields = {k: v for k, v in DENOISERS[family].items() if k != "text_encoders"}
    fields = {k: v for k, v in fields.items() if not k.startswith("sample_")}
    model = {"family": family, **fields, **changes.pop("model", {})}
    values = {
        "csv_path": str(data / "train.csv"),
        "latent_folder": str(data / "latents"),
        "tae": str(data / "tae.safetensors"),
        "validation": FlowValidationSettings(
            csv_path=str(data / "held_out.csv"), num_times=2, batch_size=4
        ),
        "steps": 2,
        "batch_size": 4,
        "device": "CPU",
        "mode": "pynative",
        "sampling": SamplingSettings(guidance=2.0, steps=3),
        "optim": OptimSettings(lr=1e-3, ema_decay=None),
        **changes,
    }
    text = TextSettings(encoders=["word,width=32"])
    return TrainDenoiserConfig(output_path=str(output_path), model=model, text=text, **values)


@pytest.fixture(scope="module")
def published(data, tmp_path_factory):
    """Return the folder of a tiny CogVideoX with the scheduler of CogVideoX-2b."""
    folder = tmp_path_factory.mktemp("published") / "generator"
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    text = [{"name": "word", "width": 32, "max_tokens": 16}]
    sizes = {"sample_width": 8, "sample_height": 6, "sample_frames": 9}
    family = denoiser_family("cogvideox")
    fields = {**DENOISERS["cogvideox"], "text_encoders": text, "latent_channels": 4, **sizes}
    config = family.read_config(fields)
    network = family.build(config)
    save_generator(
        folder,
        transformer_tensors=network.tensors(),
        transformer_config=config,
        autoencoder=data / "tae.safetensors",
        text_encoders=["word,width=32,max_tokens=16"],
        defaults={"num_frames": 4, "size": (8, 8), "fps": 8},
        family=family,
        scheduler=diffusion_config(OF_2B, class_name="CogVideoXDPMScheduler"),
    )
    ms.set_context(mode=before)
    return folder


class Recorder(nn.Cell):
    """Gives back what it sees, and keeps the steps."""

    def construct(self, latent, step):
        self.steps = step.asnumpy()
        return latent


def test_fine_tuning_keeps_the_clock_of_what_it_starts_from(
    published, data, tmp_path, pynative_mode
):
    samples = SampleVideoSettings(prompts=["a red square"], steps=2)
    config = make_config(data, tmp_path / "o", "cogvideox", pretrained=str(published))
    task = DenoiserTask(dataclasses.replace(config, samples=samples), ONE_RANK)
    stored = load_generator(published)
    generator = TextToVideo(stored)
    task.enter(task.stages[0])
    parts = load_generator(task.export(tmp_path))
    assert parts.scheduler == stored.scheduler
    assert parts.defaults.schedule == "published"
    # Positions follow from the sizes of the first training, which stay.
    assert parts.transformer_config == stored.transformer_config

    seen = {}
    for name, velocity in (
        ("training", task.learned.loss(task.predictor, config.loss).network),
        ("samples", task.samples.generator.velocity_network()),
        ("sampling", generator.velocity_network()),
    ):
        np.testing.assert_array_equal(
            velocity.alphas.asnumpy()[0], OF_2B.alphas().astype(np.float32)
        )
        velocity.network = Recorder()
        velocity(Tensor(make_batch()[0]), Tensor(np.array([0.1, 0.5, 0.9], np.float32)))
        seen[name] = velocity.network.steps
    np.testing.assert_array_equal(seen["training"], seen["sampling"])
    np.testing.assert_array_equal(seen["samples"], seen["sampling"])
    # t = 0.5 has as much of data as of noise; the clock of 5b shows that at another step.
    assert seen["training"][1] == (OF_2B.alphas() > 0.5).sum()
    assert seen["training"][1] < (NoiseSchedule().alphas() > 0.5).sum() - 100


@pytest.mark.parametrize(
    ("family", "objective", "kind"),
    [
        ("cogvideox", {"kind": "v"}, "v_prediction"),
        ("movie_gen", {"kind": "epsilon", "snr_shift_scale": 1.0}, "epsilon"),
        ("unet", {"shift": 7.0}, None),
    ],
)
def test_runs_of_every_objective(family, objective, kind, data, tmp_path, pynative_mode):
    config = make_config(
        data,
        tmp_path / "o",
        family,
        objective=ObjectiveSettings(**objective),
        loss=DenoiserLossSettings(mse_weight=0.5, l1_weight=0.5),
        samples=SampleVideoSettings(prompts=["a red square"], steps=2),
    )
    DenoiserTrainer(config).run()
    key = "flow_loss" if kind is None else "diffusion_loss"
    entries = read_log(tmp_path / "o" / "validation.jsonl")
    assert len(entries) == 2 and all(np.isfinite(entry[key]) for entry in entries)
    parts = load_generator(tmp_path / "o" / "generator")
    assert parts.defaults.schedule == "published"
    path = tmp_path / "o" / "generator" / "scheduler" / "scheduler_config.json"
    assert json.loads(path.read_text()) == dict(parts.scheduler)
    assert parts.scheduler.get("prediction_type") == kind
    if kind is None:
        assert parts.scheduler["shift"] == 7.0
        assert list(entries[0]["flow_loss_at_t"]) == ["0.07", "0.22"]
    else:
        assert list(entries[0]["diffusion_loss_at_step"]) == ["250", "750"]
    generator = TextToVideo(parts)
    for schedule in ("published", "linear"):
        made = generator("a red square", steps=2, schedule=schedule)
        assert np.isfinite(made.latents).all() and np.abs(made.latents).max() < 100


def test_an_objective_that_the_start_does_not_have_is_refused(
    published, data, tmp_path, pynative_mode
):
    for changes, message in (
        ({"objective": ObjectiveSettings(kind="epsilon")}, "pretrained=.* predicts 'v', and obj"),
        (
            {
                "objective": ObjectiveSettings(kind="v", snr_shift_scale=1.0),
                "lora": LoraSettings(),
            },
            "pretrained=.* which a LoRA does not carry",
        ),
        (
            {"sampling": SamplingSettings(steps=1001)},
            "sampling.steps: num_steps=1001; expected 1 to 1000",
        ),
    ):
        config = make_config(
            data, tmp_path / "o", "cogvideox", pretrained=str(published), **changes
        )
        with pytest.raises(ValueError, match=message):
            DenoiserTask(config, ONE_RANK)


def test_the_exported_config_says_the_sizes_of_the_latents(data, tmp_path, pynative_mode):
    task = DenoiserTask(make_config(data, tmp_path / "a", "cogvideox"), ONE_RANK)
    task.enter(task.stages[0])
    folder = task.export(tmp_path)
    stated = json.loads((folder / "denoiser" / "config.json").read_text())
    sizes = {"sample_width": 4, "sample_height": 4, "sample_frames": 4}
    assert sizes.items() <= stated.items() and stated["temporal_compression_ratio"] == TAE_FRAMES
    # What is set stays, and a later stage has the sizes of the first.
    given = make_config(data, tmp_path / "b", "cogvideox", model={"sample_width": 6})
    assert DenoiserTask(given, ONE_RANK).model.sample_width == 6
    later = make_config(data, tmp_path / "c", "cogvideox", pretrained=str(folder))
    assert DenoiserTask(later, ONE_RANK).model == task.model
    plain = make_config(data, tmp_path / "d", "movie_gen", model=TRANSFORMER)
    assert not hasattr(DenoiserTask(plain, ONE_RANK).model, "sample_width")
