"""LPIPS against a plain numpy computation of the same formula, with small random weights."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.perceptual import LPIPS, LPIPSConfig

CHANNELS = (4, 5, 6, 7, 8)
# (pool window, convolutions, stride, padding) of each stage, written out a second time.
STAGES = {
    "vgg": [(0, 2, 1, 1), (2, 2, 1, 1), (2, 3, 1, 1), (2, 3, 1, 1), (2, 3, 1, 1)],
    "alex": [(0, 1, 4, 2), (3, 1, 1, 2), (3, 1, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1)],
}


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    before = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=before)


def make_network(net: str) -> LPIPS:
    """Return a small network with seeded weights of a size that keeps features near 1."""
    rng = np.random.RandomState(0)
    network = LPIPS(LPIPSConfig(net, CHANNELS))
    for name, parameter in network.parameters_dict().items():
        if name.startswith("heads"):
            value = rng.uniform(0, 1, parameter.shape)
        else:
            fan_in = np.prod(parameter.shape[1:]) if len(parameter.shape) == 4 else 100
            value = rng.standard_normal(parameter.shape) * np.sqrt(2 / fan_in)
        parameter.set_data(Tensor(value.astype(np.float32)))
    return network


def make_images(num_images: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of float32 images in [-1, 1]."""
    shape = (num_images, 3, *size)
    rng = np.random.RandomState(1)
    return tuple(rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(2))


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]  # (N, C, H', W', k, k)
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]


def max_pool(x: np.ndarray, size: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return windows[:, :, ::2, ::2].max((4, 5))


def expected_distances(network: LPIPS, *images: np.ndarray) -> np.ndarray:
    """Return LPIPS in float64 from the network's weights."""
    weights = {k: p.asnumpy().astype(np.float64) for k, p in network.parameters_dict().items()}
    shift = np.array([-0.030, -0.088, -0.188]).reshape(3, 1, 1)
    scale = np.array([0.458, 0.448, 0.450]).reshape(3, 1, 1)
    x = (np.concatenate(images).astype(np.float64) - shift) / scale
    total = np.zeros(len(images[0]))
    for index, (pool, num_convs, stride, padding) in enumerate(STAGES[network.config.net]):
        x = max_pool(x, pool) if pool else x
        for number in range(num_convs):
            name = f"stages.{index}.convs.{number}"
            bias = weights[f"{name}.bias"]
            x = np.maximum(conv(x, weights[f"{name}.weight"], bias, stride, padding), 0)
        unit = x / (np.sqrt((x**2).sum(1, keepdims=True)) + 1e-10)
        squared = (unit[: len(total)] - unit[len(total) :]) ** 2
        head = weights[f"heads.{index}.weight"].reshape(-1, 1, 1)
        total += (squared * head).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_distances_match_numpy(mode, net):
    network, images = make_network(net), make_images(2, (37, 45))
    expected = expected_distances(network, *images)
    assert expected.min() > 0.01  # the comparison is about something
    actual = network(*map(Tensor, images)).asnumpy()
    assert actual.shape == (2,) and actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_equal_images_are_at_distance_zero_with_zero_gradient(mode, net):
    network = make_network(net)
    image = Tensor(make_images(1, (32, 32))[0])
    value, gradient = ms.value_and_grad(network, grad_position=1)(image, image)
    assert value.asnumpy().tolist() == [0]
    np.testing.assert_array_equal(gradient.asnumpy(), 0)


def test_gradient_matches_a_finite_difference(mode):
    network = make_network("vgg")
    reference, reconstruction = make_images(1, (16, 16))
    direction = np.random.RandomState(2).standard_normal(reconstruction.shape)
    gradient = ms.grad(network, grad_position=1)(Tensor(reference), Tensor(reconstruction))
    step = 1e-5  # in float64: ReLU and max pool have kinks that a long step would cross
    above, below = (
        expected_distances(network, reference, reconstruction + sign * step * direction)[0]
        for sign in (1, -1)
    )
    numeric = (above - below) / (2 * step)
    assert float((gradient.asnumpy() * direction).sum()) == pytest.approx(numeric, rel=1e-3)


def test_dead_features_have_a_finite_gradient(mode):
    """Where all features of a pixel are zero, the root of their squared norm must not be NaN."""
    network = make_network("vgg")
    network.parameters_dict()["stages.1.convs.1.bias"].set_data(Tensor(np.full(5, -1e6, "f4")))
    reference, reconstruction = map(Tensor, make_images(1, (16, 16)))
    gradient = ms.grad(network, grad_position=1)(reference, reconstruction).asnumpy()
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_reference_gets_no_gradient_and_weights_are_frozen(mode):
    network = make_network("alex")
    images = tuple(map(Tensor, make_images(1, (31, 31))))
    gradient = ms.grad(network, grad_position=0)(*images)
    np.testing.assert_array_equal(gradient.asnumpy(), 0)
    assert network.trainable_params() == []


def test_half_precision_input_is_computed_in_float32():
    network = make_network("vgg")
    halves = [image.astype(np.float16) for image in make_images(1, (16, 16))]
    expected = expected_distances(network, *halves)
    actual = network(*map(Tensor, halves)).asnumpy()
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize(("net", "smallest"), [("vgg", 16), ("alex", 31)])
def test_smallest_size(mode, net, smallest, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a failed compilation leaves its analysis in the current folder
    network = make_network(net)
    images = make_images(1, (smallest, smallest))
    np.testing.assert_allclose(
        network(*map(Tensor, images)).asnumpy(), expected_distances(network, *images), rtol=1e-4
    )
    too_small = map(Tensor, make_images(1, (smallest, smallest - 1)))
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest}"):
        network(*too_small)


def test_published_sizes():
    counts = {
        net: sum(int(np.prod(p.shape)) for p in LPIPS(LPIPSConfig(net)).get_parameters())
        for net in ("vgg", "alex")
    }
    # 14,714,688 and 2,469,696 for the convolutions of VGG16 and AlexNet, plus the heads.
    assert counts == {"vgg": 14_714_688 + 1472, "alex": 2_469_696 + 1152}


def test_config_refuses():
    with pytest.raises(ValueError, match="one of vgg, alex, got 'squeeze'"):
        LPIPSConfig("squeeze")
    with pytest.raises(ValueError, match="5 stages"):
        LPIPSConfig("vgg", (4, 4))
