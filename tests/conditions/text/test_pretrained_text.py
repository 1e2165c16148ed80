"""T5, ByT5 and CLIP against the reference implementation; tokenizers; what is refused."""

import io
import json
import shutil

import numpy as np
import pytest

from mg.conditions.text.pretrained import PretrainedTextEncoder
from mg.conditions.text.tokenizers import load_tokenizer
from mg.quiet_imports import quiet_imports
from mg.weights.checkpoint_file import save_state_dict_to_file
from mg.weights.safetensors_file import read_safetensors, write_safetensors
from tests.text_encoders import write_shards

REFERENCE_TEXTS = {"t5": "w5 w6 w7 w8", "clip": "w6 w7 w8 w9"}
LONG_TEXT = " ".join(f"w{i}" for i in range(10, 22))


@pytest.fixture
def folder_of(t5_folder, clip_folder):
    return {"t5": t5_folder, "clip": clip_folder}


def rewrite(folder, change):
    """Replace the weights of a folder by what `change` makes of them."""
    file = folder / "model.safetensors"
    tensors = {name: np.array(array) for name, array in read_safetensors(file).items()}
    write_safetensors(file, change(tensors), overwrite=True)


def first_tokens(encoder, text, num_tokens):
    return encoder.encode([text]).values[0, :num_tokens]


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_hidden_states_are_the_reference_s(kind, folder_of, reference):
    encoder = PretrainedTextEncoder(kind, folder_of[kind], max_tokens=16)
    expected = reference(kind)
    embedding = encoder.encode([LONG_TEXT, REFERENCE_TEXTS[kind], ""])
    assert embedding.values.shape == (3, 16, 32)
    assert embedding.mask.sum(axis=1).tolist() == {"t5": [13, 5, 1], "clip": [14, 6, 2]}[kind]
    # In a batch with a longer text: padding has no influence.
    assert np.abs(embedding.values[1, : len(expected)] - expected).max() < 1e-5
    assert (embedding.values[~embedding.mask] == 0).all()
    alone = encoder.encode([LONG_TEXT])
    assert np.abs(alone.values[0] - embedding.values[0]).max() < 1e-5


def test_byt5_needs_no_tokenizer(t5_folder, reference):
    def more_ids(tensors):
        rows = np.random.default_rng(0).standard_normal((320, 32)).astype(np.float32)
        tensors["shared.weight"] = np.concatenate([tensors["shared.weight"], rows])
        return tensors

    rewrite(t5_folder, more_ids)
    (t5_folder / "tokenizer.json").unlink()
    config = json.loads((t5_folder / "config.json").read_text())
    (t5_folder / "config.json").write_text(json.dumps({**config, "vocab_size": 384}))
    encoder = PretrainedTextEncoder("byt5", t5_folder)
    assert (encoder.name, encoder.max_tokens) == ("byt5", 100)
    found = first_tokens(encoder, "\x02\x03\x04\x05", 5)  # ids 5, 6, 7, 8 and the end
    assert np.abs(found - reference("t5")).max() < 1e-5


def test_numbers_of_tokens(folder_of):
    assert PretrainedTextEncoder("t5", folder_of["t5"]).max_tokens == 512
    assert PretrainedTextEncoder("clip", folder_of["clip"]).max_tokens == 16  # its positions
    assert PretrainedTextEncoder("clip", folder_of["clip"], max_tokens=8).max_tokens == 8
    with pytest.raises(ValueError, match=r"max_tokens=17, but .* has 16 positions"):
        PretrainedTextEncoder("clip", folder_of["clip"], max_tokens=17)


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_too_long_is_said_and_the_end_stays_when_cut(kind, folder_of):
    encoder = PretrainedTextEncoder(kind, folder_of[kind], max_tokens=6)
    with pytest.raises(ValueError, match=r"too long for the encoder .* at most 6 fit"):
        encoder.encode([LONG_TEXT])
    cut = encoder.encode([LONG_TEXT], truncate=True)
    num_words = {"t5": 5, "clip": 4}[kind]
    same = encoder.encode([" ".join(LONG_TEXT.split()[:num_words])])
    np.testing.assert_allclose(cut.values, same.values, atol=1e-6)


def test_whole_checkpoints_hold_the_text_encoder(folder_of, reference):
    """Decoders and image encoders are left aside, the embedding's second name is understood."""

    def whole_t5(tensors):
        tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
        return {**tensors, "lm_head.weight": np.ones(3), "decoder.block.0.weight": np.ones(3)}

    def whole_clip(tensors):
        tensors["text_model.embeddings.position_ids"] = np.arange(16)
        return {
            **tensors,
            "logit_scale": np.ones(1),
            "vision_model.post_layernorm.bias": np.ones(3),
        }

    config_file = folder_of["clip"] / "config.json"
    config = {"model_type": "clip", "text_config": json.loads(config_file.read_text())}
    config_file.write_text(json.dumps(config))
    for kind, change in {"t5": whole_t5, "clip": whole_clip}.items():
        rewrite(folder_of[kind], change)
        encoder = PretrainedTextEncoder(kind, folder_of[kind])
        expected = reference(kind)
        found = first_tokens(encoder, REFERENCE_TEXTS[kind], len(expected))
        assert np.abs(found - expected).max() < 2e-5


def test_half_precision_is_widened(t5_folder, reference):
    rewrite(t5_folder, lambda tensors: {k: v.astype(np.float16) for k, v in tensors.items()})
    config = json.loads((t5_folder / "config.json").read_text())
    (t5_folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    embedding = PretrainedTextEncoder("t5", t5_folder).encode(["w5 w6 w7 w8"])
    assert embedding.values.dtype == np.float32
    assert np.abs(embedding.values[0, :5] - reference("t5")).max() < 2e-2


def shard(folder):
    """Split a folder's weights into two PyTorch files with an index, as UL2 is published."""
    tensors = {name: np.array(v) for name, v in read_safetensors(folder).items()}
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[:9], names[9:])):
        file = f"pytorch_model-0000{i + 1}-of-00002.bin"
        save_state_dict_to_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_of_pytorch(t5_folder, reference):
    shard(t5_folder)
    encoder = PretrainedTextEncoder("t5", t5_folder)
    assert np.abs(first_tokens(encoder, "w5 w6 w7 w8", 5) - reference("t5")).max() < 2e-5
    (t5_folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match="names pytorch_model-00002-of-00002"):
        PretrainedTextEncoder("t5", t5_folder)
    index = t5_folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"shared.weight": "../other.bin"}}))
    with pytest.raises(ValueError, match="shards must stand in the folder itself"):
        PretrainedTextEncoder("t5", t5_folder)
    index.write_text("[]")
    with pytest.raises(ValueError, match="is not an index of shards"):
        PretrainedTextEncoder("t5", t5_folder)


def test_shards_of_safetensors(t5_folder, reference):
    """As CogVideoX's T5 is published."""
    write_shards(t5_folder)
    encoder = PretrainedTextEncoder("t5", t5_folder)
    assert np.abs(first_tokens(encoder, "w5 w6 w7 w8", 5) - reference("t5")).max() < 2e-5
    (t5_folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
        PretrainedTextEncoder("t5", t5_folder)


def test_identity_changes_with_every_file_and_the_length(t5_folder):
    identities = [PretrainedTextEncoder("t5", t5_folder, max_tokens=9).identity]
    identities.append(PretrainedTextEncoder("t5", t5_folder).identity)
    rewrite(t5_folder, lambda tensors: {**tensors, "shared.weight": tensors["shared.weight"] * 2})
    identities.append(PretrainedTextEncoder("t5", t5_folder).identity)
    for name in ("tokenizer.json", "config.json"):
        text = (t5_folder / name).read_text()
        (t5_folder / name).write_text(text + "\n")
        identities.append(PretrainedTextEncoder("t5", t5_folder).identity)
    shard(t5_folder)
    identities.append(PretrainedTextEncoder("t5", t5_folder).identity)
    assert len(set(identities)) == 6
    elsewhere = shutil.copytree(t5_folder, t5_folder.parent / "elsewhere")
    assert PretrainedTextEncoder("t5", elsewhere).identity == identities[-1]


def test_weights_that_do_not_fit_are_refused(folder_of):
    def without_a_bias(tensors):
        tensors.pop("text_model.final_layer_norm.bias")
        return tensors

    rewrite(folder_of["clip"], without_a_bias)
    with pytest.raises(ValueError, match=r"1 missing .*text_model.final_layer_norm.bias"):
        PretrainedTextEncoder("clip", folder_of["clip"]).encode(["w6"])
    extra = {"encoder.block.2.layer.0.SelfAttention.q.weight": np.ones((32, 32), np.float32)}
    rewrite(folder_of["t5"], lambda tensors: {**tensors, **extra})
    with pytest.raises(ValueError, match="1 extra"):
        PretrainedTextEncoder("t5", folder_of["t5"]).encode(["w6"])


def test_tokenizer_of_another_model_is_refused(t5_folder):
    encoder = PretrainedTextEncoder("byt5", t5_folder)  # 64 ids are too few for bytes
    with pytest.raises(ValueError, match="gives the id 100, the network knows 64"):
        encoder.encode(["a"])


def test_folders_that_lack_something_are_refused(t5_folder, tmp_path):
    with pytest.raises(ValueError, match=r"kind='bert'; expected one of t5, byt5, clip"):
        PretrainedTextEncoder("bert", t5_folder)
    with pytest.raises(FileNotFoundError, match=r"expected a folder with config\.json"):
        PretrainedTextEncoder("t5", tmp_path / "nowhere")
    (t5_folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json: not a tokenizer"):
        PretrainedTextEncoder("t5", t5_folder)
    (t5_folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"put tokenizer.json, or spiece.model beside"):
        PretrainedTextEncoder("t5", t5_folder)
    (t5_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        PretrainedTextEncoder("byt5", t5_folder)
    for config, message in {
        "{": "is not JSON",
        "[]": "holds no JSON object",
        "{}": "d_model is None",
    }.items():
        (t5_folder / "config.json").write_text(config)
        (t5_folder / "model.safetensors").touch()
        with pytest.raises(ValueError, match=message):
            PretrainedTextEncoder("byt5", t5_folder)


def test_impossible_networks_are_refused(clip_folder):
    config = json.loads((clip_folder / "config.json").read_text())
    (clip_folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 5}))
    with pytest.raises(ValueError, match="no CLIPTextModel can be built from this config"):
        PretrainedTextEncoder("clip", clip_folder).encode(["w6"])


@pytest.mark.parametrize(
    ("kind", "field"),
    [("t5", "num_layers"), ("t5", "d_ff"), ("t5", "num_heads"), ("clip", "num_hidden_layers"),
     ("clip", "hidden_size"), ("clip", "max_position_embeddings")],
)  # fmt: skip
def test_sizes_that_no_weights_have_are_refused(folder_of, kind, field):
    folder = folder_of[kind]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: 10**9}))
    with pytest.raises(
        ValueError, match=f"{field}(=1000000000; that is more than| is 1000000000, expected)"
    ):
        PretrainedTextEncoder(kind, folder)


def test_sentencepiece_tokenizer(tmp_path, captions):
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_writer=model,
        vocab_size=39,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    ids_of = load_tokenizer("t5", tmp_path)
    with quiet_imports():
        from transformers import T5Tokenizer

        reference = T5Tokenizer(str(tmp_path / "spiece.model"), extra_ids=0, legacy=False)
    for text in ["", "a red circle moving left", "FPS-16  a gray\nsquare!"]:
        assert ids_of(text) == reference(text)["input_ids"]
    assert len(ids_of("a red circle")) > 3 and ids_of("")[-1] == 1
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a tokenizer that can be read"):
        load_tokenizer("t5", tmp_path)


def test_clip_vocabulary_and_merges(tmp_path):
    pieces = ["r", "e", "d", "r</w>", "e</w>", "d</w>", "re", "red</w>"]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *marks])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    ids_of = load_tokenizer("clip", tmp_path)
    assert ids_of("Red  reed") == [8, 7, 6, 1, 5, 9]
    assert ids_of("") == [8, 9]
