"""LPIPS on numpy frames, and the loading of its weights."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.metrics.lpips import load_lpips, lpips, lpips_weights_path
from mg.models.perceptual import LPIPS, LPIPSConfig
from mg.weights.safetensors_file import write_safetensors

CONFIG = LPIPSConfig("vgg", (4, 4, 6, 6, 6))


@pytest.fixture(autouse=True)
def pynative():
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=before)


def make_frames(num_frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    shape = (num_frames, 16, 20, 3)
    return tuple(rng.randint(0, 256, shape).astype(np.uint8) for _ in range(2))


def make_weights() -> dict[str, np.ndarray]:
    ms.set_seed(0)
    return {name: p.asnumpy() for name, p in LPIPS(CONFIG).parameters_dict().items()}


@pytest.mark.parametrize("batch_size", [2, 8])
def test_each_frame_is_compared_with_its_own(batch_size):
    ms.set_seed(0)
    network = LPIPS(CONFIG)
    reference, reconstruction = make_frames()
    reconstruction[1] = reference[1]
    distances = lpips(reference, reconstruction, network=network, batch_size=batch_size)
    images = [
        Tensor((f.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2))
        for f in (reference, reconstruction)
    ]
    assert distances.shape == (3,) and distances.dtype == np.float64
    assert distances[1] == 0 and distances[0] > 0.01 and distances[2] > 0.01
    np.testing.assert_allclose(distances, network(*images).asnumpy(), rtol=1e-5)


def test_floats_with_their_range_give_the_same():
    network = LPIPS(CONFIG)
    frames = make_frames()
    floats = [f / 255 for f in frames]
    np.testing.assert_allclose(
        lpips(*floats, network=network, data_range=1), lpips(*frames, network=network), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 16, 15, 3), {}, "16x15 are too small for LPIPS with vgg; it needs at least 16x16"),
        ((1, 16, 16, 3), {"data_range": 0}, "data_range must be positive"),
        ((1, 16, 16, 3), {"batch_size": 0}, "batch_size at least 1"),
        ((16, 16, 3), {}, r"\(T, H, W, 3\)"),
    ],
)
def test_refuses(shape, options, message):
    frames = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=message):
        lpips(frames, frames, network=LPIPS(CONFIG), **options)


def test_weights_live_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    assert lpips_weights_path("alex") == tmp_path / "lpips" / "alex.safetensors"
    monkeypatch.delenv("MG_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = tmp_path / "home" / ".cache" / "mg" / "lpips" / "vgg.safetensors"
    assert lpips_weights_path() == expected
    with pytest.raises(ValueError, match="one of vgg, alex, got 'squeeze'"):
        lpips_weights_path("squeeze")


def test_missing_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load_lpips()
    text = str(caught.value)
    assert "vgg.safetensors" in text and "mg fetch-lpips --net vgg" in text
    assert "perceptual_loss_weight" not in text and "your own file (lpips_path)" in text


def test_loaded_weights_are_the_file_and_frozen(monkeypatch, tmp_path):
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    weights = make_weights()
    write_safetensors(lpips_weights_path("vgg"), weights)
    network = load_lpips(config=CONFIG)
    loaded = {name: p.asnumpy() for name, p in network.parameters_dict().items()}
    assert loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)
    assert network.trainable_params() == []


def test_half_precision_file(tmp_path):
    weights = make_weights()
    path = tmp_path / "half.safetensors"
    write_safetensors(path, {name: array.astype(np.float16) for name, array in weights.items()})
    network = load_lpips(path=path, config=CONFIG)
    parameter = network.parameters_dict()["stages.0.convs.0.weight"]
    assert parameter.dtype == ms.float32
    np.testing.assert_allclose(parameter.asnumpy(), weights["stages.0.convs.0.weight"], atol=1e-3)


def test_file_of_another_network_is_refused_by_name(tmp_path):
    weights = make_weights()
    del weights["heads.4.weight"]
    weights["stages.9.convs.0.weight"] = np.zeros(3, np.float32)
    weights["stages.0.convs.0.bias"] = np.zeros(5, np.float32)
    path = tmp_path / "other.safetensors"
    write_safetensors(path, weights)
    with pytest.raises(ValueError) as caught:
        load_lpips(path=path, config=CONFIG)
    text = str(caught.value)
    assert "missing: heads.4.weight" in text and "unknown: stages.9.convs.0.weight" in text
    assert "stages.0.convs.0.bias (5,) instead of (4,)" in text


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    write_safetensors(path, make_weights())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_lpips(path=path, config=CONFIG)
