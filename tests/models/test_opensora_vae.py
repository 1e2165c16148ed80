"""Open-Sora's temporal VAE, values and gradients, against a plain numpy computation in float64.

The computations here take clips (B, C, T, H, W) as they are, without folding, tap by tap. A
gradient is compared with the numeric derivative of that computation along random directions.
"""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.latent_spec import LatentSpec
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.opensora_vae import chunks, layers
from mg.models.opensora_vae.config import TemporalVAEConfig
from mg.models.opensora_vae.temporal_vae import TemporalVAE
from tests.networks import built_without_values, load_network, network_shapes, network_tensors

MANIFEST = Path(__file__).parents[1] / "fixtures" / "vae_keys" / "opensora-vae-v1.2.json"
TOLERANCE = 1e-5  # of the largest value, in fp32
RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("pynative_mode")

# As small as can be: two levels, 2 times shorter in time.
TINY = TemporalVAEConfig(
    filters=4,
    num_res_blocks=1,
    channel_multipliers=(1, 2),
    temporal_downsample=(True,),
    num_groups=2,
)
# As published, the first level keeps all frames and the next two halve them; different numbers of
# channels everywhere.
FOURFOLD = TemporalVAEConfig(
    in_out_channels=3,
    latent_embed_dim=5,
    embed_dim=2,
    filters=4,
    num_res_blocks=2,
    channel_multipliers=(1, 2, 2, 3),
    temporal_downsample=(False, True, True),
    num_groups=2,
)


# -- the layers in numpy: x (B, C, T, H, W), w the tensors by official name, p the layer's prefix --


def causal_conv(x, w, p, stride=1):
    weight = w[f"{p}.conv.weight"]  # (Cout, Cin, k, k, k)
    k = weight.shape[2]
    side = (k // 2, k // 2)
    x = np.pad(x, ((0, 0), (0, 0), (k - stride if k > 1 else 0, 0), side, side))
    shape = [size - k + 1 for size in x.shape[2:]]
    y = 0.0
    for t, i, j in np.ndindex(k, k, k):
        window = x[:, :, t : t + shape[0], i : i + shape[1], j : j + shape[2]]
        y = y + np.moveaxis(np.tensordot(weight[:, :, t, i, j], window, (1, 1)), 0, 1)
    bias = w.get(f"{p}.conv.bias")
    y = y if bias is None else y + bias.reshape(-1, 1, 1, 1)
    return y[:, :, ::stride]


def group_norm(x, w, p, groups):
    values = x.reshape(x.shape[0], groups, -1)
    values = values - values.mean(-1, keepdims=True)
    y = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5)
    scale, shift = (w[f"{p}.{name}"].reshape(-1, 1, 1, 1) for name in ("weight", "bias"))
    return y.reshape(x.shape) * scale + shift


def silu(x):
    return x / (1 + np.exp(-x))


def res_block(x, w, p, groups):
    h = causal_conv(silu(group_norm(x, w, f"{p}.norm1", groups)), w, f"{p}.conv1")
    h = causal_conv(silu(group_norm(h, w, f"{p}.norm2", groups)), w, f"{p}.conv2")
    return h + (causal_conv(x, w, f"{p}.conv3") if f"{p}.conv3.conv.weight" in w else x)


def depth_to_time(x):
    batch, channels, frames, height, width = x.shape
    y = np.empty((batch, channels // 2, 2 * frames, height, width), x.dtype)
    for channel, phase, frame in np.ndindex(channels // 2, 2, frames):
        y[:, channel, 2 * frame + phase] = x[:, 2 * channel + phase, frame]
    return y


def encode(clip, w, config):
    """Return the moments (B, 2 * embed_dim, T', H, W)."""
    groups, blocks = config.num_groups, range(config.num_res_blocks)
    missing = -clip.shape[2] % config.temporal_compression
    x = np.pad(clip, ((0, 0), (0, 0), (missing, 0), (0, 0), (0, 0)))
    x = causal_conv(x, w, "encoder.conv_in")
    for level, halves in enumerate((*config.temporal_downsample, False)):
        for i in blocks:
            x = res_block(x, w, f"encoder.block_res_blocks.{level}.{i}", groups)
        if halves:
            x = causal_conv(x, w, f"encoder.conv_blocks.{level}", stride=2)
    for i in blocks:
        x = res_block(x, w, f"encoder.res_blocks.{i}", groups)
    x = causal_conv(silu(group_norm(x, w, "encoder.norm1", groups)), w, "encoder.conv2")
    return causal_conv(x, w, "quant_conv")


def decode(latent, w, config, num_frames):
    groups, blocks = config.num_groups, range(config.num_res_blocks)
    x = causal_conv(latent, w, "post_quant_conv")
    x = causal_conv(x, w, "decoder.conv1")
    for i in blocks:
        x = res_block(x, w, f"decoder.res_blocks.{i}", groups)
    for level in reversed(range(config.num_levels)):
        for i in blocks:
            x = res_block(x, w, f"decoder.block_res_blocks.{level}.{i}", groups)
        if level > 0 and config.temporal_downsample[level - 1]:
            x = depth_to_time(causal_conv(x, w, f"decoder.conv_blocks.{level - 1}"))
    x = causal_conv(silu(group_norm(x, w, "decoder.norm1", groups)), w, "decoder.conv_out")
    return x[:, :, x.shape[2] - num_frames :]


def reconstruct(clip, w, config):
    mean = encode(clip, w, config)[:, : config.embed_dim]
    return decode(mean, w, config, clip.shape[2])


# -- the comparison ------------------------------------------------------------------------------


def randomise(cell):
    for name, parameter in cell.parameters_and_names():
        fan_in = max(int(np.prod(parameter.shape[1:])), 1)
        value = RNG.standard_normal(parameter.shape) / np.sqrt(fan_in)
        value = 1 + 0.2 * value if _scales(name) else value
        parameter.set_data(Tensor(value.astype(np.float32)))
    return cell


def _scales(name):
    return "norm" in name and name.endswith("weight")


def weights_of(cell):
    return {
        name: parameter.asnumpy().astype(np.float64)
        for name, parameter in cell.parameters_and_names()
    }


def assert_close(actual, expected, tolerance=TOLERANCE):
    assert actual.shape == expected.shape and np.abs(expected).max() > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def check(function, cell, reference, x):
    """Compare values and gradients of `function`, which uses the cell, with the reference's.

    Args:
        function: Tensor (B, C, T, H, W) -> Tensor.
        cell: the cell whose parameters count.
        reference: (array, weights by official name) -> array.
        x: (B, C, T, H, W).
    """
    x = x.astype(np.float32)
    expected = reference(x.astype(np.float64), weights_of(cell))
    cotangent = RNG.standard_normal(expected.shape).astype(np.float32)

    def projected(clip):
        y = function(clip)
        return (y * Tensor(cotangent)).sum(), y

    named = dict(cell.parameters_and_names())
    step = ms.value_and_grad(projected, 0, list(named.values()), has_aux=True)
    (_, y), (x_gradient, gradients) = step(Tensor(x))
    assert_close(y.asnumpy(), expected)

    found = {"x": x_gradient, **dict(zip(named, gradients, strict=True))}
    found = {name: gradient.asnumpy().astype(np.float64) for name, gradient in found.items()}
    # Some gradients are sums that cancel to exactly zero; their rounding has the others' size.
    floor = 0.1 * max(np.linalg.norm(gradient) for gradient in found.values())
    for name, gradient in found.items():
        direction = RNG.standard_normal(gradient.shape)
        sides = []
        for moved in (1e-5 * direction, -1e-5 * direction):
            w = {"x": x.astype(np.float64), **weights_of(cell)}
            w[name] = w[name] + moved
            sides.append((reference(w["x"], w) * cotangent).sum())
        error = abs((gradient * direction).sum() - (sides[0] - sides[1]) / 2e-5)
        scale = np.linalg.norm(gradient) + floor
        assert error <= TOLERANCE * scale, f"gradient of {name}: off by {error / scale:.1e}"


class Holder(nn.Cell):
    """A cell under the name `layer`, called on clips instead of folded frames."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, clip):
        y = self.layer(fold_frames(clip), clip.shape[2])
        return unfold_frames(y, y.shape[0] // clip.shape[0])


def clip_of(*shape):
    return RNG.standard_normal(shape)


# -- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "has_bias"), [(3, True), (3, False), (1, True)])
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 1), (2, 2), (2, 5)])
def test_causal_conv(kernel, has_bias, batch, frames):
    cell = Holder(layers.CausalConv3d(3, 4, kernel_size=kernel, has_bias=has_bias))
    names = {"layer.conv.weight", "layer.conv.bias"} if has_bias else {"layer.conv.weight"}
    assert weights_of(randomise(cell)).keys() == names
    check(cell, cell, lambda x, w: causal_conv(x, w, "layer"), clip_of(batch, 3, frames, 4, 3))


@pytest.mark.parametrize(("batch", "frames"), [(1, 2), (2, 2), (2, 6)])
def test_causal_conv_at_stride_2(batch, frames):
    cell = randomise(Holder(layers.CausalConv3d(3, 4, stride=2)))
    x = clip_of(batch, 3, frames, 4, 3)
    assert causal_conv(x, weights_of(cell), "layer", 2).shape[2] == frames // 2
    check(cell, cell, lambda x, w: causal_conv(x, w, "layer", 2), x)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_frame_does_not_see_later_frames(stride):
    cell = randomise(Holder(layers.CausalConv3d(2, 2, stride=stride)))
    x = clip_of(1, 2, 8, 3, 3).astype(np.float32)
    before = cell(Tensor(x)).asnumpy()
    x[:, :, 4:] += 1
    changed = np.abs(cell(Tensor(x)).asnumpy() - before).max((0, 1, 3, 4)) > 0
    np.testing.assert_array_equal(changed, np.arange(len(changed)) * stride + stride - 1 >= 4)


@pytest.mark.parametrize("channels", [(8, 8), (8, 12)])
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 3)])
def test_res_block(channels, batch, frames):
    cell = randomise(Holder(layers.ResBlock(*channels, TINY)))
    assert ("layer.conv3.conv.weight" in weights_of(cell)) == (channels[0] != channels[1])
    check(
        cell,
        cell,
        lambda x, w: res_block(x, w, "layer", TINY.num_groups),
        clip_of(batch, channels[0], frames, 3, 4),
    )


def test_norm_has_the_epsilon_of_the_published_weights():
    cell = randomise(Holder(layers.make_norm(8, TINY)))
    x = 1e-3 * clip_of(2, 8, 3, 3, 4)  # its variance, 1e-6, is smaller than epsilon
    expected = group_norm(x, weights_of(cell), "layer", TINY.num_groups)
    assert_close(cell(Tensor(x.astype(np.float32))).asnumpy(), expected)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 3)])
def test_double_time(batch, frames):
    x = clip_of(batch, 6, frames, 2, 3).astype(np.float32)
    y = unfold_frames(layers.double_time(fold_frames(Tensor(x))), 2 * frames)
    np.testing.assert_array_equal(y.asnumpy(), depth_to_time(x))


# -- the whole network ---------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 3])
def test_values_and_gradients_of_a_reconstruction(frames):
    vae = randomise(TemporalVAE(TINY))
    check(vae, vae, lambda x, w: reconstruct(x, w, TINY), clip_of(2, 4, frames, 3, 4))


@pytest.mark.parametrize("frames", [1, 3, 4, 5])
def test_moments_and_frames_at_fourfold_compression(frames):
    vae = randomise(TemporalVAE(FOURFOLD))
    weights = weights_of(vae)
    clip = clip_of(2, 3, frames, 3, 4)
    mean, logvar = vae.moments(Tensor(clip.astype(np.float32)))
    expected = encode(clip, weights, FOURFOLD)
    assert mean.shape == (2, 2, -(-frames // 4), 3, 4)
    assert_close(mean.asnumpy(), expected[:, :2])
    assert_close(logvar.asnumpy(), expected[:, 2:])
    latent = clip_of(*mean.shape)
    actual = vae.frames_from(Tensor(latent.astype(np.float32)), frames)
    assert actual.shape == clip.shape
    assert_close(actual.asnumpy(), decode(latent, weights, FOURFOLD, frames))


def test_logvar_is_clamped():
    vae = TemporalVAE(TINY)
    tensors = network_tensors(vae)
    tensors["quant_conv.conv.bias"] = np.array([0, 0, 0, 0, 99, -99, 1, 2], np.float32)
    tensors["quant_conv.conv.weight"][:] = 0
    load_network(vae, tensors)
    _, logvar = vae.moments(Tensor(np.zeros((1, 4, 1, 2, 2), np.float32)))
    np.testing.assert_array_equal(logvar.asnumpy()[0, :, 0, 0, 0], [20, -30, 1, 2])


def test_graph_mode_gives_the_same():
    vae = randomise(TemporalVAE(TINY))
    clip = Tensor(clip_of(2, 4, 3, 3, 4).astype(np.float32))
    named = dict(vae.parameters_and_names())

    def loss(clip):
        frames = vae(clip)
        return (frames**2).sum(), frames

    results = []
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        step = ms.value_and_grad(loss, None, list(named.values()), has_aux=True)
        (_, frames), gradients = step(clip)
        results.append([frames.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    assert dict(vae.parameters_and_names()).keys() == named.keys()
    largest = max(np.abs(gradient).max() for gradient in results[0][1:])
    assert_close(results[1][0], results[0][0])
    for name, one, other in zip(named, results[0][1:], results[1][1:], strict=True):
        limit = 1e-5 * max(np.abs(one).max(), 0.01 * largest)
        np.testing.assert_allclose(other, one, rtol=0, atol=limit, err_msg=name)


# -- names, shapes, chunks, faults ---------------------------------------------------------------


def test_full_size_names_and_shapes_are_those_of_the_published_weights():
    manifest = json.loads(MANIFEST.read_text())
    prefix = "temporal_vae."
    published = {
        name.removeprefix(prefix): tuple(shape)
        for name, (shape, _) in manifest.items()
        if name.startswith(prefix)
    }
    assert len(published) == 267
    network = built_without_values(lambda: TemporalVAE(TemporalVAEConfig()))
    assert network_shapes(network) == published


# frames -> lengths of the chunks, of their latents
CHUNKS = {
    1: ([1], [1]),
    4: ([4], [1]),
    16: ([16], [4]),
    17: ([17], [5]),
    18: ([17, 1], [5, 1]),
    34: ([17, 17], [5, 5]),
    51: ([17, 17, 17], [5, 5, 5]),
    52: ([17, 17, 17, 1], [5, 5, 5, 1]),
}


@pytest.mark.parametrize("frames", CHUNKS)
def test_chunks_of_17_frames(frames):
    lengths, latents = CHUNKS[frames]
    assert chunks.chunk_lengths(frames, 17) == lengths
    assert chunks.latent_lengths(lengths, 4) == latents
    assert LatentSpec(4, 4, 8, 8, chunk=17).latent_frames(frames) == sum(latents)
    assert chunks.num_padding_frames(frames, 4) == {0: 0, 1: 3, 2: 2, 3: 1}[frames % 4]


def test_one_chunk_without_a_size():
    assert chunks.chunk_lengths(50, None) == [50]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": 100}, "multiples of num_groups=32"),
        ({"filters": 0}, "filters=0; expected a whole number of 1 or more"),
        ({"channel_multipliers": []}, "channel_multipliers is empty"),
        ({"channel_multipliers": 4}, "expected a list"),
        ({"temporal_downsample": [True]}, "there are 3 places"),
        ({"temporal_downsample": [1, 1, 0]}, "temporal_downsample"),
        ({"activation_fn": "relu"}, "'swish'"),
        ({"num_group": 32}, "did you mean 'num_groups'"),
    ],
)
def test_a_wrong_config_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TemporalVAEConfig.from_mapping(changes)
