"""What all text encoders share: lengths, truncation, the frame rate's prefix."""

import subprocess
import sys

import numpy as np
import pytest

from mg.conditions.text.build import build_text_encoder, build_text_encoders
from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.encoder import TextEmbedding
from mg.conditions.text.prompts import with_fps


def test_too_long_is_said_and_cut_only_when_asked():
    encoder = ByteEncoder(unit="word", width=32, max_tokens=4)
    fitting, too_long = "a red circle", "a red circle moving left"
    with pytest.raises(ValueError, match=r"'a red circle moving left' is too long .* 6 tokens.* 4"):
        encoder.encode([fitting, too_long])
    with pytest.raises(ValueError, match=r"\(and 2 more\)"):
        encoder.check_lengths([too_long] * 3)
    assert [encoder.is_too_long(text) for text in (fitting, too_long)] == [False, True]
    whole, cut = encoder.encode([fitting, too_long], truncate=True).values
    np.testing.assert_array_equal(cut[:3], whole[:3])
    np.testing.assert_array_equal(cut[3, :28], whole[3, :28])  # the end, after another place


def test_long_texts_are_shortened_in_the_message():
    with pytest.raises(ValueError, match="text '" + "x" * 60 + "...' is too long"):
        ByteEncoder().encode(["x" * 1000])


def test_empty_text_and_no_text():
    encoder = ByteEncoder(unit="word")
    empty = encoder.encode([""])
    assert empty.mask.sum() == 1 and empty.mask[0, 0]
    assert (empty.values[0, 0] != 0).any() and (empty.values[0, 1:] == 0).all()
    assert encoder.encode([]).values.shape == (0, 16, 256)


@pytest.mark.parametrize("texts", ["a text", [b"bytes"], [None]])
def test_what_is_no_list_of_texts_is_refused(texts):
    with pytest.raises(ValueError, match="expected a list of texts"):
        ByteEncoder().encode(texts)


def test_values_and_mask_must_fit():
    with pytest.raises(ValueError, match=r"expected \(B, L, D\) and \(B, L\)"):
        TextEmbedding(np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), bool))


def test_frame_rate_stands_before_the_prompt():
    assert with_fps("a red circle", 16) == "FPS-16 a red circle"
    assert with_fps("a red circle", 23.976) == "FPS-24 a red circle"
    assert with_fps("", 16) == ""
    with pytest.raises(ValueError, match="frame rate already"):
        with_fps("FPS-16 a red circle", 16)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected frames per second"):
            with_fps("a red circle", fps)


def test_encoders_by_spec(t5_folder):
    encoder = build_text_encoder("word,width=64,max_tokens=20")
    assert (encoder.name, encoder.width, encoder.max_tokens) == ("word", 64, 20)
    encoders = build_text_encoders(["byte", f"t5:{t5_folder},max_tokens=30"])
    assert [(e.name, e.width, e.max_tokens) for e in encoders] == [
        ("byte", 256, 64),
        ("t5", 32, 30),
    ]
    for each in (encoder, *encoders):
        again = build_text_encoder(each.spec)
        assert (again.spec, again.identity) == (each.spec, each.identity)


@pytest.mark.parametrize(
    "spec",
    ["", "bytes", "byte:/folder", "t5", "t5:", "t5:/x,width=3", "word,depth=3", "word,width=x"],
)
def test_unknown_specs_are_refused(spec):
    with pytest.raises(
        ValueError, match=r"unknown text encoder .*; expected byte, word, text, t5:FOLDER"
    ):
        build_text_encoder(spec)


def test_lists_of_encoders_are_checked():
    with pytest.raises(ValueError, match="no text encoder is given"):
        build_text_encoders([])
    with pytest.raises(ValueError, match="each name may be there once"):
        build_text_encoders(["word", "word,width=64"])


def test_mindspore_and_transformers_are_not_imported_before_they_are_needed():
    program = (
        "import sys\n"
        "from mg.conditions.text import build, cache, prompts, sources\n"
        "build.build_text_encoder('word').encode(['a text'])\n"
        "print({'mindspore', 'mindone', 'transformers', 'tokenizers'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr
