"""Layers that several networks share, values and gradients, against plain numpy in float64.

The computations here take clips (B, C, T, H, W) as they are, without folding, tap by tap. A
gradient is compared with the numeric derivative along random directions.
"""

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models import layers
from mg.models.layers import cpu, plain
from mg.models.layers.attention import PixelAttention
from mg.models.layers.convolution3d import CausalConv3d, Conv3d, pad_edges
from mg.models.layers.frames import (
    fold_frames,
    join_frames,
    mix_frames,
    take_frames,
    unfold_frames,
)
from mg.models.layers.normalisation import GroupNorm
from mg.models.layers.resampling import linear_weights, resize_linear

pytestmark = pytest.mark.usefixtures("pynative_mode")

RNG = np.random.default_rng(0)
PADS = {"edges": "edge", "zeros": "constant"}


def clips(*shape):
    return RNG.standard_normal(shape)


def as_tensor(array):
    return Tensor(np.asarray(array, np.float32))


def randomise(cell):
    """Give all parameters random values; return the cell."""
    for parameter in cell.get_parameters():
        parameter.set_data(as_tensor(RNG.standard_normal(parameter.shape)))
    return cell


def conv3d(x, weight, bias, *, strides, time, space):
    """Tap by tap; `time` and `space` are (before, after, what to pad with)."""
    x = np.pad(x, ((0, 0), (0, 0), time[:2], (0, 0), (0, 0)), mode=PADS[time[2]])
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), space[:2], space[:2]), mode=PADS[space[2]])
    sizes = [
        (size - kernel) // stride + 1
        for size, kernel, stride in zip(x.shape[2:], weight.shape[2:], strides, strict=True)
    ]
    y = np.zeros((len(x), len(weight), *sizes)) + bias.reshape(-1, 1, 1, 1)
    for place in itertools.product(*map(range, weight.shape[2:])):
        seen = tuple(
            slice(start, start + stride * (size - 1) + 1, stride)
            for start, stride, size in zip(place, strides, sizes, strict=True)
        )
        tap = np.tensordot(weight[(..., *place)], x[(..., *seen)], (1, 1))
        y += np.moveaxis(tap, 0, 1)
    return y


def check(function, reference, arrays, tolerance=1e-5):
    """Compare values, and the derivative along one direction for each of the arrays."""
    expected = reference(*arrays)
    cotangent = RNG.standard_normal(expected.shape)

    def projected(*tensors):
        y = function(*tensors)
        return (y * as_tensor(cotangent)).sum(), y

    places = tuple(range(len(arrays)))
    with_gradients = ms.value_and_grad(projected, places, has_aux=True)
    (_, y), gradients = with_gradients(*map(as_tensor, arrays))
    assert y.shape == expected.shape
    limit = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(y.asnumpy(), expected, rtol=0, atol=limit)
    for place, gradient in enumerate(gradients if len(places) > 1 else [gradients]):
        step = np.zeros(1) if arrays[place].size == 0 else RNG.standard_normal(arrays[place].shape)
        ends = [
            (reference(*_moved(arrays, place, sign * 1e-4 * step)) * cotangent).sum()
            for sign in (1, -1)
        ]
        found = (gradient.asnumpy().astype(float) * step).sum()
        scale = np.linalg.norm(gradient.asnumpy()) * np.sqrt(step.size)
        assert abs(found - (ends[0] - ends[1]) / 2e-4) < 1e-5 * scale


def _moved(arrays, place, step):
    return [array + step if index == place else array for index, array in enumerate(arrays)]


# What families use: (kernel, stride, time padding, what with, what space is padded with)
CONVOLUTIONS = {
    "causal": ((3, 3), (1, 1), (2, 0), "edges", "zeros"),
    "causal, edges in space": ((3, 3), (1, 1), (2, 0), "edges", "edges"),
    "halves all": ((3, 3), (2, 2), (2, 0), "edges", "edges"),
    "halves space": ((3, 3), (1, 2), (2, 0), "edges", "edges"),
    "zeros": ((3, 3), (2, 1), (2, 0), "zeros", "zeros"),
    "centred": ((3, 3), (1, 1), (1, 1), "zeros", "zeros"),
    "time alone": ((3, 1), (1, 1), (2, 0), "edges", "zeros"),
    "space alone": ((1, 3), (1, 1), (0, 0), "edges", "zeros"),
    "every second frame": ((1, 1), (2, 1), (0, 0), "edges", "zeros"),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 1), (1, 4), (2, 5)])
@pytest.mark.parametrize("device", ["CPU", "Ascend"])
def test_conv3d(case, batch, frames, device):
    kernel, stride, time, with_time, with_space = CONVOLUTIONS[case]
    options = {"time_padding": time, "pad_time_with": with_time, "pad_space_with": with_space}
    with layers.choose(device):
        cell = randomise(Conv3d(3, 4, kernel_size=kernel, stride=stride, **options))
    assert cell.weight.shape == (4, 3, kernel[0], kernel[1], kernel[1])
    pad = kernel[1] // 2

    def function(x, weight):
        y = cell.with_bias(cell.with_weight(fold_frames(x), frames, weight))
        return unfold_frames(y, y.shape[0] // batch)

    def reference(x, weight):
        return conv3d(
            x,
            weight,
            cell.bias.asnumpy().astype(float),
            strides=(stride[0], stride[1], stride[1]),
            time=(*time, with_time),
            space=(pad, pad, with_space),
        )

    arrays = [clips(batch, 3, frames, 6, 5), clips(*cell.weight.shape)]
    check(function, reference, arrays)


@pytest.mark.parametrize(("channels", "groups"), [((4, 4), 4), ((4, 6), 2)])
@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("device", ["CPU", "Ascend"])
def test_groups_are_convolved_by_themselves(channels, groups, frames, device):
    padding = {"time_padding": (1, 1), "pad_time_with": "zeros"}
    with layers.choose(device):
        cell = Conv3d(*channels, kernel_size=3, groups=groups, has_bias=False, **padding)
    around = {"time": (1, 1, "zeros"), "space": (1, 1, "zeros")}

    def function(x, weight):
        return unfold_frames(cell.with_weight(fold_frames(x), frames, weight), frames)

    def reference(x, weight):
        parts = zip(np.split(x, groups, 1), np.split(weight, groups), strict=True)
        results = [conv3d(*part, np.zeros(1), strides=(1, 1, 1), **around) for part in parts]
        return np.concatenate(results, 1)

    check(function, reference, [clips(2, channels[0], frames, 4, 3), clips(*cell.weight.shape)])


@pytest.mark.parametrize("batch", [1, 2])
def test_frames_of_the_past_take_the_place_of_padding(batch):
    conv = randomise(CausalConv3d(3, 4, kernel_size=3, pad_space_with="edges"))
    video = as_tensor(clips(batch, 3, 7, 4, 5))
    whole = unfold_frames(conv(fold_frames(video), 7), 7).asnumpy()
    past = fold_frames(video[:, :, 2:4])
    rest = unfold_frames(conv(fold_frames(video[:, :, 4:]), 3, past), 3).asnumpy()
    np.testing.assert_allclose(rest, whole[:, :, 4:], rtol=0, atol=1e-5)
    one = conv(fold_frames(video[:, :, 4:5]), 1, past)  # a single frame with a past is not an image
    np.testing.assert_allclose(one.asnumpy(), whole[:, :, 4], rtol=0, atol=1e-5)


def test_unknown_paddings_are_refused():
    with pytest.raises(ValueError, match="expected edges or zeros"):
        CausalConv3d(3, 4, kernel_size=3, pad_time_with="replicate")


def test_edges_are_repeated():
    x = clips(2, 3, 4, 5)
    expected = np.pad(x.astype(np.float32), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    np.testing.assert_array_equal(pad_edges(as_tensor(x), 2).asnumpy(), expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_frames_are_taken_mixed_and_joined(batch):
    x = clips(batch, 3, 5, 2, 2).astype(np.float32)
    folded = fold_frames(Tensor(x))
    taken = unfold_frames(take_frames(folded, 5, (0, 4, 4)), 3)
    np.testing.assert_array_equal(taken.asnumpy(), x[:, :, [0, 4, 4]])
    weights = RNG.standard_normal((4, 5)).astype(np.float32)
    mixed = unfold_frames(mix_frames(folded, 5, Tensor(weights)), 4)
    np.testing.assert_allclose(mixed.asnumpy(), np.einsum("st,bcthw->bcshw", weights, x), atol=1e-6)
    joined = join_frames(take_frames(folded, 5, (3, 4)), folded, batch)
    expected = np.concatenate([x[:, :, 3:], x], axis=2)
    np.testing.assert_array_equal(unfold_frames(joined, 7).asnumpy(), expected)


@pytest.mark.parametrize("form", [cpu, plain])
@pytest.mark.parametrize(("size", "factor"), [((4, 5), 2), ((3, 4), 3), ((2, 16), 8)])
def test_nearest_neighbours(form, size, factor):
    resize = form.ResizeNearest()
    x = clips(2, 3, *size)
    expected = lambda x: x.repeat(factor, 2).repeat(factor, 3)  # noqa: E731
    check(lambda x: resize(x, factor), expected, [x])


@pytest.mark.parametrize("form", [cpu, plain])
def test_convolution_of_doubled_pixels(form):
    cell = form.ConvolveDoubled(3, 4)

    def reference(x, weight):
        doubled = x.repeat(2, 2).repeat(2, 3)[:, :, None]
        y = conv3d(
            doubled,
            weight[:, :, None],
            np.zeros(4),
            strides=(1, 1, 1),
            time=(0, 0, "zeros"),
            space=(1, 1, "zeros"),
        )
        return y[:, :, 0]

    check(cell, reference, [clips(2, 3, 4, 5), clips(4, 3, 3, 3)])


def test_linear_weights_are_those_of_points_between_centres():
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_array_equal(linear_weights(2, 2), expected)
    np.testing.assert_array_equal(linear_weights(1, 3), np.ones((3, 1)))
    ramp = linear_weights(5, 3) @ np.arange(5)
    np.testing.assert_allclose(ramp[1:-1], (np.arange(13) + 0.0) / 3, atol=1e-6)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 1, 1)])
def test_linear_resizing(factors):
    x = clips(2, 3, 3, 4, 5)
    maps = [linear_weights(n, k) for n, k in zip(x.shape[2:], factors, strict=True)]

    def function(x):
        return unfold_frames(resize_linear(fold_frames(x), 3, factors), 3 * factors[0])

    check(function, lambda x: np.einsum("it,jh,kw,bcthw->bcijk", *maps, x), [x])


@pytest.mark.parametrize("sees_past", [False, True])
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 1), (2, 3)])
def test_pixel_attention(sees_past, batch, frames):
    cell = randomise(PixelAttention(8, norm_groups=2, sees_past=sees_past))
    w = {name: p.asnumpy().astype(float) for name, p in cell.parameters_and_names()}
    assert "to_out.0.weight" in w and "group_norm.bias" in w

    def reference(x):
        over = frames if sees_past else 1
        groups = np.stack(np.split(x, frames // over, axis=2), 1)  # (B, T/over, C, over, H, W)
        rows = groups.reshape(batch, frames // over, 2, -1)
        rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-6)
        h = np.concatenate(np.moveaxis(rows.reshape(groups.shape), 1, 0), axis=2)
        shape = (-1, 1, 1, 1)
        h = h * w["group_norm.weight"].reshape(shape) + w["group_norm.bias"].reshape(shape)
        tokens = h.reshape(batch, 8, -1).swapaxes(1, 2)  # (B, T*H*W, C)
        q, k, v = (tokens @ w[f"to_{n}.weight"].T + w[f"to_{n}.bias"] for n in "qkv")
        frame = np.arange(tokens.shape[1]) // (x.shape[3] * x.shape[4])
        seen = frame[:, None] >= frame if sees_past else frame[:, None] == frame
        logits = np.where(seen, q @ k.swapaxes(1, 2) / np.sqrt(8), -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        y = weights / weights.sum(-1, keepdims=True) @ v
        y = y @ w["to_out.0.weight"].T + w["to_out.0.bias"]
        return x + y.swapaxes(1, 2).reshape(x.shape)

    def function(x):
        return unfold_frames(cell(fold_frames(x), frames), frames)

    check(function, reference, [clips(batch, 8, frames, 2, 3)], tolerance=1e-4)


@pytest.mark.parametrize("device", ["CPU", "Ascend"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_group_norm(device, per_frame):
    with layers.choose(device):
        cell = randomise(GroupNorm(6, 3, epsilon=1e-3, per_frame=per_frame))
    scale, shift = (p.asnumpy().reshape(-1, 1, 1, 1) for p in (cell.weight, cell.bias))

    def reference(x):
        groups = x.reshape(2, 3, 2, 4, 5, 7)
        axes = (2, 4, 5) if per_frame else (2, 3, 4, 5)
        centred = groups - groups.mean(axes, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-3)
        return y.reshape(x.shape) * scale + shift

    def function(x):
        return unfold_frames(cell(fold_frames(x), 4), 4)

    check(function, reference, [3 + clips(2, 6, 4, 5, 7)], tolerance=1e-5)


def test_zeros_and_ones_start_a_norm():
    cell = GroupNorm(4, 2)
    assert [p.name for p in cell.get_parameters()] == ["weight", "bias"]
    y = cell(ops.ones((2, 4, 3, 3)), 2)
    np.testing.assert_allclose(y.asnumpy(), np.zeros((2, 4, 3, 3)), atol=1e-3)
