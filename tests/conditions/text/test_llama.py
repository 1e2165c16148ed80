"""Llama as a text encoder against the published equations in plain numpy; templates; refusals."""

import json

import numpy as np
import pytest

from mg.conditions.text.build import absolute_spec, build_text_encoder
from mg.conditions.text.cache import TextCache, fill_text_cache
from mg.conditions.text.llama_config import LlamaConfig
from mg.conditions.text.llama_encoder import LlamaEncoder
from mg.conditions.text.prompt_template import PromptTemplate
from mg.quiet_imports import quiet_imports
from mg.weights.bfloat16 import narrow_to_bfloat16
from mg.weights.safetensors_file import read_safetensors, write_safetensors
from tests.text_encoders import LLAMA, by_the_equations, write_llama, write_shards

TEMPLATE = PromptTemplate("w5 w6 w7 {} w9", 4)  # with <s> four tokens in front of the prompt
PROMPT = "w10 w11 w12"
IDS = [0, 5, 6, 7, 10, 11, 12, 9]


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama of random numbers, as transformers saves one, with a tokenizer."""
    return write_llama(tmp_path / "text_encoder")


def tensors_of(folder):
    return {name: np.array(a) for name, a in read_safetensors(folder / "model.safetensors").items()}


def rewrite(folder, tensors=None, **fields):
    """Change a folder's tensors, or fields of its config."""
    if tensors is not None:
        write_safetensors(folder / "model.safetensors", tensors, overwrite=True)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def encoded(folder, texts=(PROMPT,), **options):
    return LlamaEncoder(folder, **{"max_tokens": 8, "template": TEMPLATE, **options}).encode(texts)


def test_hidden_states_are_those_of_the_equations(folder):
    """The states in front of the last two layers, in a batch with padding; the crop is left out."""
    longer = "w10 w11 w12 w13 w14 w15 w16"
    found = encoded(folder, [longer, PROMPT, ""])
    assert found.values.shape == (3, 8, 32) and found.values.dtype == np.float32
    assert found.mask.sum(axis=1).tolist() == [8, 4, 1]
    assert (found.values[~found.mask] == 0).all()
    words = {0: [10, 11, 12, 13, 14, 15, 16], 1: [10, 11, 12], 2: []}
    for row, ids in words.items():
        expected = by_the_equations(tensors_of(folder), [0, 5, 6, 7, *ids, 9], num_layers=2)[4:]
        error = np.abs(found.values[row, : len(expected)] - expected).max()
        assert error < 1e-5 * max(1, np.abs(expected).max())


def test_it_compiles_to_the_same_numbers(folder):
    import mindspore as ms
    from mindspore import Tensor

    from mg.conditions.text.llama_network import build_llama, causal_logits, load_llama
    from mg.conditions.text.llama_network import rotary_tables as tables

    config = LlamaConfig.read(LLAMA)
    network = build_llama(config, num_layers=2)
    names = {name: name for name in config.shapes()}
    load_llama(network, [tensors_of(folder)], names)
    ids = np.array([IDS, [0, 5, 6, 7, 9, 0, 0, 0]], np.int32)
    mask = np.array([[True] * 8, [True] * 5 + [False] * 3])
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        found = network(
            *map(Tensor, (ids, causal_logits(mask), *tables(8, config.head_dim, config.rope_theta)))
        ).asnumpy()
    finally:
        ms.set_context(mode=before)
    for row, length in ((0, 8), (1, 5)):
        expected = by_the_equations(tensors_of(folder), ids[row, :length], num_layers=2)
        np.testing.assert_allclose(found[row, :length], expected, atol=2e-5)
    assert sorted(p.name for p in network.get_parameters()) == sorted(
        n for n in names if n != "norm.weight" and not n.startswith(("layers.2", "layers.3"))
    )


def test_all_layers_are_those_of_mindone_s_network(folder, pynative_mode):
    """mindone's gives the last states alone, behind the norm; it was compared with transformers."""
    from mindspore import Tensor

    from mg.conditions.text.llama_network import build_llama, load_llama, run_llama
    from mg.cpu_stand_ins import install_stand_ins

    with quiet_imports():
        import mindone.transformers
        import transformers
    install_stand_ins()
    fields = {name: value for name, value in LLAMA.items() if name != "torch_dtype"}
    reference = mindone.transformers.LlamaModel(transformers.LlamaConfig(**fields))
    tensors, config = tensors_of(folder), LlamaConfig.read(LLAMA)
    for name, parameter in reference.parameters_and_names():
        name = name.replace("embedding_table", "weight")
        parameter.set_data(Tensor(tensors[name]))
    ids = np.array([IDS, [0, 5, 6, 7, 9, 1, 1, 1]], np.int32)
    mask = np.array([[1] * 8, [1] * 5 + [0] * 3], np.int32)
    inputs = {"input_ids": Tensor(ids), "attention_mask": Tensor(mask)}
    expected = reference.set_train(False)(**inputs, use_cache=False)[0].asnumpy()
    network = build_llama(config, num_layers=4)
    load_llama(network, [tensors], {name: name for name in config.shapes()})
    states = run_llama(network, config, ids, mask > 0)
    size = np.sqrt(np.square(states).mean(axis=-1, keepdims=True) + config.rms_norm_eps)
    found = states / size * tensors["norm.weight"]
    np.testing.assert_allclose(found[mask > 0], expected[mask > 0], atol=1e-5)


def test_padding_is_seen_by_no_token():
    from mg.conditions.text.llama_network import causal_logits

    logits = causal_logits(np.array([[True, True, False], [False, True, True]]))
    seen = (logits == 0).astype(int).tolist()
    assert seen == [[[1, 0, 0], [1, 1, 0], [1, 1, 0]], [[0, 0, 0], [0, 1, 0], [0, 1, 1]]]
    assert logits.max() == 0 and np.unique(logits).size == 2


def test_half_precision_in_files_and_in_computation(folder):
    exact, tensors = encoded(folder).values, tensors_of(folder)
    scale = np.abs(exact).max()
    rewrite(folder, {name: array.astype(np.float16) for name, array in tensors.items()})
    stored = encoded(folder).values
    assert 0 < np.abs(stored - exact).max() < 5e-3 * scale
    computed = encoded(folder, dtype="float16").values
    assert computed.dtype == np.float32 and 0 < np.abs(computed - exact).max() < 1e-2 * scale
    rewrite(folder, {name: narrow_to_bfloat16(array) for name, array in tensors.items()})
    assert 0 < np.abs(encoded(folder).values - exact).max() < 5e-2 * scale
    with pytest.raises(ValueError, match="CPU kernels have no bf16"):
        encoded(folder, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype='int8' of a text encoder; expected one of float32"):
        LlamaEncoder(folder, dtype="int8")


def test_shards_and_whole_language_models(folder):
    expected, tensors = encoded(folder).values, tensors_of(folder)
    for prefix, beside in (
        ("model.", "lm_head.weight"),
        ("language_model.model.", "vision_tower.x.weight"),
    ):
        named = {prefix + name: array for name, array in tensors.items()}
        named[f"{prefix}layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
        rewrite(folder, {**named, beside: np.ones((2, 2), np.float32)})
        np.testing.assert_array_equal(encoded(folder).values, expected)
    write_shards(folder)
    np.testing.assert_array_equal(encoded(folder).values, expected)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
        LlamaEncoder(folder)


def test_texts_that_are_too_long(folder):
    long = "w10 w11 w12 w13 w14 w15 w16 w17"
    with pytest.raises(ValueError, match="13 tokens, at most 12 fit"):
        encoded(folder, [long])
    cut = LlamaEncoder(folder, max_tokens=8, template=TEMPLATE).encode([long], truncate=True)
    ids = [0, 5, 6, 7, *range(10, 18)]  # the template's end is gone
    expected = by_the_equations(tensors_of(folder), ids, num_layers=2)[4:]
    np.testing.assert_allclose(cut.values[0], expected, atol=2e-5)


def test_a_template_belongs_to_a_call_and_the_network_is_read_once(folder, tmp_path, monkeypatch):
    from mg.conditions.text import llama_network

    read = []
    load = llama_network.load_llama
    monkeypatch.setattr(llama_network, "load_llama", lambda *a: (read.append(a), load(*a)))
    plain = LlamaEncoder(folder, max_tokens=8)
    with pytest.raises(ValueError, match=r"none is given: pass prompt_template.*DEFAULT_PROMPT"):
        plain.check_lengths(["w10"])
    one = plain.with_template(TEMPLATE)
    other = plain.with_template(PromptTemplate("w5 w6 w7 w8 {} w9", 5))
    assert one.with_template(None) is one
    assert np.abs(one.encode([PROMPT]).values - other.encode([PROMPT]).values).max() > 1e-3
    assert len(read) == 1
    file = tmp_path / "template.json"
    file.write_text(json.dumps({"template": TEMPLATE.template, "crop_start": 4}))
    named = build_text_encoder(f"llama:{folder},max_tokens=8,template={file}")
    assert named.template == TEMPLATE and named.identity == one.identity
    again = build_text_encoder(named.spec)
    assert again.spec == named.spec and again.identity == named.identity
    half = named.in_precision("float16")
    assert half.template == TEMPLATE
    assert half.spec == f"llama:{folder},max_tokens=8,dtype=float16,template={file}"
    identities = {plain.identity, one.identity, other.identity, half.identity}
    assert len(identities) == 4


def test_paths_in_specs_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_spec("word,max_tokens=4") == "word,max_tokens=4"
    assert absolute_spec("clip:a,max_tokens=77,pooled") == f"clip:{tmp_path}/a,max_tokens=77,pooled"
    spec = "llama:a,template=b.json,dtype=float16"
    assert absolute_spec(spec) == f"llama:{tmp_path}/a,template={tmp_path}/b.json,dtype=float16"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"template": "no place"}, r"has the keys .*'template'.*expected \{\"template\""),
        ({"template": "no place", "crop_start": 1}, r"expected \{\} once"),
        ({"template": "{} and {}", "crop_start": 1}, r"expected \{\} once"),
        ({"template": "{0}", "crop_start": 1}, r"expected \{\} once"),
        ({"template": "{}", "crop_start": -1}, "crop_start is -1; expected a whole number"),
        ({"template": "{}", "crop_start": True}, "crop_start is True"),
        ({"template": 3, "crop_start": 1}, "template is 3; expected a text"),
        (["{}"], r"prompt_template is \['\{\}'\]; expected"),
    ],
)
def test_templates_that_are_none(given, message):
    with pytest.raises(ValueError, match=message) as error:
        PromptTemplate.of(given)
    assert "\n" not in str(error.value)


def test_template_files_and_tokenizers_that_do_not_fit(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.json not found; expected a JSON file"):
        LlamaEncoder(folder, template=tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="crop_start=5 leaves nothing of the empty prompt, which"):
        LlamaEncoder(folder, template=PromptTemplate("w5 w6 w7 {} w9", 5))
    assert PromptTemplate("a {} b", 0).around("{x}") == "a {x} b"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2', not 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not implemented; expected 'silu'"),
        ({"attention_bias": True}, "attention_bias=True is not implemented"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling=.* is not implemented"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5.0}}, "rope_scaling=.*yarn"),
        ({"num_key_value_heads": 3}, "is not a multiple of num_key_value_heads=3"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "head_dim missing"),
        ({"hidden_size": "32"}, "hidden_size is '32'|head_dim"),
        ({"num_hidden_layers": 3}, "9 extra"),
        ({"num_hidden_layers": 5}, "9 missing"),
        ({"num_hidden_layers": 10**9}, "more than its weights can have"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0; expected a number"),
        ({"vocab_size": 65}, "1 misshapen"),
    ],
)
def test_networks_that_are_refused(folder, fields, message):
    rewrite(folder, **fields)
    with pytest.raises(ValueError, match=message) as error:
        LlamaEncoder(folder)
    assert "\n" not in str(error.value)


def test_later_configs_state_rotary_positions_elsewhere():
    later = {k: v for k, v in LLAMA.items() if k != "rope_theta"}
    later["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    assert LlamaConfig.read(later) == LlamaConfig.read(LLAMA)
    wider = LlamaConfig.read({**LLAMA, "head_dim": 16}).shapes()
    assert wider["layers.3.self_attn.o_proj.weight"] == (32, 64)


def test_clip_pooled_is_the_state_of_the_end(clip_folder, reference, tmp_path):
    encoder = build_text_encoder(f"clip:{clip_folder},max_tokens=8,pooled")
    assert (encoder.max_tokens, encoder.room, encoder.width) == (1, 8, 32)
    assert build_text_encoder(encoder.spec).identity == encoder.identity
    embedding = encoder.encode(["w6 w7 w8 w9", "w10 w11 w12 w13 w14 w15"])
    assert embedding.values.shape == (2, 1, 32) and embedding.mask.all()
    np.testing.assert_allclose(embedding.values[0, 0], reference("clip")[-1], atol=2e-6)
    with pytest.raises(ValueError, match="9 tokens, at most 8 fit"):
        encoder.check_lengths(["w10 w11 w12 w13 w14 w15 w16"])
    fill_text_cache(tmp_path / "cache", encoder, ["w6 w7 w8 w9"])
    cached = TextCache.open(tmp_path / "cache", encoder.identity).read("w6 w7 w8 w9")
    np.testing.assert_array_equal(cached.values, embedding.values[0])
    for spec in (f"t5:{clip_folder},pooled", f"clip:{clip_folder},pooled,pooled"):
        with pytest.raises(ValueError, match="unknown text encoder"):
            build_text_encoder(spec)
