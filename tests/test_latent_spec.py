"""The rules of frames and of scaling, for the autoencoders that there are."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from mindspore import Tensor

from mg.latent_spec import LatentSpec, diffusers_scaling
from mg.models.tae.config import TAE_CONFIG, TAEConfig

MEANS, STDS = [0.5, -1.0, 0.0, 0.1], [1.0, 2.0, 4.0, 0.3]
PER_CHANNEL = diffusers_scaling({"latents_mean": MEANS, "latents_std": STDS})
SPECS = {
    "tae": TAEConfig().spec,
    "cogvideox": LatentSpec(16, t=4, h=8, w=8, head=1, step=8, factor=0.7),
    "hunyuan": LatentSpec(16, t=4, h=8, w=8, head=1, step=4, factor=0.476986),
    "wan": LatentSpec(
        4,
        4,
        8,
        8,
        head=1,
        step=4,
        **diffusers_scaling({"latents_mean": MEANS, "latents_std": STDS}),
    ),
    "dc_ae": LatentSpec(128, t=4, h=32, w=32),
    "opensora": LatentSpec(4, t=4, h=8, w=8, chunk=17, factor=[0.3, 0.4, 0.5, 0.6], offset=0.1),
    "image": LatentSpec(4, t=1, h=8, w=8, factor=0.18215),
}

# Frames of video -> frames that go in, frames of latent, longest video of such a latent.
FRAMES = {
    "tae": {1: (1, 1, 8), 8: (8, 1, 8), 9: (9, 2, 16), 16: (16, 2, 16), 17: (17, 3, 24)},
    "cogvideox": {1: (1, 1, 1), 5: (9, 3, 9), 9: (9, 3, 9), 10: (17, 5, 17), 49: (49, 13, 49)},
    "hunyuan": {1: (1, 1, 1), 2: (5, 2, 5), 5: (5, 2, 5), 6: (9, 3, 9), 129: (129, 33, 129)},
    "wan": {1: (1, 1, 1), 4: (5, 2, 5), 81: (81, 21, 81)},
    "dc_ae": {1: (1, 1, 4), 4: (4, 1, 4), 5: (5, 2, 8), 28: (28, 7, 28)},
    "opensora": {
        1: (1, 1, 4),
        16: (16, 4, 16),
        17: (17, 5, 17),
        18: (18, 6, 21),
        51: (51, 15, 51),
        52: (52, 16, 55),
    },
    "image": {1: (1, 1, 1), 7: (7, 7, 7)},
}


def small_latent(spec, seed=0):
    shape = (2, spec.channels, 2, 3, 3)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", SPECS)
def test_frames_that_are_known(name):
    spec = SPECS[name]
    for frames, (valid, latent, longest) in FRAMES[name].items():
        assert (spec.valid_frames(frames), spec.latent_frames(frames)) == (valid, latent)
        assert spec.decoded_frames(latent) == longest


@pytest.mark.parametrize("name", SPECS)
def test_rule_of_frames(name):
    spec = SPECS[name]
    for frames in range(1, 41):
        valid, latents = spec.valid_frames(frames), spec.latent_frames(frames)
        # No shorter video of at least these frames can go in, and what goes in needs no more.
        assert frames <= valid < frames + spec.step
        assert spec.valid_frames(valid) == valid and spec.latent_frames(valid) == latents
        # The longest video of a latent is one, and with one frame more the latent is longer.
        longest = spec.decoded_frames(latents)
        assert longest >= valid and spec.latent_frames(longest) == latents
        assert spec.latent_frames(longest + 1) > latents


def test_formulas():
    for frames in range(1, 41):
        assert SPECS["tae"].latent_frames(frames) == math.ceil(frames / 8)
        assert SPECS["dc_ae"].latent_frames(frames) == math.ceil(frames / 4)
        assert SPECS["hunyuan"].latent_frames(frames) == 1 + math.ceil((frames - 1) / 4)
        chunks = [min(17, frames - start) for start in range(0, frames, 17)]
        in_chunks = sum(math.ceil(chunk / 4) for chunk in chunks)
        assert SPECS["opensora"].latent_frames(frames) == in_chunks


def test_shapes():
    assert SPECS["tae"].latent_shape(17, 64, 96) == (16, 3, 8, 12)
    assert SPECS["dc_ae"].latent_shape(4, 64, 96) == (128, 1, 2, 3)
    SPECS["tae"].check_video((1, 3, 5, 64, 96))
    SPECS["tae"].check_latent((1, 16, 1, 1, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.check_video((1, 3, 1, 65, 64)), "height 65 .* multiple of 8; .* 64 or 72"),
        (lambda s: s.check_video((1, 3, 1, 64, 5)), "width 5 .* crop to 8"),
        (lambda s: s.check_video((1, 4, 1, 64, 64)), r"a video \(batch, 3, .* got \(1, 4, 1"),
        (lambda s: s.check_video((3, 0, 64, 64)), "expected a video"),
        (lambda s: s.latent_shape(1, 64, 65), "width 65"),
        (lambda s: s.latent_shape(1, 0, 64), "height=0; expected a whole number of 1 or more"),
        (lambda s: s.check_latent((1, 4, 1, 8, 8)), r"a latent \(batch, 16, .* got \(1, 4, 1"),
        (lambda s: s.check_latent((1, 16, 0, 8, 8)), "expected a latent"),
        (lambda s: s.valid_frames(0), "num_frames=0"),
        (lambda s: s.latent_frames(True), "num_frames=True"),
        (lambda s: s.decoded_frames(0), "latent_frames=0"),
        (lambda s: s.scale(np.zeros((1, 4, 1, 8, 8))), r"a latent \(..., 16, .* got \(1, 4, 1"),
        (lambda s: s.unscale(np.zeros(16)), "expected a latent"),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(SPECS["tae"])


@pytest.mark.parametrize("name", SPECS)
def test_unscale_is_the_inverse_of_scale(name):
    spec = SPECS[name]
    z = small_latent(spec)
    scaled = spec.scale(z)
    assert scaled.dtype == z.dtype and scaled.shape == z.shape
    factor, offset = (np.broadcast_to(v, spec.channels) for v in (spec.factor, spec.offset))
    exact = np.einsum("bcthw,c->bcthw", z.astype(np.float64), factor)
    exact += offset.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(scaled, exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(spec.unscale(scaled), z, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(spec.scale(z[0]), scaled[0])  # without a batch too


@pytest.mark.parametrize("name", ["tae", "wan", "opensora"])
def test_tensors_are_scaled_as_arrays_are(name):
    spec = SPECS[name]
    z = small_latent(spec)
    np.testing.assert_allclose(spec.scale(Tensor(z)).asnumpy(), spec.scale(z), rtol=0, atol=1e-6)
    back = spec.unscale(spec.scale(Tensor(z)))
    assert isinstance(back, Tensor)
    np.testing.assert_allclose(back.asnumpy(), z, rtol=1e-5, atol=1e-6)


def test_a_tae_scales_by_factor_and_shift_as_they_stand_in_its_config():
    z = small_latent(SPECS["tae"])
    by_hand = TAE_CONFIG["scaling_factor"] * z + TAE_CONFIG["shift_factor"]
    np.testing.assert_array_equal(TAEConfig().spec.scale(z), by_hand)
    by_hand = (z - TAE_CONFIG["shift_factor"]) / TAE_CONFIG["scaling_factor"]
    np.testing.assert_array_equal(TAEConfig().spec.unscale(z), by_hand)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [2.0] * 4),
        ({"scaling_factor": None, "shift_factor": None}, [2.0] * 4),
        ({"scaling_factor": 0.7}, [1.4] * 4),
        ({"scaling_factor": 1.5305, "shift_factor": 0.0609}, [1.5305 * (2 - 0.0609)] * 4),
        ({"scaling_factor": 0.7, "invert_scale_latents": True}, [1.4] * 4),
        ({"latents_mean": MEANS, "latents_std": STDS}, [1.5, 1.5, 0.5, 1.9 / 0.3]),
        ({"latents_mean": MEANS, "latents_std": STDS, "scaling_factor": 2}, [3, 3, 1, 3.8 / 0.3]),
    ],
)
def test_scaling_by_the_rule_of_diffusers(config, expected):
    spec = LatentSpec(4, 1, 8, 8, **diffusers_scaling(config))
    scaled = spec.scale(np.full((4, 1, 1, 1), 2.0, np.float32))
    np.testing.assert_allclose(scaled.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scaling_factor": "much"}, "scaling_factor='much'; expected a finite number"),
        ({"shift_factor": math.nan}, "shift_factor=nan"),
        ({"scaling_factor": 10**400}, "scaling_factor=1000"),
        ({"latents_mean": [0.0], "latents_std": [0.0]}, r"latents_std=\[0.0\]; .* deviation of 0"),
        ({"latents_mean": [0.0, 1.0], "latents_std": [1.0]}, "one finite number per channel"),
        ({"latents_mean": 1.0, "latents_std": [1.0]}, "latents_mean=1.0"),
    ],
)
def test_wrong_scaling_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        diffusers_scaling(config)


@pytest.mark.parametrize("name", SPECS)
def test_json_gives_the_same_spec_back(name):
    text = json.dumps(SPECS[name].to_dict())
    assert LatentSpec.from_mapping(json.loads(text)) == SPECS[name]


GOOD = {"channels": 4, "t": 4, "h": 8, "w": 8}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"expected an object, got \[\]"),
        ({}, "channels, t, h, w must be given"),
        ({**GOOD, "chunks": 17}, "unknown field 'chunks' in a latent spec; did you mean 'chunk'"),
        ({**GOOD, "channels": 0}, "channels=0; expected a whole number of 1 or more"),
        ({**GOOD, "t": 4.0}, "t=4.0"),
        ({**GOOD, "h": "8"}, "h='8'"),
        ({**GOOD, "w": True}, "w=True"),
        ({**GOOD, "head": 2}, "head=2; expected 0, or 1"),
        ({**GOOD, "step": 6}, "step=6; expected 1 or a multiple of t=4"),
        ({**GOOD, "chunk": 0}, "chunk=0"),
        ({**GOOD, "chunk": 17, "head": 1}, "leave head and step away"),
        ({**GOOD, "factor": 0}, "factor=0 would erase the latent"),
        ({**GOOD, "factor": [1, 1, 0, 1]}, "factor=0 would erase the latent"),
        ({**GOOD, "factor": [1.0] * 3}, "factor has 3 values; .* each of the 4 channels"),
        ({**GOOD, "factor": math.inf}, "factor=inf; expected a finite number"),
        ({**GOOD, "factor": True}, "factor=True"),
        ({**GOOD, "offset": [0.0, 1.0, 2.0, "3"]}, "offset="),
        ({**GOOD, "offset": None}, "offset=None"),
    ],
)
def test_a_wrong_spec_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        LatentSpec.from_mapping(given)


def test_needs_no_mindspore():
    code = "import sys, mg.latent_spec; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
