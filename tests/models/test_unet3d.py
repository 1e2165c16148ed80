"""The 3-D U-Net: shapes, what reaches what, gradients, other structures, refused configs."""

import types

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.families import denoiser_family
from mg.models.unet3d.config import PRESETS, UNet3DConfig
from mg.models.unet3d.network import UNet3D
from tests.tiny import DENOISERS

FIELDS = {**DENOISERS["unet"], "latent_channels": 4}


def build(**changes):
    """Return a network with random weights that are not zero."""
    network = UNet3D({**FIELDS, **changes})
    rng = np.random.default_rng(0)
    network.load_tensors(
        {
            name: (0.3 * rng.standard_normal(array.shape)).astype(np.float32)
            for name, array in network.tensors().items()
        }
    )
    return network


def inputs(*, frames=3, size=8, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    arrays = (
        rng.standard_normal((batch, 4, frames, size, size), np.float32),
        np.linspace(0.2, 0.8, batch, dtype=np.float32),
        rng.standard_normal((batch, 4, 32), np.float32),
        np.array([[True, True, True, False]] * batch),
    )
    return list(map(Tensor, arrays))


def test_a_new_network_predicts_zero_and_any_legal_size_will_do(pynative_mode):
    network = UNet3D(FIELDS)
    for frames, size in ((1, 4), (3, 8)):
        velocity = network(*inputs(frames=frames, size=size)).asnumpy()
        assert velocity.shape == (2, 4, frames, size, size) and velocity.dtype == np.float32
        assert not velocity.any()
    with pytest.raises(ValueError, match="height 7 is not a multiple of the patch's 2"):
        network(*inputs(size=7))


def test_compiled_outputs_and_gradients_are_those_line_by_line():
    network, arguments = build(), inputs()
    parameters = network.trainable_params()

    def loss(*inputs):
        return (network(*inputs) ** 2).mean()

    function = ms.value_and_grad(loss, None, parameters)
    results = []
    before = ms.get_context("mode")
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        value, gradients = function(*arguments)
        results.append([value.asnumpy(), *(g.asnumpy() for g in gradients)])
    ms.set_context(mode=before)
    for parameter, one, other in zip([None, *parameters], *results, strict=True):
        name = "loss" if parameter is None else parameter.name
        np.testing.assert_allclose(one, other, atol=1e-5 + 1e-4 * np.abs(one).max(), err_msg=name)
        assert np.abs(one).max() > 0, name  # everything is of use


def test_clips_are_apart_and_frames_see_each_other_in_their_order(pynative_mode):
    network = build()
    latent, *rest = inputs()
    base = network(latent, *rest).asnumpy()
    one = latent.asnumpy().copy()
    one[0] += 1
    changed = network(Tensor(one), *rest).asnumpy()
    np.testing.assert_allclose(changed[1], base[1], atol=1e-4 * np.abs(base).max())
    assert np.abs(changed[0] - base[0]).max() > 1e-2
    frame = latent.asnumpy().copy()
    frame[:, :, 0] += 1
    assert np.abs(network(Tensor(frame), *rest).asnumpy() - base)[:, :, 2].max() > 1e-3
    backwards = network(Tensor(latent.asnumpy()[:, :, ::-1].copy()), *rest).asnumpy()[:, :, ::-1]
    assert np.abs(backwards - base).max() > 1e-3


def test_time_and_text_count_and_masked_text_does_not(pynative_mode):
    network = build()
    latent, t, text, mask = inputs()
    base = network(latent, t, text, mask).asnumpy()
    values = text.asnumpy().copy()
    values[:, 3] = np.nan  # is masked
    np.testing.assert_array_equal(network(latent, t, Tensor(values), mask).asnumpy(), base)
    values = text.asnumpy().copy()
    values[:, 0] += 1
    assert np.abs(network(latent, t, Tensor(values), mask).asnumpy() - base).max() > 1e-3
    assert np.abs(network(latent, t * 0.5, text, mask).asnumpy() - base).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"channel_mult": [1]},
        {"num_res_blocks": 2, "attention_levels": []},
        {"channel_mult": [1, 1, 2]},
    ],
)
def test_other_structures_run(changes, pynative_mode):
    changes = {"attention_levels": [0], **changes}
    velocity = build(**changes)(*inputs()).asnumpy()
    assert velocity.shape == (2, 4, 3, 8, 8) and np.isfinite(velocity).all()


def test_presets_are_counted_without_memory():
    family = denoiser_family("unet")
    assert 3e6 < family.num_parameters(PRESETS["tiny"]) < 8e6
    assert 6e7 < family.num_parameters(PRESETS["100m"]) < 2e8
    config = UNet3DConfig.from_mapping({"preset": "tiny", "condition_channels": 3})
    assert UNet3DConfig.from_mapping(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chanels": 8}, "did you mean 'channels'"),
        ({"preset": "tny"}, "did you mean 'tiny'"),
        ({"channels": 0}, "channels=0; expected a whole number"),
        ({"norm_groups": 3}, "norm_groups=3 does not divide the 128 channels"),
        ({"attention_levels": [5]}, "there are 3 levels, from 0"),
        ({"channel_mult": []}, "expected 1 to 8 levels"),
        ({"channel_mult": "12"}, "expected whole numbers of 1 or more"),
        ({"channels": 10**9}, "no network is that large"),
        ({"text_encoders": []}, "expected a list of at least one"),
        ({"condition_channels": -1}, "condition_channels=-1; expected 0 or more"),
        ({"timestep_width": 7}, "expected an even number"),
    ],
)
def test_configs_of_no_network_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        UNet3DConfig.from_mapping(fields)


def test_ranks_that_are_to_share_the_frames_are_refused():
    with pytest.raises(ValueError, match="sequence_parallel=2: ranks cannot share the frames of a"):
        UNet3D(FIELDS, sequence=types.SimpleNamespace(size=2))
