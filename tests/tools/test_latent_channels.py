"""Scaled latent channels: other latents, the same videos."""

import dataclasses

import numpy as np
import pytest
from mindspore import Tensor

from latent_channels import scale_channels, scales_by_effect
from mg.models.tae.tae import TemporalAutoencoder
from tests.tiny import TAE_WITH_LINEAR_PATH

pytestmark = pytest.mark.usefixtures("pynative_mode")

CONFIG = dataclasses.replace(TAE_WITH_LINEAR_PATH, z_channels=3)


def random_network():
    """Return a network all of whose weights are random, and its tensors and config."""
    tae = TemporalAutoencoder(CONFIG, sample_deterministic=True)
    rng = np.random.default_rng(0)
    tensors = {
        name: array + rng.normal(0, 0.02, array.shape).astype(np.float32)
        for name, array in tae.tensors().items()
    }
    tae.load_tensors(tensors)
    return tae, tensors, CONFIG.to_dict()


def test_latents_are_multiplied_and_videos_stay():
    tae, tensors, config = random_network()
    scales = np.array([0.25, 1.0, 3.0])
    scaled = TemporalAutoencoder(CONFIG, sample_deterministic=True)
    scaled.load_tensors(scale_channels(tensors, config, scales))
    video = Tensor(np.random.default_rng(1).uniform(-1, 1, (1, 3, 6, 8, 8)).astype(np.float32))
    mean, logvar = (moment.asnumpy() for moment in tae.moments(video))
    found_mean, found_logvar = (moment.asnumpy() for moment in scaled.moments(video))
    by_channel = scales.reshape(1, 3, 1, 1, 1)
    np.testing.assert_allclose(found_mean, mean * by_channel, atol=1e-5)
    np.testing.assert_allclose(found_logvar, logvar + 2 * np.log(by_channel), atol=1e-5)
    expected = tae.frames_from(Tensor(mean), 6).asnumpy()
    found = scaled.frames_from(Tensor(found_mean), 6).asnumpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_channel_becomes_as_large_as_what_it_changes():
    _, tensors, config = random_network()
    weight = np.zeros_like(tensors["decoder.linear.weight"])
    weight[:4, 0], weight[4:8, 1], weight[8:12, 2] = 10.0, 2.0, 0.5  # norms 20, 4 and 1
    deviations = np.array([1.0, 1.0, 2.0])  # so that deviations change 20, 4 and 2
    scales = scales_by_effect({"decoder.linear.weight": weight}, config, deviations)
    # The largest counts as the next one: 4, 4 and 2, by sqrt(mean(16, 16, 4)) = sqrt(12).
    np.testing.assert_allclose(scales * deviations, np.array([4, 4, 2]) / np.sqrt(12), rtol=1e-6)


def test_what_cannot_be_scaled_is_refused():
    _, tensors, config = random_network()
    with pytest.raises(ValueError, match=r"no linear path.*model.linear_path=true"):
        scale_channels(tensors, {**config, "linear_path": False}, np.ones(3))
    with pytest.raises(ValueError, match="use_quant_conv"):
        scale_channels(tensors, {**config, "use_quant_conv": True}, np.ones(3))
    with pytest.raises(ValueError, match="one above 0 for each of the 3 channels"):
        scales_by_effect(tensors, config, np.array([1.0, 0.0, 1.0]))
