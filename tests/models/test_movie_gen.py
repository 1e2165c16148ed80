"""What the transformer promises: masks, batches, starts, precision, recomputation, refusals."""

import dataclasses

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.models import layers
from mg.models.denoiser_config import TextInput
from mg.models.layers import plain, tokens
from mg.models.movie_gen.attention import Attention
from mg.models.movie_gen.block import TransformerBlock
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.models.movie_gen.transformer import MovieGenTransformer

CONFIG = MovieGenConfig(
    num_layers=2,
    dim=16,
    ffn_dim=24,
    num_heads=2,
    latent_channels=4,
    position_table=(2, 2, 3),
    text_encoders=(TextInput("first", 6, 5), TextInput("second", 10, 3)),
    timestep_width=8,
)
SHAPE = (3, 4, 2, 4, 6)


def make_network(config=CONFIG, *, seed=0, **options):
    """Return a network with random parameters; with `seed=None` a new one as it starts."""
    network = MovieGenTransformer(config, **options)
    if seed is not None:
        rng = np.random.default_rng(seed)
        tensors = {}
        for name, shape in parameter_shapes(config).items():
            tensors[name] = rng.standard_normal(shape) / np.sqrt(shape[-1])
        network.load_tensors(tensors)
    return network


def make_inputs(seed=1):
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(SHAPE).astype(np.float32), np.array([0.1, 0.5, 0.9], np.float32)]
    for encoder in CONFIG.text_encoders:
        shape = (SHAPE[0], encoder.max_tokens, encoder.width)
        mask = np.ones(shape[:2], bool)
        mask[1, 1:] = False
        mask[2] = False
        inputs += [rng.standard_normal(shape).astype(np.float32), mask]
    return inputs


def run(network, inputs):
    return network(*[Tensor(value) for value in inputs]).asnumpy()


class SquareError(nn.Cell):
    """Mean square of the velocity minus one."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, *inputs):
        return ops.square(self.network(*inputs) - 1.0).mean()


def gradients(network, inputs):
    by_weight = ms.grad(SquareError(network), None, weights=network.trainable_params())
    found = by_weight(*[Tensor(value) for value in inputs])
    names = [name for name, _ in network.parameters_and_names()]
    return {name: g.asnumpy() for name, g in zip(names, found, strict=True)}


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_permuting_the_batch_permutes_the_velocity(pynative_mode):
    network, inputs = make_network(), make_inputs()
    order = [2, 0, 1]
    expected = run(network, inputs)[order]
    assert relative_error(run(network, [value[order] for value in inputs]), expected) < 1e-6
    assert relative_error(run(network, inputs), expected) > 0.1


@pytest.mark.parametrize("padding", [0.0, 1e6, np.nan])
def test_masked_tokens_have_no_influence_at_all(pynative_mode, padding):
    network, inputs = make_network(), make_inputs()
    expected = run(network, inputs)
    changed = list(inputs)
    for number in (2, 4):
        changed[number] = np.where(inputs[number + 1][..., None], inputs[number], padding)
        changed[number] = changed[number].astype(np.float32)
    found = run(network, changed)
    assert np.isfinite(found).all()  # the third caption has no valid token
    np.testing.assert_array_equal(found, expected)
    # Tokens that count do have an influence.
    changed[2] = inputs[2] + inputs[3][..., None]
    assert relative_error(run(network, changed)[:2], expected[:2]) > 1e-2


def test_no_gradient_reaches_masked_tokens(pynative_mode):
    inputs = make_inputs()
    found = ms.grad(SquareError(make_network()), (2, 4))(*[Tensor(value) for value in inputs])
    for gradient, mask in zip(found, inputs[3::2], strict=True):
        gradient = gradient.asnumpy()
        assert (gradient[~mask] == 0).all()
        assert (np.abs(gradient[mask]).max(axis=-1) > 0).all()


def test_a_new_network_predicts_zero(pynative_mode):
    assert (run(make_network(seed=None), make_inputs()) == 0).all()


def test_every_parameter_learns_within_three_updates(pynative_mode):
    """What starts at zero hides what lies behind it, for two updates in all.

    First the last linear map alone has a gradient; then also what leads to it past the gates of
    the layers, and those gates; then everything.
    """
    network, inputs = make_network(seed=None), make_inputs()
    learning = []
    for _ in range(3):
        found = gradients(network, inputs)
        assert all(np.isfinite(gradient).all() for gradient in found.values())
        learning.append({name for name, gradient in found.items() if np.abs(gradient).max() > 0})
        tensors = network.tensors()
        network.load_tensors({name: tensors[name] - 0.1 * found[name] for name in tensors})
    assert learning[0] == {"final_linear.weight"}
    assert {"blocks.0.modulation", "blocks.0.cross_attention.key.weight"} <= learning[1]
    assert "blocks.0.ffn.up.weight" not in learning[1]
    assert learning[2] == set(parameter_shapes(CONFIG))


def test_graph_pynative_and_recomputation_agree(graph_mode):
    config, inputs = dataclasses.replace(CONFIG, num_layers=1), make_inputs()
    velocity, gradient = {}, {}
    for name, options in {"kept": {}, "recomputed": {"recompute_every": 1}}.items():
        gradient[name] = gradients(make_network(config, **options), inputs)
    velocity["graph"] = run(make_network(config), inputs)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    velocity["pynative"] = run(make_network(config), inputs)
    gradient["pynative"] = gradients(make_network(config), inputs)
    assert relative_error(velocity["graph"], velocity["pynative"]) < 1e-5
    for parameter, expected in gradient["kept"].items():
        assert relative_error(gradient["recomputed"][parameter], expected) < 1e-6, parameter
        assert relative_error(gradient["pynative"][parameter], expected) < 1e-5, parameter


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2])])
def test_every_nth_layer_is_recomputed(monkeypatch, every, expected):
    recomputed = []
    monkeypatch.setattr(TransformerBlock, "recompute", lambda block: recomputed.append(block))
    config = dataclasses.replace(CONFIG, num_layers=4)
    blocks = list(make_network(config, seed=None, recompute_every=every).blocks)
    assert [blocks.index(block) for block in recomputed] == expected


def test_half_precision_stays_close(pynative_mode):
    inputs = make_inputs()
    half = run(make_network(dtype="float16"), inputs)
    assert half.dtype == np.float32
    error = relative_error(half, run(make_network(), inputs))
    assert 1e-6 < error < 1e-2  # and so it was not float32


def test_precisions_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="dtype=bfloat16: MindSpore's CPU kernels have no bf16"):
        MovieGenTransformer(CONFIG, dtype="bfloat16")
    with pytest.raises(ValueError, match=r"dtype='half'; expected one of \['bfloat16', 'float16'"):
        MovieGenTransformer(CONFIG, dtype="half")
    with pytest.raises(ValueError, match="recompute_every=-1"):
        MovieGenTransformer(CONFIG, recompute_every=-1)


def test_the_forms_for_cpu_and_for_other_devices_agree(pynative_mode):
    """CPU works with products of matrices where other devices broadcast."""
    network, inputs = make_network(), make_inputs()
    velocity, gradient = run(network, inputs), gradients(network, inputs)
    with layers.choose("Ascend"):
        other = make_network()
    found = {type(cell) for _, cell in other.cells_and_names()}
    assert {plain.ScaleByRMS, plain.PerClip, plain.PerToken} <= found
    assert relative_error(run(other, inputs), velocity) < 1e-5
    for name, found in gradients(other, inputs).items():
        assert relative_error(found, gradient[name]) < 1e-5, name


def documented_flash_attention(
    query, key, value, head_num, *, attn_mask, scalar_value, input_layout
):
    """`ops.flash_attention_score` after its documentation, in plain operations.

    BSH: (B, S, N D). attn_mask: (B, 1, Sq, Sk), true where a key is discarded.
    """
    assert input_layout == "BSH" and query.dtype in (ms.float16, ms.bfloat16)
    q, k, v = (
        x.asnumpy().astype(np.float64).reshape(*x.shape[:2], head_num, -1).swapaxes(1, 2)
        for x in (query, key, value)
    )
    logits = scalar_value * q @ k.swapaxes(-1, -2)
    if attn_mask is not None:
        assert attn_mask.shape == (logits.shape[0], 1, *logits.shape[2:])
        logits = np.where(attn_mask.asnumpy(), -np.inf, logits)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ v
    return Tensor(mixed.swapaxes(1, 2).reshape(query.shape), query.dtype)


def test_flash_attention_is_given_what_plain_attention_computes(pynative_mode, monkeypatch):
    monkeypatch.setattr(ops, "flash_attention_score", documented_flash_attention)
    rng = np.random.default_rng(0)
    query, key, value = (
        Tensor(rng.standard_normal((2, length, 3, 4)), ms.float16) for length in (5, 7, 7)
    )
    valid = Tensor(rng.random((2, 7)) < 0.5)
    for keys in (None, valid):
        results = []
        for flash in (False, True):
            mask = keys
            if keys is not None:
                mask = tokens.AttentionMask()(keys, 5, 3, flash)
            mixed = tokens.attend(query, key, value, mask, flash=flash)
            assert mixed.shape == (2, 5, 12) and mixed.dtype == ms.float16
            results.append(mixed.asnumpy().astype(np.float32))
        assert relative_error(*results) < 2e-3  # two units in the last place of fp16


def test_flash_attention_is_for_half_precision_on_ascend(monkeypatch):
    assert not tokens.has_flash_attention(ms.float16)
    monkeypatch.setattr(tokens, "device_in_use", lambda: "Ascend")
    assert tokens.has_flash_attention(ms.float16)
    assert tokens.has_flash_attention(ms.bfloat16)
    assert not tokens.has_flash_attention(ms.float32)


def test_the_whole_network_runs_through_flash_attention(pynative_mode, monkeypatch):
    monkeypatch.setattr(ops, "flash_attention_score", documented_flash_attention)
    network, inputs = make_network(dtype="float16"), make_inputs()
    expected = run(network, inputs)
    network.flash = True
    for _, cell in network.cells_and_names():
        if isinstance(cell, Attention):
            cell.flash = True
    assert relative_error(run(network, inputs), expected) < 1e-2


def test_patches_and_back(pynative_mode):
    patch = (2, 2, 3)
    latent = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    found = tokens.patches_of(Tensor(latent), patch)
    assert found.shape == (3, 1 * 2 * 2, 4 * 2 * 2 * 3)
    # The third token: the first columns of the second pair of rows, in all frames.
    np.testing.assert_array_equal(found.asnumpy()[1, 2], latent[1, :, :, 2:4, :3].reshape(-1))
    back = tokens.latent_of_patches(found, (1, 2, 2), patch)
    np.testing.assert_array_equal(back.asnumpy(), latent)


@pytest.mark.parametrize(
    "changes", [{}, {"qk_norm": True, "rope": True}, {"text_encoders": [TextInput("one", 7, 2)]}]
)
def test_parameter_shapes_are_those_of_the_network(changes):
    config = dataclasses.replace(CONFIG, **changes)
    network = make_network(config, seed=None)
    found = [(name, tuple(p.shape)) for name, p in network.parameters_and_names()]
    assert found == list(parameter_shapes(config).items())
    # Also by the names that an optimiser sees.
    assert [p.name for p in network.trainable_params()] == list(parameter_shapes(config))


def test_weights_of_another_network_are_refused():
    network = make_network()
    tensors = network.tensors()
    tensors["positions.height"] = tensors["positions.height"][:1]
    with pytest.raises(ValueError, match=r"positions\.height"):
        network.load_tensors(tensors)
    del tensors["positions.height"]
    with pytest.raises(ValueError, match=r"positions\.height"):
        network.load_tensors(tensors)


def replaced(number, shape):
    inputs = make_inputs()
    inputs[number] = np.zeros(shape, inputs[number].dtype)
    return inputs


WRONG_INPUTS = {
    "table": (
        replaced(0, (3, 4, 3, 4, 6)),
        r"position_table=\(2, 2, 3\) is smaller .* \(3, 2, 3\)",
    ),
    "patch": (replaced(0, (3, 4, 2, 3, 6)), "height 3 is not a multiple of the patch's 2"),
    "channels": (replaced(0, (3, 5, 2, 4, 6)), r"\(batch, 4, frames, height, width\), got \(3, 5"),
    "axes": (replaced(0, (3, 4, 4, 6)), r"expected a latent .* got \(3, 4, 4, 6\)"),
    "time": (replaced(1, (2,)), r"t has the shape \(2,\), expected \(3,\)"),
    "width": (replaced(2, (3, 5, 7)), r"first: .* width 6\) .* got \(3, 5, 7\)"),
    "length": (replaced(4, (3, 4, 10)), r"second: .* at most 3 tokens"),
    "mask": (replaced(3, (3, 4)), r"first: .* got \(3, 5, 6\) and \(3, 4\)"),
    "encoders": (make_inputs()[:4], r"expected 4 text tensors, .*\['first', 'second'\], got 2"),
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_wrong_sizes_are_refused_before_anything_is_compiled(graph_mode, monkeypatch, name):
    inputs, message = WRONG_INPUTS[name]
    monkeypatch.setattr(MovieGenTransformer, "compile", lambda *_: pytest.fail("compiled"))
    with pytest.raises(ValueError, match=message):
        run(make_network(seed=None), inputs)


@pytest.mark.parametrize("name", ["table", "encoders"])
def test_wrong_sizes_are_refused_inside_another_graph(graph_mode, name):
    inputs, message = WRONG_INPUTS[name]
    with pytest.raises(ValueError, match=message):
        SquareError(make_network(seed=None))(*[Tensor(value) for value in inputs])
