"""Graph mode and PyNative give the same, forward and backward; training changes no names."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.layers.normalisation import GammaGroupNorm
from mg.training.autoencoder.autoencoder_config import LossSettings, OptimSettings
from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
from mg.training.step import TrainStep

pynative = pytest.mark.usefixtures("pynative_mode")


def assert_close(actual, expected, tolerance):
    """Within `tolerance` of the largest value."""
    assert actual.shape == expected.shape and np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def loss_and_gradients(tae, video):
    """Return the reconstruction and the gradient of every parameter of a loss, by name."""
    config = tae.config
    pixels = [size // config.spatial_compression for size in video.shape[3:]]
    num_latents = -(-video.shape[2] // config.temporal_compression)
    latent_shape = (video.shape[0], config.z_channels, num_latents, *pixels)
    noise = Tensor(np.random.default_rng(2).standard_normal(latent_shape).astype(np.float32))
    named = dict(tae.parameters_and_names())

    def loss(video):
        frames = tae(video, noise)
        return ((frames - video) ** 2).mean(), frames

    step = ms.value_and_grad(loss, None, list(named.values()), has_aux=True)
    (_, frames), gradients = step(video)
    gradients = (gradient.asnumpy() for gradient in gradients)
    return frames.asnumpy(), dict(zip(named, gradients, strict=True))


def assert_gradients_close(actual, expected, tolerance):
    """Each tensor within `tolerance` of its largest value, or of 1 % of the largest of all.

    The gradients that are exactly zero in theory (a bias before a normalisation) are rounding.
    """
    assert actual.keys() == expected.keys()
    floor = 0.01 * max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        limit = tolerance * max(np.abs(gradient).max(), floor)
        np.testing.assert_allclose(actual[name], gradient, rtol=0, atol=limit, err_msg=name)


ONE_LEVEL = {"ch_mult": [1], "temporal_upsample_level": [0]}
# Name of a case -> changes of the config, (batch, frames)
CASES = {"two clips": ({}, (2, 3)), "image": (ONE_LEVEL, (1, 1))}


@pytest.fixture(scope="module")
def run_case(make_tae, make_video):
    """Return a function that gives the reconstruction and gradients of a case."""

    def run(case, **options):
        changes, (batch, frames) = CASES[case]
        tae = make_tae(changes, **options)
        names = list(tae.tensors())
        video = make_video(frames, 8, 8, batch=batch)
        results = loss_and_gradients(tae, video)
        # Slicing a list of cells, say, would rename its parameters for good.
        assert list(tae.tensors()) == [p.name for p in tae.get_parameters()] == names
        return results

    return run


@pytest.fixture(scope="module")
def compiled(run_case):
    """Return what graph mode gives for every case."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    results = {case: run_case(case) for case in CASES}
    ms.set_context(mode=before)
    return results


@pynative
@pytest.mark.parametrize("case", CASES)
def test_both_modes_give_the_same(run_case, compiled, case):
    frames, gradients = run_case(case)
    expected_frames, expected_gradients = compiled[case]
    assert_close(frames, expected_frames, 1e-5)
    assert_gradients_close(gradients, expected_gradients, 1e-5)
    # A single frame attends to itself whatever query and key are; all else is in use.
    idle = {name for name, gradient in gradients.items() if not gradient.any()}
    assert all(re.search(r"attn_1\.1\.to_[qk]\.", name) for name in idle)
    assert not idle or case == "image"


@pytest.mark.parametrize("mode", ["graph_mode", "pynative_mode"])
def test_recompute_changes_no_gradient(run_case, compiled, mode, request):
    request.getfixturevalue(mode)
    frames, gradients = run_case("two clips", recompute=True)
    expected_frames, expected_gradients = compiled["two clips"]
    tolerance = 1e-6 if mode == "graph_mode" else 1e-5  # against the other mode
    assert_close(frames, expected_frames, tolerance)
    assert_gradients_close(gradients, expected_gradients, tolerance)


def test_norm_per_frame_in_both_modes(request, make_video):
    cell = GammaGroupNorm(3, 1, per_frame=True)
    x = make_video(6, 8, 8).transpose(0, 2, 1, 3, 4)[0]  # two clips of three frames, folded
    results = []

    def cubes(x):
        return (cell(x, 3) ** 3).mean()

    for mode in ("pynative_mode", "graph_mode"):
        request.getfixturevalue(mode)
        grad = ms.value_and_grad(cubes, 0, cell.trainable_params())
        _, (x_gradient, gradients) = grad(x)
        results.append([cell(x, 3), x_gradient, *gradients])
    for one, other in zip(*results, strict=True):
        assert_close(one.asnumpy(), other.asnumpy(), 1e-5)
    means = results[0][0].asnumpy().mean(axis=(1, 2, 3))
    assert np.abs(means).max() < 1e-5  # of each frame, not only of each clip


@pynative
def test_a_training_step_moves_every_parameter_and_renames_none(make_tae, make_video):
    tae = make_tae()
    before = tae.tensors()
    loss = AutoencoderLoss(tae, LossSettings(perceptual_loss_weight=0.0))
    step = TrainStep(loss, OptimSettings(ema_decay=None)).set_train()
    noise, indices = ms.ops.ones((1, 4, 2, 4, 4)), Tensor(np.arange(3, dtype=np.int32))
    scalars = (Tensor(value, ms.float32) for value in (1e-3, 1.0, 3e38))
    loss, _, norm, _ = step(*scalars, True, make_video(3, 8, 8), noise, indices)
    assert np.isfinite([float(loss.asnumpy()), float(norm.asnumpy())]).all()
    after = tae.tensors()
    assert list(after) == list(before)
    assert not [name for name in after if np.array_equal(after[name], before[name])]
