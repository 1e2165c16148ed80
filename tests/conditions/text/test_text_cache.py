"""Embeddings on disk: what is found, what is missing, what is of another encoder or damaged."""

import json
import shlex

import numpy as np
import pytest

from mg.conditions.text.build import build_text_encoder
from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.cache import (
    EncoderInfo,
    FillCounts,
    TextCache,
    cached_encoders,
    fill_text_cache,
)
from mg.conditions.text.encoder import TextEmbedding
from mg.weights.safetensors_file import read_safetensors, write_safetensors

TEXTS = ["a red circle", "a blue square", "a red circle"]


@pytest.fixture
def encoder():
    return ByteEncoder(unit="word", width=32, max_tokens=6)


class Counting(ByteEncoder):
    """Remembers what it embeds."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.num_embedded = []

    def embed(self, tokens):
        self.num_embedded.append(len(tokens))
        return super().embed(tokens)


def test_what_was_stored_is_read(tmp_path, encoder):
    counts = fill_text_cache(tmp_path, encoder, TEXTS)
    assert counts == FillCounts(written=3, skipped=0, truncated=0)  # with the empty text
    for text in {*TEXTS, ""}:
        found, expected = (
            TextCache.open(tmp_path, encoder.identity).read(text),
            encoder.encode([text]),
        )
        np.testing.assert_array_equal(found.values, expected.values[0])
        np.testing.assert_array_equal(found.mask, expected.mask[0])
        assert found.values.dtype == np.float32 and found.mask.dtype == bool
    file = TextCache.open(tmp_path, encoder.identity).path_of("a red circle")
    assert read_safetensors(file)["values"].shape == (4, 32)  # no padding on disk


def test_only_what_is_missing_is_embedded(tmp_path):
    encoder = Counting(unit="word", width=32)
    fill_text_cache(tmp_path, encoder, TEXTS, batch_size=2)
    assert encoder.num_embedded == [2, 1]
    cache = TextCache.open(tmp_path, encoder.identity)
    assert "a red circle" in cache and "a green circle" not in cache
    before = cache.path_of("a red circle").stat().st_mtime_ns
    counts = fill_text_cache(tmp_path, encoder, [*TEXTS, "a green circle"])
    assert counts == FillCounts(written=1, skipped=3, truncated=0)
    assert encoder.num_embedded == [2, 1, 1]
    assert cache.path_of("a red circle").stat().st_mtime_ns == before


def test_interrupted_work_is_kept(tmp_path):
    class Failing(Counting):
        def embed(self, tokens):
            if len(self.num_embedded) == 2:
                raise RuntimeError("interrupted")
            return super().embed(tokens)

    settings = {"unit": "word", "width": 32}
    texts = [f"text {i}" for i in range(7)]
    with pytest.raises(RuntimeError):
        fill_text_cache(tmp_path, Failing(**settings), texts, batch_size=2)
    encoder = Counting(**settings)
    assert fill_text_cache(tmp_path, encoder, texts) == FillCounts(4, 4, 0)
    assert encoder.num_embedded == [4]
    assert not list(tmp_path.rglob("*.tmp*"))


def test_a_missing_text_names_the_command_that_makes_it(tmp_path, encoder):
    folder = tmp_path / "the cache"
    fill_text_cache(folder, encoder, TEXTS)
    text = "it's a 'green' circle"
    with pytest.raises(FileNotFoundError, match=r"has no embedding of .*green") as caught:
        TextCache.open(folder, encoder.identity).read(text)
    command = str(caught.value).split("run: ")[1].split(" (or")[0]
    assert shlex.split(command) == [
        "mg",
        "encode-text",
        f"--captions={text}",
        "--encoder=word,width=32,max_tokens=6",
        f"--output_folder={folder}",
    ]


def test_embeddings_of_another_encoder_are_refused(tmp_path, encoder):
    with pytest.raises(FileNotFoundError, match="holds no text embeddings"):
        TextCache.open(tmp_path, encoder.identity).read("a red circle")
    fill_text_cache(tmp_path, encoder, TEXTS)
    other = ByteEncoder(unit="word", width=32, max_tokens=7)
    with pytest.raises(ValueError, match=r"not made by the encoder\n  word,width=32,max_tokens=7"):
        TextCache.open(tmp_path, other.identity).read("a red circle")
    fill_text_cache(tmp_path, other, TEXTS)
    for each, length in ((encoder, 6), (other, 7)):  # side by side
        assert TextCache.open(tmp_path, each.identity).read("a red circle").mask.shape == (length,)


def test_new_weights_do_not_find_the_old_ones_embeddings(tmp_path, t5_folder):
    fill_text_cache(tmp_path / "cache", build_text_encoder(f"t5:{t5_folder}"), ["w5 w6"])
    text = (t5_folder / "config.json").read_text()
    (t5_folder / "config.json").write_text(text + " ")
    changed = build_text_encoder(f"t5:{t5_folder}")
    with pytest.raises(ValueError, match="were not made by the encoder"):
        TextCache.open(tmp_path / "cache", changed.identity).read("w5 w6")


def test_a_cache_tells_its_encoders(tmp_path, encoder):
    byte = ByteEncoder(width=64)
    for each in (encoder, byte):
        fill_text_cache(tmp_path, each, TEXTS)
    infos = cached_encoders(tmp_path)
    assert infos == [EncoderInfo.of(byte), EncoderInfo.of(encoder)]
    assert (infos[0].name, infos[0].width, infos[0].max_tokens) == ("byte", 64, 64)
    (file,) = (f for f in tmp_path.glob("*/encoder.json") if '"byte"' in f.read_text())
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "identity": "other"}))
    with pytest.raises(ValueError, match="describes another encoder than its folder"):
        cached_encoders(tmp_path)
    for wrong in ({"name": 3}, {"width": "64"}, {"width": 10**9}, {"max_tokens": 0}, {"a": 1}):
        file.write_text(json.dumps({**fields, **wrong}))
        with pytest.raises(ValueError, match="does not describe a text encoder"):
            cached_encoders(tmp_path)
    for text in ("{}", "[1]", "[" * 9999, json.dumps({"identity": {}})):
        file.write_text(text)
        with pytest.raises(ValueError, match="does not describe a text encoder"):
            cached_encoders(tmp_path)
    # That of another encoder is not an obstacle.
    assert TextCache.open(tmp_path, encoder.identity).info == EncoderInfo.of(encoder)


def test_damage_is_told_and_mended(tmp_path, encoder, caplog):
    fill_text_cache(tmp_path, encoder, TEXTS)
    cache = TextCache.open(tmp_path, encoder.identity)
    path, other = cache.path_of("a red circle"), cache.path_of("a blue square")
    whole = path.read_bytes()
    tensors = {name: np.array(array) for name, array in read_safetensors(path).items()}
    told = {"text": "a red circle", "identity": encoder.identity}

    def write(**changed):
        write_safetensors(path, {**tensors, **changed}, metadata=told, overwrite=True)

    damages = {
        "not a whole safetensors file": lambda: path.write_bytes(whole[:-5]),
        "another text or encoder": lambda: path.write_bytes(other.read_bytes()),
        "is damaged": lambda: write(values=tensors["values"] * np.float32(np.nan)),
        "is damaged;": lambda: write(values=tensors["values"][:3]),
        "is damaged; delete": lambda: write(mask=tensors["mask"].astype(np.int32)),
    }
    for message, damage in damages.items():
        damage()
        with pytest.raises(ValueError, match=message):
            cache.read("a red circle")
        assert fill_text_cache(tmp_path, encoder, TEXTS) == FillCounts(1, 2, 0)
        assert path.read_bytes() == whole
        assert "it is made again" in caplog.text
        caplog.clear()


def test_too_long_stops_before_any_work(tmp_path, encoder):
    texts = [*TEXTS, "a red circle moving left on black"]
    with pytest.raises(ValueError, match="too long"):
        fill_text_cache(tmp_path, encoder, texts)
    assert not list(tmp_path.iterdir())
    assert fill_text_cache(tmp_path, encoder, texts, truncate=True) == FillCounts(4, 0, 1)


def test_embeddings_of_another_shape_are_not_stored(tmp_path, encoder):
    cache = TextCache(tmp_path, EncoderInfo.of(encoder))
    with pytest.raises(ValueError, match=r"shape \(5, 32\), expected \(6, 32\)"):
        cache.write("text", TextEmbedding(np.zeros((5, 32), np.float32), np.ones(5, bool)))
