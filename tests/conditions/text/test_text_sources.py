"""Embeddings from a cache or computed: the same arrays, asked for as seldom as possible."""

import numpy as np
import pytest

from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.cache import TextCache, fill_text_cache
from mg.conditions.text.sources import CachedText, EncodedText

TEXTS = ["a dog", "", "a cat", "a dog"]


class CountingEncoder(ByteEncoder):
    """Remembers what it was asked for."""

    def __init__(self):
        super().__init__(width=32, max_tokens=8)
        self.calls = []

    def encode(self, texts, *, truncate=False):
        self.calls.append(list(texts))
        return super().encode(texts, truncate=truncate)


def test_cached_and_computed_embeddings_are_those_of_the_encoder(tmp_path):
    encoder = CountingEncoder()
    expected = ByteEncoder(width=32, max_tokens=8).encode(TEXTS)
    fill_text_cache(tmp_path, encoder, TEXTS)
    cache = TextCache.open(tmp_path, encoder.identity)
    encoder.calls.clear()
    for source in (CachedText(cache), EncodedText(encoder)):
        source.check(TEXTS)
        values, mask = source.embed(TEXTS)
        np.testing.assert_array_equal(values, expected.values)
        np.testing.assert_array_equal(mask, expected.mask)
        assert (values.dtype, values.shape) == (np.float32, (4, 8, 32))
    assert encoder.calls == [["a dog"], [""], ["a cat"]]


def test_texts_without_an_embedding_are_named_with_what_to_run(tmp_path):
    encoder = ByteEncoder(width=32, max_tokens=8)
    fill_text_cache(tmp_path, encoder, ["a"])
    source = CachedText(TextCache.open(tmp_path, encoder.identity))
    with pytest.raises(FileNotFoundError) as error:
        source.check(["a", "", *"bcdefghb"])
    message = str(error.value)
    assert "7 of 9 texts have no embedding by 'byte'" in message
    assert f"mg encode-text --encoder {encoder.spec} --output_folder" in message
    assert "'b'\n  'c'\n  'd'\n  'e'\n  'f'\n  ..." in message and "'g'" not in message


def test_texts_that_are_too_long_are_refused_or_cut():
    encoder = ByteEncoder(width=32, max_tokens=8)
    with pytest.raises(ValueError, match=r"'a long text' is too long .*: 12 tokens, at most 8"):
        EncodedText(encoder).check(["a long text"])
    source = EncodedText(encoder, truncate=True)
    source.check(["a long text"])
    expected = encoder.encode(["a long text"], truncate=True)
    np.testing.assert_array_equal(source.embed(["a long text"])[0], expected.values)
