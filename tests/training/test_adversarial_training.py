"""The generator's side of the loss, and updates of autoencoder and discriminator in turn."""

import dataclasses
import itertools
import shutil

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.losses.adversarial import generator_loss
from mg.losses.kl import kl_loss
from mg.losses.reconstruction import l1_loss, mse_loss
from mg.models.discriminator import Discriminator
from mg.models.discriminator_config import DiscriminatorConfig
from mg.models.tae.tae import TemporalAutoencoder
from mg.training.autoencoder.autoencoder_config import (
    AdversarialSettings,
    LossSettings,
    PhaseSettings,
)
from mg.training.autoencoder.autoencoder_loss import LOSS_TERMS, AutoencoderLoss
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.autoencoder.discriminator_loss import DiscriminatorLoss
from mg.training.run.run_log import read_log
from tests.tiny import TAE_OF_ONE_LEVEL

pytestmark = pytest.mark.usefixtures("in_graph_mode")

NETWORK = DiscriminatorConfig(kind="video", ch=8, num_layers=1, norm_groups=4)
LOSS = LossSettings(perceptual_loss_weight=0, mse_weight=0.5, kl_loss_weight=1e-3)


def make_loss(*, recompute=False, **settings):
    ms.set_seed(0)
    tae = TemporalAutoencoder(TAE_OF_ONE_LEVEL, recompute=recompute)
    discriminator = Discriminator(NETWORK)
    rng = np.random.default_rng(0)
    for parameter in tae.get_parameters():  # none is zero
        noise = 0.1 * rng.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(parameter.asnumpy() + noise))
    adversarial = AdversarialSettings(weight=0.5, network=NETWORK, **settings)
    return AutoencoderLoss(
        tae, LOSS, adversarial=adversarial, discriminator=discriminator
    ).set_train()


def make_batch(num_frames=3):
    rng = np.random.default_rng(1)
    video = rng.uniform(-1, 1, (2, 3, num_frames, 8, 8)).astype(np.float32)
    noise = rng.standard_normal((2, 4, -(-num_frames // 2), 8, 8), np.float32)
    return Tensor(video), Tensor(noise), Tensor(np.zeros(1, np.int32))


def gradients_of(function, parameters, *inputs):
    """Return (value, gradients) of a function."""
    value, gradients = ms.value_and_grad(function, None, weights=parameters)(*inputs)
    return float(value.asnumpy()), [gradient.asnumpy() for gradient in gradients]


@pytest.fixture(scope="module")
def reference():
    """Return (w, L + w L_adv, its gradient) by plain derivatives, without compiling."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.runtime.launch_blocking()
    loss = make_loss()
    tae, discriminator = loss.autoencoder, loss.discriminator
    parameters = ms.ParameterTuple(tae.trainable_params())
    video, noise, _ = make_batch()

    def pieces():
        mean, logvar = tae.moments(video)
        frames = tae.frames_from(tae.sample(mean, logvar, noise))[:, :, :3]
        reconstruction = l1_loss(frames, video) + 0.5 * mse_loss(frames, video)
        return reconstruction, generator_loss(discriminator(frames), kind="hinge"), (mean, logvar)

    last = ms.ParameterTuple([tae.last_weight])

    def reconstruction():
        return pieces()[0]

    def adversarial():
        return pieces()[1]

    norms = [
        float(np.sqrt(np.square(gradients_of(piece, last)[1][0]).sum()))
        for piece in (reconstruction, adversarial)
    ]
    weight = 0.5 * norms[0] / (norms[1] + 1e-4)

    def total():
        reconstruction, adv, moments = pieces()
        return reconstruction + weight * adv + 1e-3 * kl_loss(*moments)

    value, gradients = gradients_of(total, parameters)
    ms.set_context(mode=before)
    return weight, value, gradients


@pytest.mark.parametrize(("recompute", "mode"), [(False, ms.PYNATIVE_MODE), (True, ms.GRAPH_MODE)])
def test_the_adaptive_weight_and_its_gradient_are_those_of_plain_derivatives(
    reference, recompute, mode
):
    weight, value, expected = reference
    ms.set_context(mode=mode)  # `in_graph_mode` sets it back
    loss = make_loss(recompute=recompute)
    parameters = ms.ParameterTuple(loss.autoencoder.trainable_params())
    video, noise, indices = make_batch()
    step = ms.value_and_grad(loss, None, weights=parameters, has_aux=True)
    (total, terms, frames), gradients = step(video, noise, indices)
    terms = dict(zip(LOSS_TERMS, (float(term.asnumpy()) for term in terms), strict=True))
    assert frames.shape == video.shape
    assert terms["adv_weight"] == pytest.approx(weight, rel=1e-5)
    assert float(total.asnumpy()) == pytest.approx(value, rel=1e-5)
    assert float(total.asnumpy()) == pytest.approx(
        terms["l1"] + 0.5 * terms["mse"] + 1e-3 * terms["kl"] + weight * terms["adv"], rel=1e-5
    )
    for parameter, gradient, want in zip(parameters, gradients, expected, strict=True):
        # The keys' biases change no attention: their gradient is rounding alone.
        tolerance = 1e-4 * np.abs(want).max() + 1e-8
        np.testing.assert_allclose(
            gradient.asnumpy(), want, rtol=0, atol=tolerance, err_msg=parameter.name
        )


def test_the_ratio_is_clamped_and_a_fixed_weight_is_fixed(pynative_mode):
    batch = make_batch()
    clamped = make_loss(max_adaptive_weight=1e-3)
    assert float(clamped(*batch)[1][-1].asnumpy()) == pytest.approx(0.5e-3, rel=1e-6)
    fixed = make_loss(adaptive=False)
    assert float(fixed(*batch)[1][-1].asnumpy()) == 0.5


def test_the_discriminators_loss_counts_lecam_against_running_means():
    settings = AdversarialSettings(lecam_weight=2.0, network=NETWORK)
    ms.set_seed(0)
    discriminator = Discriminator(NETWORK)
    video, *_ = make_batch()
    frames = Tensor(np.random.default_rng(2).uniform(-1, 1, video.shape).astype(np.float32))
    real, fake = discriminator(video).asnumpy(), discriminator(frames).asnumpy()
    means = -0.2, 0.3
    loss, terms, _ = DiscriminatorLoss(discriminator, settings)(
        video, frames, *(Tensor(mean, ms.float32) for mean in means)
    )
    accuracy, mean_real, mean_fake, lecam = (float(term.asnumpy()) for term in terms)
    want = np.square(np.maximum(real - means[1], 0)).mean()
    want += np.square(np.maximum(means[0] - fake, 0)).mean()
    hinge = 0.5 * (np.maximum(1 - real, 0).mean() + np.maximum(1 + fake, 0).mean())
    assert lecam == pytest.approx(want, rel=1e-5, abs=1e-7)
    assert float(loss.asnumpy()) == pytest.approx(hinge + 2.0 * want, rel=1e-5)
    assert (mean_real, mean_fake) == pytest.approx((real.mean(), fake.mean()), rel=1e-4)
    assert accuracy == pytest.approx(((real > 0).mean() + (fake < 0).mean()) / 2)


# -- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adversarial_run(make_config, tmp_path_factory):
    """Return a run of 6 steps whose discriminator joins at step 3, the encoder frozen from 5 on."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    config = make_config(
        tmp_path_factory.mktemp("adversarial") / "out",
        model=TAE_OF_ONE_LEVEL,
        freeze=[],
        steps=6,
        checkpoint_interval=1,
        keep_checkpoints=10,
        phases=[PhaseSettings(steps=5), PhaseSettings(freeze=["encoder"])],
        lr_multipliers={"temporal": 0.5},
        # A fixed weight, with which the graphs of four stages are compiled in half the time.
        adversarial=AdversarialSettings(
            start_step=3, lecam_weight=0.1, adaptive=False, network=NETWORK
        ),
    )
    trainer = AutoencoderTrainer(config)
    trainer.run()
    ms.set_context(mode=before)
    return trainer


def test_the_discriminator_joins_at_its_step(adversarial_run):
    entries = read_log(adversarial_run.output / "log.jsonl")
    assert ["disc_loss" in entry for entry in entries] == [False] * 3 + [True] * 3
    assert [entry["adv_weight"] > 0 for entry in entries] == [False] * 3 + [True] * 3
    for entry in entries[3:]:
        assert 0 <= entry["disc_accuracy"] <= 1 and entry["disc_grad_norm"] > 0
    store = adversarial_run.state.store
    saved = [store.load(step) for step in range(1, 7)]
    weights = [checkpoint.tensors("discriminator") for checkpoint in saved]
    moves = [
        any(not np.array_equal(a[name], b[name]) for name in a)
        for a, b in itertools.pairwise(weights)
    ]
    assert moves == [False, False, True, True, True]
    has_state = ["discriminator_state.safetensors" in c.manifest.files for c in saved]
    assert has_state == [False] * 3 + [True] * 3
    states = [checkpoint.tensors("discriminator_state") for checkpoint in saved[3:]]
    counts = [int(state["num_updates.to_logits.bias"]) for state in states]
    is_applied = [entry["is_applied"] for entry in entries[3:]]
    assert is_applied == [True] * 3
    assert counts == [1, 2, 3]


def test_running_means_of_the_logits_are_carried(adversarial_run):
    entries = read_log(adversarial_run.output / "log.jsonl")[3:]
    mean = 0.0
    for entry in entries:
        mean = 0.99 * mean + (1 - 0.99) * entry["logits_real"]
    stored = adversarial_run.state.store.load(6).document("progress")["running_means"]
    assert stored["real"] == mean


def test_a_phase_freezes_the_encoder_bit_for_bit(adversarial_run):
    store = adversarial_run.state.store
    weights = [store.load(step).tensors("tae") for step in (4, 5, 6)]
    for name in weights[0]:
        moved = [not np.array_equal(a[name], b[name]) for a, b in itertools.pairwise(weights)]
        if name.startswith("encoder."):
            assert not moved[1], name
    assert any(not np.array_equal(weights[0][n], weights[1][n]) for n in weights[0] if "enc" in n)
    assert any(not np.array_equal(weights[1][n], weights[2][n]) for n in weights[0] if "dec" in n)
    state = store.load(6).tensors("tae_state")
    assert not any("encoder." in name for name in state)
    assert state["num_updates.decoder.conv_in.conv_spat.bias"] == 6  # carried over both borders
    assert store.load(6).document("progress")["stage"] == 2


def test_an_adversarial_run_resumed_in_its_midst_is_the_unbroken_one(adversarial_run, tmp_path):
    """From the checkpoint after step 4: one step with both, one in the next phase."""
    output = tmp_path / "out"
    shutil.copytree(adversarial_run.output, output)
    for folder in (output / "checkpoints").iterdir():
        if folder.name in ("step_00000005", "step_00000006"):
            shutil.rmtree(folder)
    config = dataclasses.replace(adversarial_run.config, output_path=str(output), resume=True)
    resumed = AutoencoderTrainer(config)
    assert resumed.step == 4
    resumed.run()
    first, second = (run.state.store.load(6) for run in (adversarial_run, resumed))
    for name in ("tae", "tae_state", "discriminator", "discriminator_state"):
        a, b = first.tensors(name), second.tensors(name)
        assert a.keys() == b.keys()
        assert max(float(np.abs(a[key] - b[key]).max()) for key in a) == 0, name
    one, other = (c.document("progress") for c in (first, second))
    assert one == other
