"""The forms of layers for CPU give what MindSpore's plain ones do."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models import layers
from mg.models.layers import cpu, plain
from mg.models.layers.convolution import Conv2d
from mg.models.layers.cpu.convolution import ChannelBias, DenseConv2d, DepthwiseConv2d

both_forms = pytest.mark.parametrize("form", [cpu, plain])
both_modes = pytest.mark.parametrize("mode", ["graph_mode", "pynative_mode"])


def random_tensor(rng, *shape, dtype=ms.float32):
    return Tensor(rng.standard_normal(shape).astype(np.float32), dtype)


def gradients(function, x, weight, dout):
    """Return the value of a function of x and weight, and the gradients of <value, dout>."""

    def projected(x, weight):
        y = function(x, weight)
        return (y * dout).astype(ms.float32).sum(), y

    (_, y), found = ms.value_and_grad(projected, (0, 1), has_aux=True)(x, weight)
    return [tensor.asnumpy() for tensor in (y, *found)]


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    limit = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol=0, atol=limit)


# The last size: one frame of 1x2 pixels, too few to turn the weight for.
@both_modes
@pytest.mark.parametrize("channels", [(4, 3), (3, 4)])
@pytest.mark.parametrize(("kernel_size", "size"), [(3, (2, 5, 4)), (5, (1, 6, 7)), (3, (1, 1, 2))])
def test_same_size_convolution(mode, channels, kernel_size, size, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(0)
    frames, height, width = size
    c_in, c_out = channels
    x = random_tensor(rng, frames, c_in, height, width)
    weight = random_tensor(rng, c_out, c_in, kernel_size, kernel_size)
    dout = random_tensor(rng, frames, c_out, height, width)
    plain = ops.Conv2D(c_out, kernel_size, pad_mode="pad", pad=kernel_size // 2)
    found = gradients(DenseConv2d(c_in, c_out, kernel_size, kernel_size // 2), x, weight, dout)
    for actual, expected in zip(found, gradients(plain, x, weight, dout), strict=True):
        assert_close(actual, expected, 1e-5)


@both_modes
@pytest.mark.parametrize("channels", [(4, 3), (3, 4)])
def test_in_half_precision(mode, channels, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(1)
    c_in, c_out = channels
    x = random_tensor(rng, 2, c_in, 6, 5, dtype=ms.float16)
    weight = random_tensor(rng, c_out, c_in, 3, 3, dtype=ms.float16)
    dout = random_tensor(rng, 2, c_out, 6, 5, dtype=ms.float16)
    plain = ops.Conv2D(c_out, 3, pad_mode="pad", pad=1)
    found = gradients(DenseConv2d(c_in, c_out, 3, 1), x, weight, dout)
    for actual, expected in zip(found, gradients(plain, x, weight, dout), strict=True):
        assert_close(actual, expected, 4e-3)


@both_modes
@pytest.mark.parametrize("dtype", [ms.float32, ms.float16])
@pytest.mark.parametrize(("each", "kernel_size", "padding"), [(3, 3, 1), (1, 5, 2), (2, 3, 0)])
def test_depthwise_convolution(mode, dtype, each, kernel_size, padding, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(5)
    channels, cut = 4, kernel_size - 1 - 2 * padding
    x = random_tensor(rng, 2, channels * each, 6, 7, dtype=dtype)
    weight = random_tensor(rng, channels, each, kernel_size, kernel_size, dtype=dtype)
    dout = random_tensor(rng, 2, channels, 6 - cut, 7 - cut, dtype=dtype)
    plain = ops.Conv2D(channels, kernel_size, pad_mode="pad", pad=padding, group=channels)
    found = gradients(
        DepthwiseConv2d(channels * each, channels, kernel_size, padding), x, weight, dout
    )
    for actual, expected in zip(found, gradients(plain, x, weight, dout), strict=True):
        assert_close(actual, expected, 1e-5 if dtype == ms.float32 else 4e-3)


@both_modes
@pytest.mark.parametrize("dtype", [ms.float32, ms.float16])
def test_channel_bias(mode, dtype, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(3)
    x, bias = random_tensor(rng, 2, 3, 5, 4, dtype=dtype), random_tensor(rng, 3, dtype=dtype)
    dout = random_tensor(rng, 2, 3, 5, 4, dtype=dtype)
    found = gradients(ChannelBias(), x, bias, dout)
    for actual, expected in zip(found, gradients(ops.BiasAdd(), x, bias, dout), strict=True):
        assert_close(actual, expected, 1e-5 if dtype == ms.float32 else 4e-3)


def assert_function_and_slope(cell, x, value, slope):
    """Assert what a cell gives for x, and its gradient, to 1e-6 of the largest."""
    dout = np.random.default_rng(4).standard_normal(x.shape).astype(np.float32)

    def projected(x):
        y = cell(x)
        return (y * Tensor(dout)).sum(), y

    (_, y), gradient = ms.value_and_grad(projected, 0, has_aux=True)(Tensor(x))
    assert_close(y.asnumpy(), value.astype(np.float32), 1e-6)
    assert_close(gradient.asnumpy(), (dout * slope).astype(np.float32), 1e-6)


@both_modes
@both_forms
def test_silu(mode, form, request):
    request.getfixturevalue(mode)
    x = np.linspace(-90, 90, 2001, dtype=np.float32)
    s = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert_function_and_slope(form.SiLU(), x, x * s, s + x * s * (1 - s))


@both_modes
@both_forms
def test_gelu(mode, form, request):
    request.getfixturevalue(mode)
    x = np.linspace(-90, 90, 2001, dtype=np.float32)
    wide = x.astype(np.float64)
    a = np.sqrt(2 / np.pi)
    t = np.tanh(a * (wide + 0.044715 * wide**3))
    slope = (1 + t) / 2 + wide / 2 * (1 - t**2) * a * (1 + 3 * 0.044715 * wide**2)
    assert_function_and_slope(form.GeLU(), x, wide / 2 * (1 + t), slope)


@both_modes
@both_forms
def test_sum_of_channels(mode, form, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(6)
    x, weights = random_tensor(rng, 2, 3, 5, 4), random_tensor(rng, 3)
    dout = random_tensor(rng, 2, 1, 5, 4)
    y, dx, dweights = gradients(form.SumChannels(), x, weights, dout)
    x, weights, dout = (tensor.asnumpy() for tensor in (x, weights, dout))
    assert_close(y, np.einsum("nchw,c->nhw", x, weights)[:, None], 1e-6)
    assert_close(dx, dout * weights.reshape(-1, 1, 1), 1e-6)
    assert_close(dweights, np.einsum("nchw,nhw->c", x, dout[:, 0]), 1e-6)


@both_modes
@both_forms
def test_scaling_of_channels_and_pixels(mode, form, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(7)
    x, dout = random_tensor(rng, 2, 3, 5, 4), random_tensor(rng, 2, 3, 5, 4)
    a, b = random_tensor(rng, 3), random_tensor(rng, 2, 1, 5, 4)
    scale = form.ScaleChannelsAndPixels()

    def scaled(x, a):
        return scale(x, a, b)

    def scaled_by_pixels(x, b):
        return scale(x, a, b)

    y, dx, da = gradients(scaled, x, a, dout)
    db = gradients(scaled_by_pixels, x, b, dout)[2]
    x, a, b, dout = (tensor.asnumpy() for tensor in (x, a.reshape((-1, 1, 1)), b, dout))
    assert_close(y, x * a * b, 1e-6)
    assert_close(dx, dout * a * b, 1e-6)
    assert_close(da, (dout * x * b).sum((0, 2, 3)), 1e-6)
    assert_close(db, (dout * x * a).sum(1, keepdims=True), 1e-6)


@both_modes
def test_gelu_of_half_precision_stays_finite(mode, request):
    request.getfixturevalue(mode)
    x = Tensor(np.array([-60000, -300, -1, 0, 1, 300, 60000], np.float16))
    cell = cpu.GeLU()

    def total(x):
        return cell(x).astype(ms.float32).sum()

    gradient = ms.grad(total)(x)
    assert gradient.dtype == ms.float16
    np.testing.assert_allclose(gradient.asnumpy(), [0, 0, -0.083, 0.5, 1.083, 1, 1], atol=2e-3)


@both_modes
@both_forms
def test_channels_are_swapped_forward_and_backward(mode, form, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(2)
    weight, dout = random_tensor(rng, 5, 3, 2, 4), random_tensor(rng, 3, 5, 2, 4)
    cell = form.SwapChannels(3, 5)

    def projected(weight):
        swapped = cell(weight)
        return (swapped * dout).sum(), swapped

    (_, swapped), gradient = ms.value_and_grad(projected, 0, has_aux=True)(weight)
    np.testing.assert_array_equal(swapped.asnumpy(), weight.asnumpy().transpose(1, 0, 2, 3))
    np.testing.assert_array_equal(gradient.asnumpy(), dout.asnumpy().transpose(1, 0, 2, 3))


@pytest.mark.parametrize(
    ("options", "has_own_gradient"),
    [
        ({"kernel_size": 3, "padding": 1}, True),
        ({"kernel_size": 3, "stride": 2, "padding": (0, 1, 0, 1)}, False),
        ({"kernel_size": 1}, False),
    ],
)
def test_only_convolutions_that_keep_the_size_have_it(options, has_own_gradient):
    conv = Conv2d(3, 4, **options)
    assert isinstance(conv.conv2d, DenseConv2d) == has_own_gradient
    with layers.choose("Ascend"):
        assert isinstance(Conv2d(3, 4, **options).conv2d, ops.Conv2D)
    assert [p.name for p in conv.get_parameters()] == ["weight", "bias"]


def network_gradients(tae, video):
    """Return the squared error of the reconstruction and its gradient by every parameter."""

    def loss(video):
        return ((tae(video) - video) ** 2).mean()

    value, found = ms.value_and_grad(loss, None, tae.trainable_params())(video)
    return value.asnumpy(), [gradient.asnumpy() for gradient in found]


@pytest.mark.usefixtures("pynative_mode")
def test_the_network_has_the_same_gradients_in_the_form_for_other_devices(make_tae, make_video):
    tae, video = make_tae(), make_video(3, 8, 8)
    with layers.choose("Ascend"):
        other = make_tae()
    found = {type(cell).__module__ for _, cell in other.cells_and_names()}
    assert "mg.models.layers.plain" in found
    assert not any(name.startswith("mg.models.layers.cpu") for name in found)
    value, found = network_gradients(tae, video)
    expected_value, expected = network_gradients(other, video)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    # Some gradients are sums that cancel to exactly zero; their rounding has the others' size.
    floor = 0.01 * max(np.abs(gradient).max() for gradient in expected)
    for actual, gradient in zip(found, expected, strict=True):
        limit = 1e-5 * max(np.abs(gradient).max(), floor)
        np.testing.assert_allclose(actual, gradient, rtol=0, atol=limit)


def test_another_device_is_refused_and_the_choice_ends_with_its_block():
    with pytest.raises(ValueError, match="one of Ascend, GPU, CPU"), layers.choose("ascend"):
        pass
    with pytest.raises(ZeroDivisionError), layers.choose("Ascend"):
        assert layers.operations() is plain
        1 / 0  # noqa: B018
    assert layers.operations() is cpu


# Few pixels keep biases and weights apart, more of them make one bias, and images one weight too.
@both_modes
@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("side", [1, 6])
def test_space_then_time(mode, num_frames, kernel_size, side, request):
    request.getfixturevalue(mode)
    rng = np.random.default_rng(2)
    c_in, c_out = 4, 5
    x = random_tensor(rng, 2 * num_frames, c_in, side, side)
    spatial = random_tensor(rng, c_out, c_in, kernel_size, kernel_size)
    temporal = random_tensor(rng, c_out, c_out, 1, kernel_size)
    biases = [random_tensor(rng, c_out) for _ in range(2)]
    dout = random_tensor(rng, 2 * num_frames, c_out, side, side)
    inputs = (x, spatial, biases[0], temporal, biases[1])

    def value_and_gradients(form):
        cell = form.ConvolveSpaceThenTime(c_in, c_out, kernel_size)

        def projected(x, spatial, spatial_bias, temporal, temporal_bias):
            y = cell(x, num_frames, spatial, spatial_bias, temporal, temporal_bias)
            return (y * dout).sum(), y

        (_, y), found = ms.value_and_grad(projected, tuple(range(5)), has_aux=True)(*inputs)
        return [tensor.asnumpy() for tensor in (y, *found)]

    for actual, expected in zip(value_and_gradients(cpu), value_and_gradients(plain), strict=True):
        assert_close(actual, expected, 1e-5)
