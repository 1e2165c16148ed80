"""Image VAE -> TAE: the inflated spatial path is the image VAE, the temporal one is neutral."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mg.weights.inflation import inflate_image_vae
from mg.weights.safetensors_file import read_safetensors, write_safetensors
from mg.weights.tae_layers import tae_shapes
from tests.image_vae_names import image_vae_to_tae_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
VAE = read_safetensors(FIXTURES / "sd35_vae_tiny.safetensors")
GROUPS = 32


# A plain numpy version of the TAE's spatial path, for one frame: all temporal layers left out.


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """(C, H, W) -> (C', H', W'); no padding."""
    k = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # (C, H', W', k, k)
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


class SpatialPath:
    def __init__(self, tensors: dict[str, np.ndarray]):
        self.tensors = tensors

    def conv(self, x: np.ndarray, name: str) -> np.ndarray:
        weight = self.tensors[name + ".weight"]
        pad = weight.shape[-1] // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        return convolve(x, weight, self.tensors[name + ".bias"])

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        groups = x.reshape(GROUPS, -1)
        variance = groups.var(axis=1, keepdims=True)
        groups = (groups - groups.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-6)
        gamma, beta = self.tensors[name + ".gamma"], self.tensors[name + ".beta"]
        return groups.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]

    def norm_silu(self, x: np.ndarray, name: str) -> np.ndarray:
        x = self.norm(x, name)
        return x / (1 + np.exp(-x))

    def block(self, x: np.ndarray, name: str) -> np.ndarray:
        h = self.conv(self.norm_silu(x, name + ".norm1"), name + ".conv1.conv_spat")
        h = self.conv(self.norm_silu(h, name + ".norm2"), name + ".conv2.conv_spat")
        if name + ".nin_shortcut.conv_spat.weight" in self.tensors:
            x = self.conv(x, name + ".nin_shortcut.conv_spat")
        return x + h

    def attention(self, x: np.ndarray, name: str) -> np.ndarray:
        h = self.norm(x, name + ".norm")
        q, k, v = (self.conv(h, f"{name}.{part}").reshape(len(x), -1) for part in "qkv")  # (C, HW)
        scores = q.T @ k / np.sqrt(len(x))
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        return x + self.conv((v @ scores.T).reshape(x.shape), name + ".proj_out")

    def middle(self, x: np.ndarray, half: str) -> np.ndarray:
        x = self.attention(self.block(x, f"{half}.mid.block_1"), f"{half}.mid.attn_1.0")
        return self.block(x, f"{half}.mid.block_2")

    def encode(self, x: np.ndarray) -> np.ndarray:
        x = self.conv(x, "encoder.conv_in.conv_spat")
        for level in range(4):
            x = self.block(x, f"encoder.down.{level}.block.0")
            if level < 3:
                name = f"encoder.down.{level}.downsample_spat.conv"
                x = np.pad(x, ((0, 0), (0, 1), (0, 1)))
                x = convolve(
                    x, self.tensors[name + ".weight"], self.tensors[name + ".bias"], stride=2
                )
        x = self.norm_silu(self.middle(x, "encoder"), "encoder.norm_out")
        return self.conv(x, "encoder.conv_out.conv_spat")

    def decode(self, z: np.ndarray) -> np.ndarray:
        x = self.middle(self.conv(z, "decoder.conv_in.conv_spat"), "decoder")
        for level in (3, 2, 1, 0):
            for block in range(2):
                x = self.block(x, f"decoder.up.{level}.block.{block}")
            if level > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = self.conv(x, f"decoder.up.{level}.upsample_spat.conv")
        x = self.norm_silu(x, "decoder.norm_out")
        return self.conv(x, "decoder.conv_out.conv_spat")


def test_spatial_path_gives_the_image_vaes_own_numbers():
    reference = np.load(FIXTURES / "sd35_vae_tiny.npz", allow_pickle=False)
    path = SpatialPath(inflate_image_vae(VAE)[0])
    mean, logvar = np.split(path.encode(reference["image"][0]), 2)
    assert np.abs(mean - reference["mean"][0]).max() < 1e-4
    assert np.abs(logvar - reference["logvar"][0]).max() < 1e-4
    assert np.abs(path.decode(reference["latent"][0]) - reference["decoded"][0]).max() < 1e-4


def test_the_set_of_tensors_is_complete():
    inflated, config = inflate_image_vae(VAE)
    assert {name: array.shape for name, array in inflated.items()} == tae_shapes(config)
    assert all(array.dtype == np.float32 for array in inflated.values())
    assert (config["ch"], config["ch_mult"], config["num_res_blocks"]) == (32, [1, 1, 2, 2], 1)
    assert config["temporal_padding"] == "published"
    for source, target in image_vae_to_tae_names(config).items():
        np.testing.assert_array_equal(inflated[target].ravel(), VAE[source].ravel())


def write_bfloat16_file(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write the upper halves of float32 tensors, byte by byte as the format says."""
    header, content = {}, b""
    for name, array in tensors.items():
        upper = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(content), len(content) + len(upper)]
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": offsets}
        content += upper
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sources(tmp_path, dtype):
    """The inflated weights are those of the rounded source, exactly, always in float32."""
    path = tmp_path / "vae.safetensors"
    if dtype == "float16":
        halves = {name: array.astype(np.float16) for name, array in VAE.items()}
        rounded = {name: array.astype(np.float32) for name, array in halves.items()}
        write_safetensors(path, halves)
    else:
        upper_half = np.uint32(0xFFFF0000)
        rounded = {n: (a.view(np.uint32) & upper_half).view(np.float32) for n, a in VAE.items()}
        write_bfloat16_file(path, rounded)
    actual, expected = inflate_image_vae(read_safetensors(path))[0], inflate_image_vae(rounded)[0]
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_array_equal(actual[name], array)


def temporal_kernels(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ends = ("_temp.weight", "sample_temp.conv.weight")
    return {name: array for name, array in tensors.items() if name.endswith(ends)}


@pytest.mark.parametrize("method", ["central", "replicate", "average"])
@pytest.mark.parametrize("padding", ["published", "replicate"])
def test_temporal_kernels_keep_still_clips_still(method, padding):
    """Their taps sum to the identity: whatever repeats the frame at the borders changes nothing."""
    tensors, config = inflate_image_vae(VAE, method=method, temporal_padding=padding)
    kernels = temporal_kernels(tensors)
    assert config["temporal_padding"] == padding
    assert len(kernels) == 44  # 38 convolutions and shortcuts, 6 resamplers
    for name, kernel in kernels.items():
        identity = np.eye(len(kernel), dtype=np.float32)
        np.testing.assert_allclose(kernel[:, :, 0].sum(axis=-1), identity, atol=2e-7)
        assert not tensors[name.replace("weight", "bias")].any()
        zero_padded = padding == "published" and "upsample_temp" in name
        taps = kernel.shape[-1]
        if method == "central" or zero_padded or taps == 1:
            np.testing.assert_array_equal(kernel[:, :, 0, taps // 2], identity)
        else:
            for tap in range(3):
                np.testing.assert_allclose(kernel[:, :, 0, tap], identity / 3, atol=1e-7)


def test_replicate_and_average_coincide():
    one, other = (inflate_image_vae(VAE, method=method)[0] for method in ("replicate", "average"))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_temporal_attention_starts_without_effect():
    first, again = inflate_image_vae(VAE)[0], inflate_image_vae(VAE)[0]
    for half in ("encoder", "decoder"):
        prefix = f"{half}.mid.attn_1.1."
        assert not first[prefix + "proj_out.weight"].any()
        assert not first[prefix + "proj_out.bias"].any()
        assert (first[prefix + "norm.gamma"] == 1).all()
        for name in ("to_q", "to_k", "to_v"):
            weight = first[f"{prefix}{name}.weight"]
            assert abs(weight.std() * np.sqrt(64) - 1) < 0.05
            np.testing.assert_array_equal(weight, again[f"{prefix}{name}.weight"])
    assert (first["encoder.mid.attn_1.1.to_q.weight"] != weight).any()


def changed(**arrays: np.ndarray | None) -> dict[str, np.ndarray]:
    """The VAE with some tensors replaced (dots written as __) or left out (None)."""
    tensors = VAE | {name.replace("__", "."): array for name, array in arrays.items()}
    return {name: array for name, array in tensors.items() if array is not None}


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (changed(decoder__conv_in__weight=zeros(64, 4, 3, 3)), "4 latent channels and 32 from"),
        (changed(encoder__conv_out__weight=zeros(16, 64, 3, 3)), "16 from the encoder"),
        (changed(quant_conv__weight=zeros(32, 32, 1, 1)), "1 missing .quant_conv.bias"),
        (changed(quant_conv__weight=zeros(8, 8, 1, 1), quant_conv__bias=zeros(8)), "misshapen"),
        (changed(encoder__conv_in__weight=zeros(32, 3, 3, 3, 3)), "a video VAE's.* 3-D .encoder"),
        (changed(encoder__conv_in__weight=zeros(32, 3)), "expected 4 sizes"),
        (changed(encoder__conv_in__weight=None), "lacks encoder.conv_in.weight"),
        (changed(encoder__conv_in__bias=None), "1 missing .encoder.conv_in.bias"),
        (changed(extra=zeros(3)), "1 extra .extra"),
        (changed(decoder__conv_norm_out__bias=zeros(7)), "1 misshapen .decoder.conv_norm_out"),
        (changed(encoder__conv_in__weight=zeros(30, 3, 3, 3)), "multiples of that"),
        (changed(encoder__down_blocks__1__resnets__0__conv1__weight=None), "levels have"),
        (changed(encoder__conv_in__bias=np.full(32, np.inf, np.float32)), "infinities"),
        ({"a": zeros(1)}, "lacks encoder.conv_in.weight, .* the first are a"),
        ({}, "of the file's 0 tensors"),
        (inflate_image_vae(VAE)[0], "a TAE already"),
    ],
)
def test_other_weights_are_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        inflate_image_vae(tensors)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="'tail'; choose one of central, replicate, average"):
        inflate_image_vae(VAE, method="tail")
    with pytest.raises(ValueError, match="'zeros'; choose one of published, replicate"):
        inflate_image_vae(VAE, temporal_padding="zeros")
    with pytest.raises(ValueError, match="not 'ch'"):
        inflate_image_vae(VAE, structure={"ch": 64})
    with pytest.raises(ValueError, match="not 'z_channels'"):
        inflate_image_vae(VAE, structure={"z_channels": 4, "norm_groups": 32})
