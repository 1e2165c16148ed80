"""Every layer of the TAE, values and gradients, against a plain numpy computation in float64.

The computations here take video (B, C, T, H, W) as it is, without folding, frame by frame and tap
by tap. A gradient is compared with the numeric derivative of that computation along random
directions, one for the input and one for each parameter.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models.layers import convolution, normalisation, time_resampling
from mg.models.layers.cpu.normalisation import NormaliseWithStatistics
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.tae import layers
from mg.models.tae.tae import TemporalAutoencoder

RNG = np.random.default_rng(0)
TOLERANCE = 1e-5  # of the largest value, in fp32
GROUPS = 8  # of every normalisation here


# -- the layers in numpy: x (B, C, T, H, W), w the parameters by name, p the prefix of the layer --


def conv2d(x, w, p, padding=((1, 1), (1, 1)), stride=1):
    weight = w[f"{p}weight"]
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), *padding))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(3, 4))
    windows = windows[:, :, :, ::stride, ::stride]  # (B, C, T, H', W', k, k)
    y = np.tensordot(windows, weight, ((1, 5, 6), (1, 2, 3)))  # (B, T, H', W', Cout)
    return np.moveaxis(y, -1, 1) + w[f"{p}bias"].reshape(-1, 1, 1, 1)


def conv_in_time(x, w, p, stride=1):
    """x is padded already."""
    weight = w[f"{p}weight"]  # (Cout, Cin, 1, k)
    size = weight.shape[3]
    frames = [
        sum(np.tensordot(weight[:, :, 0, k], x[:, :, i + k], (1, 1)) for k in range(size))
        for i in range(0, x.shape[2] - size + 1, stride)
    ]
    return np.stack(frames, 2).swapaxes(0, 1) + w[f"{p}bias"].reshape(-1, 1, 1, 1)


def pad_time(x, before, after, mode="edge"):
    return np.pad(x, ((0, 0), (0, 0), (before, after), (0, 0), (0, 0)), mode=mode)


def conv2_5d(x, w, p=""):
    if w[f"{p}conv_spat.weight"].shape[-1] == 1:
        return conv_in_time(conv2d(x, w, f"{p}conv_spat.", ((0, 0),) * 2), w, f"{p}conv_temp.")
    return conv_in_time(pad_time(conv2d(x, w, f"{p}conv_spat."), 1, 1), w, f"{p}conv_temp.")


def group_norm(x, w, p=""):
    groups = x.reshape(x.shape[0], GROUPS, -1)
    groups = groups - groups.mean(-1, keepdims=True)
    y = groups / np.sqrt((groups**2).mean(-1, keepdims=True) + 1e-6)
    scale, shift = (w[f"{p}{name}"].reshape(-1, 1, 1, 1) for name in ("gamma", "beta"))
    return y.reshape(x.shape) * scale + shift


def silu(x):
    return x / (1 + np.exp(-x))


def resnet_block(x, w, p=""):
    h = conv2_5d(silu(group_norm(x, w, f"{p}norm1.")), w, f"{p}conv1.")
    h = conv2_5d(silu(group_norm(h, w, f"{p}norm2.")), w, f"{p}conv2.")
    has_shortcut = f"{p}nin_shortcut.conv_spat.weight" in w
    return h + (conv2_5d(x, w, f"{p}nin_shortcut.") if has_shortcut else x)


def attend(q, k, v):
    """(..., L, C), (..., L, C), (..., L, C) -> (..., L, C)."""
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def attention(x, w, p, names, tokens_of, back):
    h = tokens_of(group_norm(x, w, f"{p}norm."))
    q, k, v = (dense(h, w, f"{p}{name}.") for name in names)
    return x + back(dense(attend(q, k, v), w, f"{p}proj_out."))


def dense(h, w, p):
    weight = w[f"{p}weight"]
    return h @ weight.reshape(weight.shape[:2]).T + w[f"{p}bias"]


def spatial_attention(x, w, p=""):
    return attention(
        x,
        w,
        p,
        ("q", "k", "v"),
        lambda h: h.reshape(*h.shape[:3], -1).transpose(0, 2, 3, 1),  # (B, T, H*W, C)
        lambda h: h.transpose(0, 3, 1, 2).reshape(x.shape),
    )


def temporal_attention(x, w, p=""):
    return attention(
        x,
        w,
        p,
        ("to_q", "to_k", "to_v"),
        lambda h: h.transpose(0, 3, 4, 2, 1),  # (B, H, W, T, C)
        lambda h: h.transpose(0, 4, 3, 1, 2),
    )


def spatial_down(x, w, p=""):
    return conv2d(x, w, f"{p}conv.", ((0, 1), (0, 1)), stride=2)


def spatial_up(x, w, p=""):
    return conv2d(x.repeat(2, 3).repeat(2, 4), w, f"{p}conv.")


def temporal_down(x, w, p=""):
    x = pad_time(x, 1, 1)
    return conv_in_time(x, w, f"{p}conv.", stride=2)[:, :, : -(-x.shape[2] // 2) - 1]


def temporal_up(padding):
    def compute(x, w, p=""):
        mode = "constant" if padding == "published" else "edge"
        return conv_in_time(pad_time(x.repeat(2, 2), 1, 1, mode), w, f"{p}conv.")

    return compute


# -- the comparison ------------------------------------------------------------------------------


def randomise(cell):
    """Give every parameter random values; centric kernels and zero biases would hide mistakes."""
    for name, parameter in cell.parameters_and_names():
        fan_in = max(int(np.prod(parameter.shape[1:])), 1)
        value = RNG.standard_normal(parameter.shape) / np.sqrt(fan_in)
        if name.endswith("gamma"):
            value = 1 + 0.2 * value
        parameter.set_data(Tensor(value.astype(np.float32)))
    return cell


def weights_of(cell):
    return {name: p.asnumpy().astype(np.float64) for name, p in cell.parameters_and_names()}


def assert_close(actual, expected, tolerance=TOLERANCE):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def check(cell, reference, x, takes_frames=True, tolerance=TOLERANCE):
    """Compare the cell's values and gradients on a video x (B, C, T, H, W) with the reference's."""
    x = x.astype(np.float32)
    expected = reference(x.astype(np.float64), weights_of(cell))
    cotangent = RNG.standard_normal(expected.shape).astype(np.float32)
    num_frames = (x.shape[2],) if takes_frames else ()

    def projected(video):
        y = cell(fold_frames(video), *num_frames)
        y = unfold_frames(y, expected.shape[2])
        return (y * Tensor(cotangent)).sum(), y

    parameters = cell.trainable_params()
    (_, y), (x_gradient, gradients) = ms.value_and_grad(projected, 0, parameters, has_aux=True)(
        Tensor(x)
    )
    assert_close(y.asnumpy(), expected, tolerance)

    def derivative(name, direction, step=1e-5):
        """Along a direction in one parameter, or in the input (name "x")."""
        sides = []
        for sign in (1, -1):
            w = {"x": x.astype(np.float64), **weights_of(cell)}
            w[name] = w[name] + sign * step * direction
            sides.append((reference(w["x"], w) * cotangent).sum())
        return (sides[0] - sides[1]) / (2 * step)

    found = {"x": x_gradient, **dict(zip((p.name for p in parameters), gradients, strict=True))}
    found = {name: gradient.asnumpy().astype(np.float64) for name, gradient in found.items()}
    # Some gradients are sums that cancel to exactly zero; their rounding has the others' size.
    floor = 0.1 * max(np.linalg.norm(gradient) for gradient in found.values())
    for name, gradient in found.items():
        direction = RNG.standard_normal(gradient.shape)
        scale = np.linalg.norm(gradient) + floor
        error = abs((gradient * direction).sum() - derivative(name, direction))
        assert error <= tolerance * scale, f"gradient of {name}: off by {error / scale:.1e}"


def video(batch, channels, frames, height=5, width=6):
    return RNG.standard_normal((batch, channels, frames, height, width))


SIZES = [(1, 1), (2, 1), (1, 2), (2, 3), (2, 4)]  # batch, frames
every_size = pytest.mark.parametrize(("batch", "frames"), SIZES)
both_paddings = pytest.mark.parametrize("padding", ["published", "replicate"])
pytestmark = pytest.mark.usefixtures("pynative_mode")


@every_size
def test_fold_and_unfold_are_inverse(batch, frames):
    x = video(batch, 3, frames).astype(np.float32)
    folded = fold_frames(Tensor(x))
    expected = np.stack([x[b, :, t] for b in range(batch) for t in range(frames)])
    np.testing.assert_array_equal(folded.asnumpy(), expected)
    np.testing.assert_array_equal(unfold_frames(folded, frames).asnumpy(), x)


@pytest.mark.parametrize("channels", [(3, 8), (8, 8)])
@pytest.mark.parametrize("kernel_size", [1, 3])
@every_size
def test_conv2_5d(channels, kernel_size, batch, frames):
    cell = randomise(convolution.Conv2_5d(*channels, kernel_size=kernel_size))
    check(cell, conv2_5d, video(batch, channels[0], frames))


def test_temporal_kernels_start_centric():
    weight = convolution.Conv2_5d(3, 8).conv_temp.weight.asnumpy()
    expected = np.zeros((8, 8, 1, 3), np.float32)
    expected[:, :, 0, 1] = np.eye(8)
    np.testing.assert_array_equal(weight, expected)
    np.testing.assert_array_equal(convolution.centric_kernel(8, 3), expected)
    for cell in (
        time_resampling.TemporalDownsample(8),
        time_resampling.TemporalUpsample(8, temporal_padding="published"),
    ):
        np.testing.assert_array_equal(cell.conv.weight.asnumpy(), expected)
        assert not cell.conv.bias.asnumpy().any()


@pytest.mark.parametrize("channels", [8, 32, 48])
@every_size
def test_group_norm(channels, batch, frames):
    check(
        randomise(normalisation.GammaGroupNorm(channels, GROUPS)),
        group_norm,
        video(batch, channels, frames),
    )


@every_size
def test_group_norm_per_frame(batch, frames):
    def reference(x, w):
        return np.concatenate([group_norm(x[:, :, [t]], w) for t in range(frames)], axis=2)

    cell = randomise(normalisation.GammaGroupNorm(32, GROUPS, per_frame=True))
    check(cell, reference, video(batch, 32, frames))


@pytest.mark.parametrize(("mean", "std"), [(100, 1), (-3, 0.1), (0, 1e-4), (0, 1e4)])
def test_group_norm_of_unusual_inputs(mean, std):
    cell = randomise(normalisation.GammaGroupNorm(16, GROUPS))
    x = (mean + std * video(2, 16, 3, 16, 16)).astype(np.float32)
    y = unfold_frames(cell(fold_frames(Tensor(x)), 3), 3).asnumpy()
    assert_close(y, group_norm(x.astype(np.float64), weights_of(cell)))


@pytest.mark.parametrize(("mean", "tolerance"), [(3, 1e-5), (30, 1e-4)])
def test_gradients_of_group_norm_far_from_zero(mean, tolerance):
    x = mean + video(2, 16, 3, 16, 16)
    check(randomise(normalisation.GammaGroupNorm(16, GROUPS)), group_norm, x, tolerance=tolerance)


def test_gradients_of_the_statistics_of_group_norm():
    """Second derivatives of the normalisation go through them."""
    normalise = NormaliseWithStatistics(16, GROUPS, 1e-6)
    ones, zeros = ops.ones(16), ops.zeros(16)
    x = RNG.standard_normal((2, 3, 16, 4, 5)).astype(np.float32)
    shapes = (2, 3, 16, 4, 5), (2, 16), (2, 16)
    cotangents = [RNG.standard_normal(shape) for shape in shapes]
    tensors = [Tensor(c.astype(np.float32)) for c in cotangents]

    def projected(x):
        y, mean, inverse_std = normalise(x, ones, zeros)
        return (y * tensors[0]).sum() + (mean * tensors[1] + inverse_std * tensors[2]).sum()

    def reference(x):
        groups = x.reshape(2, 3, GROUPS, -1)
        mean, std = groups.mean((1, 3)), np.sqrt(groups.var((1, 3)) + 1e-6)
        mean, std = mean.repeat(16 // GROUPS, 1), std.repeat(16 // GROUPS, 1)
        y = (x - mean[:, None, :, None, None]) / std[:, None, :, None, None]
        results = y, mean, 1 / std
        return sum((r * c).sum() for r, c in zip(results, cotangents, strict=True))

    found = ms.grad(projected)(Tensor(x)).asnumpy().astype(np.float64)
    for _ in range(3):
        step = 1e-5 * RNG.standard_normal(x.shape)
        expected = reference(x + step) - reference(x - step)
        assert abs(2 * (found * step).sum() - expected) < 1e-5 * np.linalg.norm(step)


def test_group_norm_of_a_constant_is_its_shift():
    cell = randomise(normalisation.GammaGroupNorm(32, GROUPS))
    y = cell(ops.ones((2, 32, 4, 4)) * 7.0, 2).asnumpy()
    expected = np.broadcast_to(cell.beta.asnumpy().reshape(-1, 1, 1), y.shape)
    np.testing.assert_allclose(y, expected, atol=1e-2)  # eps 1e-6 magnifies rounding of the mean


@pytest.mark.parametrize("channels", [(32, 32), (32, 64)])
@every_size
def test_resnet_block(channels, batch, frames):
    cell = randomise(layers.ResnetBlock(*channels, norm_groups=GROUPS))
    assert (cell.nin_shortcut is None) == (channels[0] == channels[1])
    check(cell, resnet_block, video(batch, channels[0], frames, 4, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.ResnetBlock(32, 32, norm_groups=GROUPS),
        lambda: layers.SpatialAttention(32, norm_groups=GROUPS),
        lambda: layers.TemporalAttention(32, norm_groups=GROUPS),
    ],
)
def test_residual_branches_start_at_zero(make):
    x = Tensor(video(2, 32, 3).astype(np.float32))
    folded = fold_frames(x)
    np.testing.assert_array_equal(make()(folded, 3).asnumpy(), folded.asnumpy())


@every_size
def test_spatial_attention(batch, frames):
    cell = randomise(layers.SpatialAttention(32, norm_groups=GROUPS))
    check(cell, spatial_attention, video(batch, 32, frames))


@every_size
def test_temporal_attention(batch, frames):
    cell = randomise(layers.TemporalAttention(32, norm_groups=GROUPS))
    check(cell, temporal_attention, video(batch, 32, frames))


@every_size
def test_spatial_resampling(batch, frames):
    x = video(batch, 8, frames, 6, 4)
    check(randomise(layers.SpatialDownsample(8)), spatial_down, x, takes_frames=False)
    check(randomise(layers.SpatialUpsample(8)), spatial_up, x, takes_frames=False)


@pytest.mark.parametrize(("batch", "frames"), [*SIZES, (1, 5), (2, 6)])
def test_temporal_downsampling(batch, frames):
    cell = randomise(time_resampling.TemporalDownsample(8))
    x = video(batch, 8, frames)
    assert temporal_down(x, weights_of(cell)).shape[2] == (frames + 1) // 2
    check(cell, temporal_down, x)


@both_paddings
@every_size
def test_temporal_upsampling(padding, batch, frames):
    cell = randomise(time_resampling.TemporalUpsample(8, temporal_padding=padding))
    check(cell, temporal_up(padding), video(batch, 8, frames))


# -- the whole network ---------------------------------------------------------------------------


def middle(x, w, p):
    x = spatial_attention(resnet_block(x, w, f"{p}block_1."), w, f"{p}attn_1.0.")
    return resnet_block(temporal_attention(x, w, f"{p}attn_1.1."), w, f"{p}block_2.")


def head(x, w, p):
    return conv2_5d(silu(group_norm(x, w, f"{p}norm_out.")), w, f"{p}conv_out.")


def encoder(x, w):
    x = conv2_5d(x, w, "encoder.conv_in.")
    for level in range(3):
        x = resnet_block(x, w, f"encoder.down.{level}.block.0.")
        if level < 2:
            x = spatial_down(x, w, f"encoder.down.{level}.downsample_spat.")
            x = temporal_down(x, w, f"encoder.down.{level}.downsample_temp.")
    return head(middle(x, w, "encoder.mid."), w, "encoder.")


def decoder(z, w, padding):
    x = middle(conv2_5d(z, w, "decoder.conv_in."), w, "decoder.mid.")
    for level in (2, 1, 0):
        for block in (0, 1):
            x = resnet_block(x, w, f"decoder.up.{level}.block.{block}.")
        if level > 0:
            x = spatial_up(x, w, f"decoder.up.{level}.upsample_spat.")
            x = temporal_up(padding)(x, w, f"decoder.up.{level}.upsample_temp.")
    return head(x, w, "decoder.")


@both_paddings
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 5)])
def test_whole_network(padding, batch, frames):
    config = {
        "ch": 32,
        "norm_groups": GROUPS,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "z_channels": 4,
        "temporal_padding": padding,
        "temporal_downsample_level": [0, 1],
        "temporal_upsample_level": [2, 1],
    }
    tae = randomise(TemporalAutoencoder(config, sample_deterministic=True))
    x, w = video(batch, 3, frames, 8, 12).astype(np.float32), weights_of(tae)
    z, mean, logvar = (part.asnumpy() for part in tae.encode(Tensor(x)))
    moments = encoder(x.astype(np.float64), w)
    assert_close(mean, moments[:, :4])
    assert_close(logvar, moments[:, 4:])  # within [-30, 20]: not clamped
    np.testing.assert_array_equal(z, mean)
    assert_close(tae.decode(Tensor(z)).asnumpy(), decoder(z.astype(np.float64), w, padding))
