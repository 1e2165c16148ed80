"""The encoder without weights: ids, vectors that never change, words that can be told apart."""

import itertools

import numpy as np
import pytest

from mg.conditions.text.byte_encoder import ByteEncoder, byte_ids
from mg.quiet_imports import quiet_imports

TEXTS = [
    "",
    " ",
    "a red circle moving left on a black background",
    "FPS-16 A Red  circle,\n\tmoving -- left!",
    "Größe 日本語 🎬 \x00\x7f",
]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_byt5(text):
    with quiet_imports():
        from transformers import ByT5Tokenizer

        expected = ByT5Tokenizer()(text)["input_ids"]
    assert byte_ids(text) == expected
    assert [byte.id for (byte,) in ByteEncoder().tokenize(text)] == expected


def test_special_names_in_a_text_are_bytes():
    assert byte_ids("</s>") == [63, 50, 118, 65, 1]
    tokens = ByteEncoder(unit="word").tokenize("</s>")
    assert len(tokens) == 5 and tokens[-1][0].word not in [token[0].word for token in tokens[:-1]]


def test_vectors_stay_what_they_are():
    values = ByteEncoder(unit="word", width=64).encode(["Red"]).values[0]  # (16, 64)
    word = "".join("+" if value > 0 else "-" for value in values[0, :32])
    assert word == "-+++++-++-++---+-+++-+----++--++"
    assert (np.abs(values[0, :32]) == 1).all()
    angles = np.array([3, 0.3, 1, 0.1])  # after 3 bytes and 1 word
    waves = [np.sin(angles[:2]), np.cos(angles[:2]), np.sin(angles[2:]), np.cos(angles[2:])]
    np.testing.assert_allclose(values[1, -8:], np.sqrt(2) * np.concatenate(waves), atol=1e-6)
    byte_values = ByteEncoder(width=64).encode(["Red"]).values[0]  # (64, 64)
    np.testing.assert_allclose(byte_values[:3].mean(axis=0), values[0], atol=1e-6)
    np.testing.assert_allclose(byte_values[3], values[1], atol=1e-6)


@pytest.mark.parametrize("unit", ["byte", "word"])
def test_all_captions_fit_with_their_frame_rate(unit, captions):
    encoder = ByteEncoder(unit=unit)
    longest = max(len(encoder.tokenize(f"FPS-16 {caption}")) for caption in captions)
    assert longest == {"byte": 61, "word": 13}[unit]
    assert longest <= encoder.max_tokens == {"byte": 64, "word": 16}[unit]
    embedding = encoder.encode(list(captions))
    assert embedding.values.shape == (216, encoder.max_tokens, 256)
    assert embedding.values.dtype == np.float32 and embedding.mask.dtype == bool
    assert (embedding.values[~embedding.mask] == 0).all()
    lengths = [len(encoder.tokenize(caption)) for caption in captions]
    np.testing.assert_array_equal(embedding.mask.sum(axis=1), lengths)


@pytest.mark.parametrize("unit", ["byte", "word"])
def test_a_linear_readout_tells_what_unseen_captions_say(unit, captions):
    embedding = ByteEncoder(unit=unit).encode(list(captions))
    pooled = embedding.values.sum(axis=1) / embedding.mask.sum(axis=1, keepdims=True)  # (216, D)
    order = np.random.default_rng(0).permutation(len(captions))
    seen, unseen = order[:168], order[168:]
    for choice in range(4):
        labels = np.array([said[choice] for said in captions.values()])
        wanted = (labels[:, None] == np.unique(labels)).astype(np.float32)  # (216, classes)
        ridge = pooled[seen].T @ pooled[seen] + 1e-3 * np.eye(256)
        readout = np.linalg.solve(ridge, pooled[seen].T @ (wanted[seen] - wanted.mean(axis=0)))
        told = (pooled[unseen] @ readout).argmax(axis=1)
        assert (told == wanted[unseen].argmax(axis=1)).mean() == 1.0, choice


def test_words_are_far_apart_and_the_same_word_is_near():
    words = ["a", "red", "green", "blue", "yellow", "magenta", "cyan", "circle", "square"]
    words += ["triangle", "left", "right", "up", "down"]
    encoder = ByteEncoder(unit="word")
    vectors = encoder.encode(words).values[:, 0]  # (14, D)
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = normed @ normed.T
    assert max(similar[i, j] for i, j in itertools.combinations(range(14), 2)) < 0.5
    elsewhere = encoder.encode([f"one two three four {word}" for word in words]).values[:, 4]
    assert ((elsewhere @ normed.T).argmax(axis=1) == np.arange(14)).all()
    capitals = encoder.encode([word.upper() for word in words]).values[:, 0]
    assert ((capitals @ normed.T).argmax(axis=1) == np.arange(14)).all()


def test_the_order_of_words_is_told():
    encoder = ByteEncoder(unit="word")
    first, second = encoder.encode(["red on blue", "blue on red"]).values
    assert np.abs(first - second).max() > 1
    num_alike = 256 - 256 // 8  # the rest tells places
    sums = first.sum(axis=0), second.sum(axis=0)
    np.testing.assert_allclose(sums[0][:num_alike], sums[1][:num_alike], atol=1e-5)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="unit='letter'; expected one of byte, word"):
        ByteEncoder(unit="letter")
    with pytest.raises(ValueError, match="width=100; expected a multiple of 32"):
        ByteEncoder(width=100)
    with pytest.raises(ValueError, match="max_tokens=1; expected 2 to 65536"):
        ByteEncoder(max_tokens=1)


def test_identity_tells_whatever_changes_the_output():
    encoders = [
        ByteEncoder(),
        ByteEncoder(unit="word"),
        ByteEncoder(width=128),
        ByteEncoder(max_tokens=65),
    ]
    assert len({encoder.identity for encoder in encoders}) == 4
    assert ByteEncoder().identity == "byte,width=256,max_tokens=64,version=1"


def test_a_whole_text_is_one_token_the_mean_of_its_bytes():
    whole, bytes_of = ByteEncoder(unit="text", width=64), ByteEncoder(width=64)
    assert (whole.max_tokens, whole.spec) == (1, "text,width=64,max_tokens=1")
    texts = ["a red circle moving left", ""]
    embedding = whole.encode(texts)
    assert embedding.values.shape == (2, 1, 64) and embedding.mask.all()
    for row, text in zip(embedding.values, texts, strict=True):
        single = bytes_of.encode([text])
        mean = single.values[0][single.mask[0]].mean(axis=0)
        np.testing.assert_allclose(row[0], mean, atol=1e-5)
    with pytest.raises(ValueError, match="max_tokens=2; a whole text is 1 token"):
        ByteEncoder(unit="text", max_tokens=2)
