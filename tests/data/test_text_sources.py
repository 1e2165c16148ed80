"""Embeddings from a cache or computed: the same arrays, asked for as seldom as possible."""

import dataclasses

import numpy as np
import pytest

from mg.data.text_sources import CachedText, EncodedText


@dataclasses.dataclass
class Embedding:
    values: np.ndarray
    mask: np.ndarray


class Encoder:
    name, spec, width, max_tokens = "letters", "letters,max_tokens=4", 2, 4

    def __init__(self):
        self.calls = []

    def check_lengths(self, texts):
        if any(len(text) > 4 for text in texts):
            raise ValueError("too long")

    def encode(self, texts, *, truncate=False):
        self.calls.append(list(texts))
        values, mask = np.zeros((len(texts), 4, 2), np.float32), np.zeros((len(texts), 4), bool)
        for row, text in enumerate(texts):
            for place, letter in enumerate(text[:4] if truncate else text):
                values[row, place], mask[row, place] = ord(letter), True
        return Embedding(values, mask)


class Cache:
    """A cache of the encoder's embeddings of some texts."""

    def __init__(self, texts):
        self.info, self.texts = Encoder(), texts

    def __contains__(self, text):
        return text in self.texts

    def read(self, text):
        whole = Encoder().encode([text])
        return Embedding(whole.values[0], whole.mask[0])


def test_cached_and_computed_embeddings_are_the_same():
    encoder, texts = Encoder(), ["ab", "", "abcd", "ab"]
    expected = Encoder().encode(texts)
    for source in (CachedText(Cache(texts)), EncodedText(encoder)):
        source.check(texts)
        values, mask = source.embed(texts)
        np.testing.assert_array_equal(values, expected.values)
        np.testing.assert_array_equal(mask, expected.mask)
        assert values.dtype == np.float32 and mask.dtype == bool
    assert encoder.calls == [["ab"], [""], ["abcd"]]


def test_texts_without_an_embedding_are_named_with_what_to_run():
    source = CachedText(Cache(["a", ""]))
    with pytest.raises(FileNotFoundError) as error:
        source.check(["a", "", *"bcdefghb"])
    message = str(error.value)
    assert "7 of 9 texts have no embedding by 'letters'" in message
    assert "scripts/encode_text.py" in message and "--encoder letters,max_tokens=4" in message
    assert "'b'\n  'c'\n  'd'\n  'e'\n  'f'\n  ..." in message and "'g'" not in message


def test_texts_that_are_too_long_are_refused_or_cut():
    with pytest.raises(ValueError, match="too long"):
        EncodedText(Encoder()).check(["abcde"])
    source = EncodedText(Encoder(), truncate=True)
    source.check(["abcde"])
    np.testing.assert_array_equal(source.embed(["abcde"])[0], source.embed(["abcd"])[0])
