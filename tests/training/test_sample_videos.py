"""Samples of a training run: how clips are put together, and where their text comes from."""

import numpy as np
import pytest

from mg.conditions.text.build import build_text_encoder
from mg.conditions.text.cache import TextCache, fill_text_cache
from mg.conditions.text.sources import CachedText, EncodedText
from mg.training.denoiser.sample_videos import EncoderOfSource, grid


@pytest.mark.parametrize(
    ("num_clips", "shape"),
    [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3)), (11, (3, 4))],
)
def test_clips_stand_side_by_side_or_in_a_square(num_clips, shape):
    clips = np.random.default_rng(0).integers(1, 256, (num_clips, 2, 3, 5, 3), np.uint8)
    frames = grid(list(clips))
    assert frames.shape == (2, 3 * shape[0], 5 * shape[1], 3) and frames.dtype == np.uint8
    for number, clip in enumerate(clips):
        row, column = divmod(number, shape[1])
        cell = frames[:, 3 * row : 3 * row + 3, 5 * column : 5 * column + 5]
        np.testing.assert_array_equal(cell, clip)
    assert np.count_nonzero(frames) == clips.size  # what is free is black


def test_text_of_samples_comes_from_the_cache_if_there_is_one(tmp_path, monkeypatch):
    encoder = build_text_encoder("word,width=32,max_tokens=4")
    expected = encoder.encode(["a red square", ""])
    fill_text_cache(tmp_path, encoder, ["a red square"])
    source = CachedText(TextCache.open(tmp_path, encoder.identity))
    monkeypatch.setattr(encoder, "embed", None)  # a large network that must not be loaded
    cached = EncoderOfSource(encoder, source)
    cached.check_lengths(["a red square", ""])
    found = cached.encode(["a red square", ""])
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.mask, expected.mask)
    with pytest.raises(FileNotFoundError, match=r"1 of 1 texts have no embedding by 'word'"):
        cached.check_lengths(["a blue square"])


@pytest.mark.parametrize("truncate", [False, True])
def test_text_of_samples_is_cut_as_that_of_training(truncate):
    encoder = build_text_encoder("word,width=32,max_tokens=3")
    of_source = EncoderOfSource(encoder, EncodedText(encoder, truncate=truncate))
    assert of_source.is_too_long("a red square")
    if truncate:
        of_source.check_lengths(["a red square"])
        found = of_source.encode(["a red square"])
        expected = encoder.encode(["a red square"], truncate=True)
        np.testing.assert_array_equal(found.values, expected.values)
    else:
        with pytest.raises(ValueError, match="4 tokens, at most 3 fit"):
            of_source.check_lengths(["a red square"])
