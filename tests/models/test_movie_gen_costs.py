"""Counted FLOPs and bytes against counts by hand and against the products that a network makes."""

import dataclasses
import math

import numpy as np
import pytest
from mindspore import Tensor, ops

from mg.models import layers
from mg.models.denoiser_config import TextInput
from mg.models.movie_gen.config import PRESETS, MovieGenConfig
from mg.models.movie_gen.costs import activation_bytes, block_parameters, forward_flops
from mg.models.movie_gen.transformer import MovieGenTransformer

SMALL = MovieGenConfig(
    num_layers=2,
    dim=32,
    ffn_dim=48,
    num_heads=2,
    latent_channels=3,
    position_table=(4, 6, 5),
    text_encoders=(TextInput("first", 6, 5), TextInput("second", 10, 4)),
    timestep_width=8,
)


def test_the_flops_of_the_tiny_preset_are_those_counted_by_hand():
    # 32 tokens of video, 16 of text; width 256, feed-forward 512, 6 layers, patches of 64 numbers.
    flops = forward_flops(PRESETS["tiny"], 32, batch_size=2)
    one_layer = 32 * (6 * 256 * 256 + 3 * 256 * 512)
    assert flops.video_maps == 2 * 2 * (6 * one_layer + 32 * 2 * 256 * 64) == 608_174_080
    assert flops.text_maps == 2 * 2 * (16 * 256 * 256 + 6 * 2 * 16 * 256 * 256) == 54_525_952
    assert flops.time_maps == 2 * 2 * (256 * 256 + 256 * 256 + 256 * 1536 + 256 * 512) == 2_621_440
    assert flops.self_attention == 2 * 2 * 6 * 2 * 32 * 32 * 256 == 12_582_912
    assert flops.cross_attention == 2 * 2 * 6 * 2 * 32 * 16 * 256 == 6_291_456
    assert flops.total == 684_195_840
    assert flops.attention_share == pytest.approx(18_874_368 / 684_195_840)


def products_made(config, monkeypatch, *, grid, text_tokens, batch_size):
    """Return the FLOPs of all products of matrices that the network makes, by their shapes."""
    with layers.choose("Ascend"):  # on CPU values are repeated by products too
        network = MovieGenTransformer(config)
    made = []

    def counting(call):
        def product(primitive, x, y):
            z = call(primitive, x, y)
            inner = x.shape[-2] if primitive.transpose_a else x.shape[-1]
            made.append(2 * math.prod(z.shape) * inner)
            return z

        return product

    for kind in (ops.MatMul, ops.BatchMatMul):
        monkeypatch.setattr(kind, "__call__", counting(kind.__call__))
    latent = [n * p for n, p in zip(grid, config.patch_size, strict=True)]
    inputs = [np.ones((batch_size, config.latent_channels, *latent), np.float32)]
    inputs += [np.ones(batch_size, np.float32)]
    for encoder, length in zip(config.text_encoders, text_tokens, strict=True):
        inputs += [np.ones((batch_size, length, encoder.width), np.float32)]
        inputs += [np.ones((batch_size, length), bool)]
    network(*map(Tensor, inputs)).asnumpy()
    return sum(made)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "rope": True, "patch_size": (2, 1, 2)}])
def test_the_flops_are_those_of_the_products_that_the_network_makes(
    pynative_mode, monkeypatch, options
):
    config = dataclasses.replace(SMALL, **options)
    made = products_made(config, monkeypatch, grid=(2, 3, 4), text_tokens=(5, 2), batch_size=3)
    assert made == forward_flops(config, 24, batch_size=3, text_tokens=(5, 2)).total


def test_a_layer_keeps_what_was_counted_by_hand():
    # Per token of half precision: norms 3, self-attention 4, attention to text 2 times the width
    # in 2 bytes; norms 6, gates 2 in 4 bytes; 4 feed-forward; 32 statistics for each head.
    text = 2 * 9 * 32 * 2  # keys and values
    kept = activation_bytes(SMALL, 24)
    assert kept.layer == 24 * (2 * (9 * 32 + 4 * 48) + 4 * (8 * 32 + 32 * 2)) + text
    assert kept.layer_input == 24 * 32 * 2
    # In float32 without flash attention two weights per head and key, and the two gates repeated.
    plain = activation_bytes(SMALL, 24, half=False, flash=False)
    assert plain.layer == 24 * 4 * (9 * 32 + 4 * 48 + 10 * 32 + 2 * (24 + 9)) + 2 * text
    assert plain.peak(recompute=False) == 2 * plain.layer + plain.outside + plain.layer // 2
    assert plain.peak(recompute=True) == (
        2 * plain.layer_input + plain.layer + plain.outside + plain.layer // 2
    )


def test_activations_grow_with_clips_and_tokens():
    one, two = (activation_bytes(SMALL, 24, batch_size=n) for n in (1, 2))
    assert (two.layer, two.layer_input, two.outside) == (
        2 * one.layer,
        2 * one.layer_input,
        2 * one.outside,
    )
    # Flash attention keeps nothing that grows with the square of the tokens.
    text = 2 * 9 * 32 * 2
    assert activation_bytes(SMALL, 48).layer - text == 2 * (one.layer - text)


def test_one_layer_has_the_parameters_of_its_cell():
    network = MovieGenTransformer(SMALL)
    assert block_parameters(SMALL) == sum(p.size for p in network.blocks[0].get_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, "1 clips of 0 tokens; expected 1 or more"),
        ({"num_tokens": 4, "batch_size": 0}, "0 clips of 4 tokens"),
        ({"num_tokens": 4, "text_tokens": (5,)}, "a number for each of"),
        ({"num_tokens": 4, "text_tokens": (5, 9)}, "from 1 to"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    for count in (forward_flops, activation_bytes):
        with pytest.raises(ValueError, match=message):
            count(SMALL, **options)


def test_recomputation_leaves_a_twelfth_of_the_activations_of_the_largest_preset():
    kept = activation_bytes(PRESETS["30b"], 8192)
    share = kept.peak(recompute=True) / kept.peak(recompute=False)
    assert share == pytest.approx(0.062, abs=0.001)
