"""Schedulers of published generators against recorded steps of their own package."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mg.flow.noise_schedule import NoiseSchedule, trailing_steps
from mg.flow.parametrisation import (
    PREDICTIONS,
    Mixture,
    data_and_noise,
    prediction_of,
    velocity_of,
)
from mg.flow.scheduler_config import build_scheduler, diffusion_config, flow_config
from mg.flow.schedulers import DDIM, DPM, dynamic_guidance

FIXTURES = Path(__file__).parents[1] / "fixtures" / "schedulers"
CLASSES = {
    "cog_ddim": "CogVideoXDDIMScheduler",
    "cog_dpm": "CogVideoXDPMScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler",
}
DIFFUSION = ("cog_ddim_2b", "cog_ddim_5b", "cog_dpm_2b", "cog_dpm_5b")
FLOW = ("flow_a", "flow_b")


def read(name):
    config = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    config["_class_name"] = CLASSES[name.rsplit("_", 1)[0]]
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        return config, {key: file[key] for key in file.files}


def run(scheduler, recorded):
    """Return the latent after each step, and how many noises each step drew."""
    latent, latents, draws = recorded["i:sample"], [], []
    for index, output in enumerate(recorded["i:model_output"]):
        noises = list(recorded["i:noise"][index]) if "i:noise" in recorded else []
        num_noises = len(noises)
        latent = scheduler.step(index, output, latent, lambda noises=noises: noises.pop(0))
        latents.append(latent)
        draws.append(num_noises - len(noises))
    return np.stack(latents), draws


@pytest.mark.parametrize("name", DIFFUSION)
def test_tables_and_steps_of_diffusion(name):
    config, recorded = read(name)
    scheduler = build_scheduler(config, 10)
    np.testing.assert_array_equal(scheduler.timesteps, recorded["o:timesteps"])
    np.testing.assert_array_equal(trailing_steps(50), recorded["o:timesteps_50"])
    np.testing.assert_allclose(scheduler.alphas, recorded["o:alphas_cumprod"], atol=1e-9)
    latents, draws = run(scheduler, recorded)
    scale = np.abs(recorded["o:samples"]).max()
    np.testing.assert_allclose(latents, recorded["o:samples"], atol=1e-5 * max(1, scale))
    if "o:draws" in recorded:
        assert draws == recorded["o:draws"].tolist()


@pytest.mark.parametrize("name", DIFFUSION)
def test_mixing_and_v_of_training(name):
    config, recorded = read(name)
    step = recorded["i:add_t"].reshape(-1, 1, 1, 1)
    alphas = build_scheduler(config, 10).alphas[step]
    mixture = Mixture(np.sqrt(alphas), np.sqrt(1 - alphas))
    data, noise = recorded["i:add_x"], recorded["i:add_noise"]
    np.testing.assert_allclose(mixture.of(data, noise), recorded["o:add"], atol=1e-6)
    v = prediction_of("v", data, noise, mixture)
    np.testing.assert_allclose(v, recorded["o:velocity"], atol=1e-6)


@pytest.mark.parametrize("name", FLOW)
def test_times_and_steps_of_flow(name):
    config, recorded = read(name)
    scheduler = build_scheduler(config, 10)
    np.testing.assert_allclose(scheduler.sigmas, recorded["o:sigmas"], atol=1e-6)
    np.testing.assert_allclose(scheduler.timesteps, recorded["o:timesteps"], rtol=1e-6)
    latents, _ = run(scheduler, recorded)
    np.testing.assert_allclose(latents, recorded["o:samples"], atol=1e-5)


def test_guidance_that_changes_with_time():
    with np.load(FIXTURES / "dynamic_guidance.npz", allow_pickle=False) as recorded:
        for n in (50, 10):
            weights = [dynamic_guidance(6.0, t, n) for t in recorded[f"i:timesteps_{n}"]]
            np.testing.assert_allclose(weights, recorded[f"o:guidance_{n}"], atol=1e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_data_and_noise_come_back_from_every_prediction(kind):
    rng = np.random.default_rng(0)
    data, noise = rng.standard_normal((2, 3, 4, 2, 5, 5))
    straight = kind in ("velocity", "flow")
    for share in (0.1, 0.5, 0.9):
        mixture = Mixture(share, 1 - share) if straight else Mixture(share, math.sqrt(1 - share**2))
        x = mixture.of(data, noise)
        prediction = prediction_of(kind, data, noise, mixture)
        found = data_and_noise(kind, prediction, x, mixture)
        np.testing.assert_allclose(found, (data, noise), atol=1e-12)
        velocity = velocity_of(kind, prediction, x, mixture)
        np.testing.assert_allclose(velocity, data - noise, atol=1e-12)


@pytest.mark.parametrize("scheduler_class", [DDIM, DPM])
@pytest.mark.parametrize("num_steps", [1, 7, 13, 50])
def test_a_network_that_knows_the_data_leads_to_it(scheduler_class, num_steps):
    schedule = NoiseSchedule(snr_shift_scale=3.0)
    scheduler = scheduler_class(schedule, num_steps)
    rng = np.random.default_rng(1)
    data = rng.standard_normal((1, 2, 3, 4, 4))
    latent = rng.standard_normal(data.shape)
    for index, step in enumerate(scheduler.timesteps):
        mixture = schedule.mixture(step)
        noise = (latent - mixture.signal * data) / mixture.sigma
        output = prediction_of("v", data, noise, mixture)
        latent = scheduler.step(index, output, latent, lambda: rng.standard_normal(data.shape))
    # For 7 and 13 steps the published samplers end at step 0 of 999, where some noise is left.
    left = np.sqrt(1 - scheduler.alpha_after(num_steps - 1))
    np.testing.assert_allclose(latent, data, atol=1e-9 + 6 * left)
    assert (left > 0) == (num_steps in (7, 13))


def test_configs_are_written_as_they_are_read():
    schedule = NoiseSchedule(snr_shift_scale=3.0)
    written = diffusion_config(schedule, class_name="CogVideoXDPMScheduler")
    scheduler = build_scheduler(json.loads(json.dumps(written)), 10)
    assert isinstance(scheduler, DPM) and scheduler.prediction == "v"
    np.testing.assert_array_equal(scheduler.alphas, schedule.alphas())
    flow = build_scheduler(json.loads(json.dumps(flow_config(7.0))), 4)
    assert flow.sigmas[1] == pytest.approx(7 * 0.75 / (1 + 6 * 0.75))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "PNDMScheduler"}, "class 'PNDMScheduler' is not known; known are Cog"),
        ({"beta_schedule": "linear"}, "beta_schedule='linear' is not implemented; expected"),
        ({"prediction_type": "x0"}, "prediction_type='x0'; expected one of v_prediction"),
        ({"prediction_type": "epsilon"}, "the last step is pure noise, of which .* tells nothing"),
        ({"snr_shift_scale": float("nan")}, "snr_shift_scale=nan; expected a number"),
        ({"snr_shift_scale": 0}, "snr_shift_scale=0.0; expected more than 0"),
        ({"num_train_timesteps": "many"}, "num_steps='many'; expected a whole number"),
    ],
)
def test_configs_that_mean_something_else_are_refused(changes, message):
    config, _ = read("cog_ddim_2b")
    with pytest.raises(ValueError, match=message):
        build_scheduler({**config, **changes}, 10)


def test_impossible_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps=1001; expected 1 to 1000"):
        trailing_steps(1001)
    with pytest.raises(ValueError, match="num_steps=0; expected 1 or more"):
        build_scheduler(flow_config(1.0), 0)
    with pytest.raises(ValueError, match="prediction 'x'; expected one of data, noise"):
        prediction_of("x", 0.0, 0.0, Mixture(1.0, 0.0))
