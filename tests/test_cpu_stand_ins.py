"""The stand-ins for mint's operators against numpy, forward and backward."""

import math
import sys
import types

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, mint, ops
from mindspore.mint.nn import functional

from mg import cpu_stand_ins, device
from mg.cpu_stand_ins import install_stand_ins

pytestmark = pytest.mark.usefixtures("pynative_mode")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def stand_ins():
    assert install_stand_ins()


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def pad_np(x, amounts, mode="constant", value=None):
    """numpy's padding with mint's amounts: pairs from the last axis on; negative ones cut."""
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + list(
        zip(amounts[-2::-2], amounts[-1::-2], strict=True)
    )
    x = x[tuple(slice(-min(a, 0), x.shape[i] + min(b, 0)) for i, (a, b) in enumerate(pairs))]
    pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if mode == "constant":
        return np.pad(x, pairs, constant_values=value or 0)
    return np.pad(x, pairs, mode={"replicate": "edge", "reflect": "reflect"}[mode])


def conv_np(x, weight, bias, stride, padding, groups=1):
    """A convolution as a sum over the kernel's taps. x (B, C, ...), weight (O, C / groups, ...)."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    kernel = weight.shape[2:]
    sizes = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[0], *sizes))
    ins, outs = weight.shape[1], weight.shape[0] // groups
    for tap in np.ndindex(*kernel):
        ranges = [slice(t, t + s * n, s) for t, s, n in zip(tap, stride, sizes, strict=True)]
        window = x[(..., *ranges)]
        for g in range(groups):
            taps = weight[(slice(g * outs, (g + 1) * outs), slice(None), *tap)]
            out[:, g * outs : (g + 1) * outs] += np.einsum(
                "oc,bc...->bo...", taps, window[:, g * ins : (g + 1) * ins]
            )
    return out + bias.reshape(-1, *[1] * len(kernel))


def layer_norm_np(x, weight=1.0, bias=0.0):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-5
    ) * weight + bias


def gelu_np(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh_np(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# name: (the operator as mint offers it, the same in numpy, its inputs)
CASES = {
    "conv2d": (
        lambda x, w, b: functional.conv2d(x, w, b, stride=(2, 1), padding=(1, 0), groups=2),
        lambda x, w, b: conv_np(x, w, b, (2, 1), (1, 0), groups=2),
        (normal(2, 4, 5, 4), normal(2, 2, 3, 3), normal(2)),
    ),
    "conv2d same": (
        lambda x, w, b: functional.conv2d(x, w, b, padding="same"),
        lambda x, w, b: conv_np(x, w, b, (1, 1), (1, 1)),
        (normal(1, 2, 4, 4), normal(2, 2, 3, 3), normal(2)),
    ),
    "conv3d": (
        lambda x, w, b: functional.conv3d(x, w, b, stride=(1, 2, 2), padding=(0, 1, 1)),
        lambda x, w, b: conv_np(x, w, b, (1, 2, 2), (0, 1, 1)),
        (normal(1, 2, 3, 4, 4), normal(2, 2, 3, 3, 3), normal(2)),
    ),
    "pad constant": (
        lambda x: functional.pad(x, (0, 1, 2, 0), value=0.5),
        lambda x: pad_np(x, (0, 1, 2, 0), value=0.5),
        (normal(2, 2, 3, 3),),
    ),
    "pad negative": (
        lambda x: functional.pad(x, (-1, 1)),
        lambda x: pad_np(x, (-1, 1)),
        (normal(2, 2, 3, 3),),
    ),
    "pad replicate": (
        lambda x: functional.pad(x, (1, 1, 0, 2, 2, 0), mode="replicate"),
        lambda x: pad_np(x, (1, 1, 0, 2, 2, 0), "replicate"),
        (normal(1, 2, 2, 3, 2),),
    ),
    "pad reflect": (
        lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect"),
        lambda x: pad_np(x, (1, 2, 2, 1), "reflect"),
        (normal(1, 2, 3, 4),),
    ),
    "layer_norm": (
        lambda x, w, b: functional.layer_norm(x, (4,), w, b),
        layer_norm_np,
        (normal(3, 4), normal(4), normal(4)),
    ),
    "layer_norm plain": (
        lambda x: functional.layer_norm(x, (4,)),
        layer_norm_np,
        (normal(3, 4),),
    ),
    "gelu": (lambda x: functional.gelu(x), gelu_np, (normal(3, 4),)),
    "gelu tanh": (lambda x: functional.gelu(x, approximate="tanh"), gelu_tanh_np, (normal(3, 4),)),
    "tanh": (lambda x: mint.tanh(x), np.tanh, (normal(3, 4),)),
    "embedding": (
        lambda w: functional.embedding(Tensor([[0, 2, 2]]), w),
        lambda w: w[np.array([[0, 2, 2]])],
        (normal(4, 3),),
    ),
    "dropout off": (lambda x: functional.dropout(x, 0.5, False), lambda x: x, (normal(3, 4),)),
    "baddbmm": (
        lambda c, a, b: mint.baddbmm(c, a, b, beta=2, alpha=0.5),
        lambda c, a, b: 2 * c + 0.5 * (a @ b),
        (normal(2, 3, 3), normal(2, 3, 2), normal(2, 2, 3)),
    ),
    "outer": (lambda a, b: mint.outer(a, b), np.outer, (normal(3), normal(4))),
    # What goes wrong with the original: [[2, 4, 2, 4]] for the gradient of the sum of squares.
    "split": (
        lambda x: mint.cat(mint.split(x, (1, 3), dim=-1)[::-1], dim=-1),
        lambda x: np.concatenate([x[..., 1:], x[..., :1]], -1),
        (normal(2, 4),),
    ),
    "split even": (
        lambda x: mint.cat([-part for part in mint.split(x, 2, dim=1)[::-1]], dim=0),
        lambda x: -np.concatenate([x[:, 2:], x[:, :2]], 0),
        (normal(2, 4),),
    ),
    "chunk": (
        lambda x: mint.chunk(x, 3, dim=1)[0] * mint.chunk(x, 2, dim=1)[1],
        lambda x: x[:, :2] * x[:, 2:],
        (normal(2, 4),),
    ),
    "unbind": (
        lambda x: mint.unbind(x, 1)[2] * x.unbind(1)[0],
        lambda x: x[:, 2] * x[:, 0],
        (normal(2, 3, 2),),
    ),
    "stack": (
        lambda x, y: mint.stack((x, y), dim=-1),
        lambda x, y: np.stack((x, y), -1),
        (normal(2, 3), normal(2, 3)),
    ),
    "repeat_interleave": (
        lambda x: mint.repeat_interleave(x, 3, dim=1) + x.repeat_interleave(3, dim=1),
        lambda x: 2 * np.repeat(x, 3, 1),
        (normal(2, 3, 2),),
    ),
    "repeat_interleave flat": (
        lambda x: mint.repeat_interleave(x, 2),
        lambda x: np.repeat(x, 2),
        (normal(2, 3),),
    ),
    "clone": (lambda x: mint.clone(x) * x.clone(), lambda x: x * x, (normal(2, 3),)),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradient(name):
    function, function_np, inputs = CASES[name]
    out = function_np(*(x.astype(np.float64) for x in inputs))
    direction = normal(*out.shape)

    def weighted_sum(*tensors):
        y = function(*tensors)
        return (y * Tensor(direction)).sum(), y

    positions = tuple(range(len(inputs)))
    grad = ms.value_and_grad(weighted_sum, positions, has_aux=True)
    (_, y), gradients = grad(*(Tensor(x) for x in inputs))
    gradients = gradients if len(inputs) > 1 else (gradients,)
    np.testing.assert_allclose(y.asnumpy(), out, atol=1e-5)
    assert y.shape == out.shape
    for i, gradient in enumerate(gradients):
        expected = np.zeros(inputs[i].shape)
        for index in np.ndindex(*inputs[i].shape):
            ends = []
            for step in (1e-5, -1e-5):  # central difference, in float64
                moved = [x.astype(np.float64) for x in inputs]
                moved[i][index] += step
                ends.append((function_np(*moved) * direction).sum())
            expected[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient.asnumpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: mint.nn.Conv2d(4, 2, 3, stride=2, padding=1, groups=2), (2, 4, 6, 6)),
        (lambda: mint.nn.Conv3d(2, 2, 3, padding=(0, 1, 1)), (1, 2, 4, 5, 5)),
    ],
)
def test_convolution_layers(layer, shape):
    layer, x = layer(), normal(*shape)
    weight, bias = layer.weight.asnumpy(), layer.bias.asnumpy()
    expected = conv_np(x, weight, bias, layer.stride, layer.padding, layer.groups)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_convolution_layers_that_replicate():
    for rank, layer_class in ((2, mint.nn.Conv2d), (3, mint.nn.Conv3d)):
        layer = layer_class(2, 2, 3, padding=1, padding_mode="replicate")
        x = normal(1, 2, *[3] * rank)
        padded = pad_np(x, (1, 1) * rank, "replicate")
        weight, bias = layer.weight.asnumpy(), layer.bias.asnumpy()
        expected = conv_np(padded, weight, bias, (1,) * rank, (0,) * rank)
        np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_other_layers():
    x = normal(3, 4)
    layer = mint.nn.LayerNorm((4,))
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), layer_norm_np(x), atol=1e-5)
    layer = mint.nn.GELU()
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), gelu_np(x), atol=1e-5)
    layer = mint.nn.Embedding(5, 3)
    rows = layer(Tensor([1, 4])).asnumpy()
    np.testing.assert_array_equal(rows, layer.weight.asnumpy()[[1, 4]])


@pytest.mark.parametrize("mode", ["graph_mode", "pynative_mode"])
def test_tanh_is_right_where_the_kernel_is_not(mode, request):
    request.getfixturevalue(mode)
    x = np.append(np.linspace(-12, 12, 4801), [-100, 0, 100]).astype(np.float32)

    def total(x):
        return mint.tanh(x).sum()

    expected = np.tanh(x.astype(np.float64))
    np.testing.assert_allclose(mint.tanh(Tensor(x)).asnumpy(), expected, rtol=0, atol=3e-7)
    gradient = ms.grad(total)(Tensor(x)).asnumpy()
    np.testing.assert_allclose(gradient, 1 - expected**2, rtol=0, atol=3e-7)


def test_embedding_of_padding_has_no_gradient():
    layer = mint.nn.Embedding(4, 2, padding_idx=1)
    gradient = ms.grad(lambda ids: layer(ids).sum(), None, layer.trainable_params())
    counts = gradient(Tensor([0, 1, 3, 3]))[0].asnumpy()
    np.testing.assert_array_equal(counts, [[1, 1], [0, 0], [0, 0], [2, 2]])


def test_dropout_keeps_the_mean():
    layer = mint.nn.Dropout(0.25).set_train()
    y = layer(ops.ones((10000,))).asnumpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
    assert abs(y.mean() - 1) < 0.02  # 3.5 standard deviations


def test_new_tensors():
    x = Tensor(normal(2, 3))
    for tensor, expected in (
        (mint.arange(5), np.arange(5)),
        (mint.arange(1, 7, 2, dtype=ms.float32), np.arange(1, 7, 2, np.float32)),
        (mint.full((2, 2), 1.5, dtype=ms.float32), np.full((2, 2), 1.5, np.float32)),
        (mint.zeros_like(x), np.zeros((2, 3), np.float32)),
        (mint.zeros_like(x, dtype=ms.int32), np.zeros((2, 3), np.int32)),
        (mint.linspace(0, 1, 5), np.linspace(0, 1, 5, dtype=np.float32)),
    ):
        assert tensor.asnumpy().dtype == expected.dtype
        np.testing.assert_allclose(tensor.asnumpy(), expected, atol=1e-6)


def test_random_numbers_follow_the_seed():
    ms.set_seed(3)
    first = mint.randn(100, 100).asnumpy()
    ms.set_seed(3)
    np.testing.assert_array_equal(mint.randn((100, 100)).asnumpy(), first)
    assert abs(first.mean()) < 0.04 and abs(first.std() - 1) < 0.03  # 4 standard deviations


def test_attention_takes_masks_of_4_axes():
    from mindone.diffusers.models.attention_processor import Attention

    attention = Attention(query_dim=8, heads=2, dim_head=4)
    q, k, v = normal(3, 2, 5, 4), normal(3, 2, 6, 4), normal(3, 2, 6, 4)
    mask = np.where(RNG.random((3, 1, 1, 6)) < 0.3, -np.inf, 0).astype(np.float32)
    mask[..., 0] = 0  # something stays to attend to
    scores = q @ k.swapaxes(-1, -2) / 2 + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ v
    q, k, v = Tensor(q), Tensor(k), Tensor(v)
    y = attention.math_attention_op(q, k, v, Tensor(mask))
    np.testing.assert_allclose(y.asnumpy(), expected, atol=1e-5)
    y = attention.math_attention_op(q, k, v, Tensor(mask == 0))
    np.testing.assert_allclose(y.asnumpy(), expected, atol=1e-5)


@pytest.fixture
def early_import(monkeypatch):
    """A module of mindone that has bound an original before the stand-ins were there."""
    module = types.ModuleType("mindone.early_import")
    module.cut, module.other = _original("split"), len
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def _original(name):
    stand_in = getattr(cpu_stand_ins, name)
    return next(original for original, new in cpu_stand_ins._REPLACED.values() if new is stand_in)


def test_names_bound_before_are_replaced(early_import):
    install_stand_ins()
    assert early_import.cut is cpu_stand_ins.split and early_import.other is len


def test_installing_twice_changes_nothing():
    def state():
        modules = (vars(mint), vars(functional))
        return [dict(m) for m in modules] + [mint.nn.Conv2d.construct, Tensor.clone, _attention()]

    def _attention():
        from mindone.diffusers.models.attention_processor import Attention

        return Attention.get_attention_scores

    before = state()
    install_stand_ins()
    assert state() == before


def test_other_devices_keep_their_operators(early_import, monkeypatch):
    monkeypatch.setattr(device, "device_in_use", lambda: "Ascend")
    assert not install_stand_ins()
    assert early_import.cut is _original("split")


def test_what_is_not_supported_is_refused():
    x = Tensor(normal(2, 2))
    with pytest.raises(ValueError, match="max_norm"):
        functional.embedding(Tensor([0]), x, max_norm=1.0)
    with pytest.raises(ValueError, match="inplace"):
        functional.dropout(x, inplace=True)
    with pytest.raises(ValueError, match="generator"):
        mint.randn(2, generator=object())
