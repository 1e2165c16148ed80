"""Captions and tiny pretrained encoders for the tests of mg/conditions/text."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.text_encoders import write_tokenizer

FIXTURES = Path(__file__).parents[2] / "fixtures" / "text"

COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
SHAPES = ("circle", "square", "triangle")
MOTIONS = ("moving left", "moving right", "moving up", "moving down")
BACKGROUNDS = ("black", "white", "gray")


@pytest.fixture(scope="session")
def captions():
    """All 216 captions of the grammar, with what they say: {caption: its four choices}."""
    return {
        f"a {c} {s} {m} on a {b} background": (c, s, m, b)
        for c, s, m, b in itertools.product(COLOURS, SHAPES, MOTIONS, BACKGROUNDS)
    }


@pytest.fixture
def t5_folder(tmp_path):
    """A tiny T5 with a tokenizer, with which "w5 w6 w7 w8" has the reference's ids."""
    folder = Path(shutil.copytree(FIXTURES / "t5", tmp_path / "t5"))
    write_tokenizer(folder / "tokenizer.json", "$A </s>", {"</s>": 1})
    return folder


@pytest.fixture
def clip_folder(tmp_path):
    """A tiny CLIP with a tokenizer, with which "w6 w7 w8 w9" has the reference's ids."""
    folder = Path(shutil.copytree(FIXTURES / "clip", tmp_path / "clip"))
    write_tokenizer(folder / "tokenizer.json", "<s> $A </s>", {"<s>": 0, "</s>": 2})
    return folder


@pytest.fixture(scope="session")
def reference():
    """Return the hidden states (L, D) of the reference's tokens, padding left out."""

    def read(name):
        arrays = np.load(FIXTURES / f"{name}.npz")
        return arrays["o:y"][arrays["i:mask"].astype(bool)]

    return read
