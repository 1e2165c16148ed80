"""The transformer, values and gradients, against a plain numpy computation in float64.

The computation here goes clip by clip, without padding: masked text tokens are left out. Gradients
are compared with the numeric derivative of that computation along random directions, one for the
latent, one for the text and one for each parameter.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.models.denoiser_config import TextInput
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.transformer import MovieGenTransformer

VALUE_TOLERANCE = 1e-5  # of the largest value, in fp32
GRADIENT_TOLERANCE = 1e-4  # of the norm of a parameter's gradient
CONFIG = MovieGenConfig(
    num_layers=2,
    dim=32,
    ffn_dim=48,
    num_heads=2,
    latent_channels=3,
    position_table=(5, 6, 5),
    text_encoders=(TextInput("first", 6, 5), TextInput("second", 10, 4)),
    timestep_width=8,
)
VARIANTS = {
    "paper": {},
    "options": {"qk_norm": True, "rope": True, "patch_size": (2, 1, 2)},
}


def random_weights(config, seed=0):
    """Return values for all parameters, none of them at its start, as float64."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, parameter in MovieGenTransformer(config).parameters_and_names():
        value = rng.standard_normal(parameter.shape) / np.sqrt(parameter.shape[-1])
        if name.endswith(("norm.weight", "gamma")):
            value = 1 + value
        elif name.startswith("positions"):
            value = 3 * value
        weights[name] = value.astype(np.float32).astype(np.float64)
    return weights


def random_inputs(config, seed=1):
    """Return latent, t and text: a full caption, one with gaps, one without any valid token."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((3, config.latent_channels, 4, 6, 8)).astype(np.float32)
    inputs = [latent, np.array([0.0, 0.3, 1.0], np.float32)]
    for encoder in config.text_encoders:
        shape = (3, encoder.max_tokens, encoder.width)
        mask = np.ones(shape[:2], bool)
        mask[1, [0, -1]] = False
        mask[2] = False
        inputs += [rng.standard_normal(shape).astype(np.float32), mask]
    return inputs


def silu(x):
    return x / (1 + np.exp(-x))


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def layer_norm(x, gamma, beta):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def rotate(x, places):
    """x (L, d) as pairs, each a complex number, turned by the angles of places (L, 3)."""
    pairs = x[:, ::2] + 1j * x[:, 1::2]
    third = pairs.shape[1] // 3
    shares = (pairs.shape[1] - 2 * third, third, third)
    angles = np.concatenate(
        [places[:, a, None] / 10000 ** (np.arange(n) / n) for a, n in enumerate(shares)], axis=1
    )
    pairs = pairs * np.exp(1j * angles)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def attention(x, context, w, p, config, places=None):
    if len(context) == 0:
        return np.zeros_like(x)
    q, k, v = (
        tokens @ w[f"{p}.{name}.weight"].T
        for tokens, name in ((x, "query"), (context, "key"), (context, "value"))
    )
    mixed = np.zeros_like(x)
    for head in range(config.num_heads):
        part = slice(head * config.head_dim, (head + 1) * config.head_dim)
        qh, kh = q[:, part], k[:, part]
        if config.qk_norm:
            qh = rms_norm(qh, w[f"{p}.query_norm.weight"])
            kh = rms_norm(kh, w[f"{p}.key_norm.weight"])
        if config.rope and places is not None:
            qh, kh = rotate(qh, places), rotate(kh, places)
        weights = np.exp(qh @ kh.T / np.sqrt(config.head_dim))
        mixed[:, part] = weights / weights.sum(1, keepdims=True) @ v[:, part]
    return mixed @ w[f"{p}.output.weight"].T


def block(x, time, text, w, p, config, places):
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = time.reshape(6, -1) + w[f"{p}.modulation"]
    h = rms_norm(x, w[f"{p}.self_norm.norm.weight"]) * (1 + scale_1) + shift_1
    x = x + gate_1 * attention(h, h, w, f"{p}.self_attention", config, places)
    h = rms_norm(x, w[f"{p}.cross_norm.weight"])
    x = x + attention(h, text, w, f"{p}.cross_attention", config)
    h = rms_norm(x, w[f"{p}.ffn_norm.norm.weight"]) * (1 + scale_2) + shift_2
    h = silu(h @ w[f"{p}.ffn.gate.weight"].T) * (h @ w[f"{p}.ffn.up.weight"].T)
    return x + gate_2 * (h @ w[f"{p}.ffn.down.weight"].T)


def velocity_of_clip(latent, t, text, w, config):
    """latent (C, T, H, W), t a number, text a list of unmasked tokens (L, width)."""
    grid = [size // patch for size, patch in zip(latent.shape[1:], config.patch_size, strict=True)]
    places = np.array(list(np.ndindex(*grid)))  # width fastest
    starts = places * config.patch_size
    stops = starts + config.patch_size
    spans = [
        (slice(None), *map(slice, start, stop)) for start, stop in zip(starts, stops, strict=True)
    ]
    x = np.stack([latent[span].reshape(-1) for span in spans]) @ w["patch_embedding.weight"].T
    tables = [w[f"positions.{axis}"] for axis in ("frames", "height", "width")]
    positions = sum(table[places[:, axis]] for axis, table in enumerate(tables))
    tokens = []
    for number, values in enumerate(text):
        p = f"text_inputs.inputs.{number}"
        h = values @ w[f"{p}.linear.weight"].T
        tokens.append(layer_norm(h, w[f"{p}.norm.gamma"], w[f"{p}.norm.beta"]))
    half = config.timestep_width // 2
    angles = 1000 * t / 10000 ** (np.arange(half) / half)
    time = np.concatenate([np.cos(angles), np.sin(angles)])
    for name in ("first", "second"):
        time = silu(w[f"time_embedding.{name}.weight"] @ time)
    for number in range(config.num_layers):
        modulation = w["time_modulation.weight"] @ time
        p = f"blocks.{number}"
        x = block(x + positions, modulation, np.concatenate(tokens), w, p, config, places)
    shift, scale = (w["final_modulation.weight"] @ time).reshape(2, -1)
    x = rms_norm(x, w["final_norm.norm.weight"]) * (1 + scale) + shift
    y = np.zeros_like(latent)
    for span, values in zip(spans, x @ w["final_linear.weight"].T, strict=True):
        y[span] = values.reshape(y[span].shape)
    return y


def velocity(inputs, w, config):
    latent, t, *text = (value.astype(np.float64) for value in inputs)
    clips = []
    for clip in range(len(latent)):
        valid = [
            values[clip][mask[clip] > 0] for values, mask in zip(text[::2], text[1::2], strict=True)
        ]
        clips.append(velocity_of_clip(latent[clip], t[clip], valid, w, config))
    return np.stack(clips)


class Product(nn.Cell):
    """The scalar product of the velocity with a given tensor, to be differentiated."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, with_what, *inputs):
        return (self.network(*inputs) * with_what).sum()


@pytest.fixture(scope="module", params=VARIANTS)
def case(request):
    """Return the config, weights and inputs of a variant."""
    config = MovieGenConfig.from_mapping({**CONFIG.to_dict(), **VARIANTS[request.param]})
    return config, random_weights(config), random_inputs(config)


def loaded(config, weights, **options):
    network = MovieGenTransformer(config, **options)
    network.load_tensors(weights)
    return network


def gradients(network, with_what, inputs):
    """Return the gradients by latent and embeddings, and by parameter."""
    positions = (1, *range(3, len(inputs) + 1, 2))  # of what is not a mask nor t
    by = ms.grad(Product(network), positions, weights=network.trainable_params())
    tensors = [Tensor(value) for value in (with_what, *inputs)]
    by_input, by_weight = by(*tensors)
    names = [name for name, _ in network.parameters_and_names()]
    return [g.asnumpy() for g in by_input], {
        name: g.asnumpy() for name, g in zip(names, by_weight, strict=True)
    }


def test_velocity_equals_numpy(case, pynative_mode):
    config, weights, inputs = case
    found = loaded(config, weights)(*map(Tensor, inputs)).asnumpy()
    expected = velocity(inputs, weights, config)
    assert found.shape == inputs[0].shape and found.dtype == np.float32
    assert np.abs(found - expected).max() < VALUE_TOLERANCE * np.abs(expected).max()


def test_gradients_equal_numeric_derivatives(case, pynative_mode):
    config, weights, inputs = case
    rng = np.random.default_rng(2)
    with_what = rng.standard_normal(inputs[0].shape).astype(np.float32)
    by_input, by_weight = gradients(loaded(config, weights), with_what, inputs)

    def check(name, gradient, move):
        """Compare along a random direction; `move(value)` returns the inputs and weights then."""
        start = weights[name] if isinstance(name, str) else inputs[name].astype(np.float64)
        direction = rng.standard_normal(start.shape)
        ahead, behind = (
            (velocity(*move(start + step * direction), config) * with_what).sum()
            for step in (1e-5, -1e-5)
        )
        error = (gradient * direction).sum() - (ahead - behind) / 2e-5
        norm = np.linalg.norm(gradient)  # the size that the derivative has along most directions
        assert norm > 0 and abs(error) < GRADIENT_TOLERANCE * norm, (name, error, norm)

    for name, gradient in by_weight.items():
        check(name, gradient, lambda value, name=name: (inputs, {**weights, name: value}))
    for number, gradient in zip((0, *range(2, len(inputs), 2)), by_input, strict=True):
        check(
            number,
            gradient,
            lambda value, n=number: ([*inputs[:n], value, *inputs[n + 1 :]], weights),
        )
