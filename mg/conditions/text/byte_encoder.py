"""A text encoder without weights: bytes and words as fixed vectors, the same on every machine.

Each byte of the text, with the ids of ByT5's tokenizer, becomes a vector that says which byte it
is, how its word begins, which whole word it belongs to and where it stands. What is random in it
comes from hashes. The whole word is in the vector because a small network's cross-attention can
pick tokens, but not spell words from them.

With unit="word" there is one token per word, the mean over the vectors of its bytes: a caption
has 10 tokens instead of 50, and cross-attention costs a fifth. With unit="text" there is a single
token, the mean over all bytes, for networks that want one vector for the text (HunyuanVideo).
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mg.conditions.text.encoder import TextEncoder, check_max_tokens

__all__ = ["END_ID", "PAD_ID", "ByteEncoder", "byte_ids"]

PAD_ID, END_ID, FIRST_BYTE_ID = 0, 1, 3  # of ByT5's tokenizer; 2 is for unknown, which no byte is

MAX_TOKENS = {"byte": 64, "word": 16, "text": 1}
MAX_WIDTH = 1 << 16
# Runs of letters, digits and bytes of characters beyond ASCII are words, like any other byte.
WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+|.", re.DOTALL)
END_WORD = b"</s>"  # no word of a text: those are alphanumeric, or one byte
# Parts of a byte's vector, as fractions of the width: the whole word, the word up to this byte,
# the byte, the byte's place, the word's number.
PARTS = {"word": 2, "prefix": 4, "byte": 8, "place": 16, "number": 16}
LONGEST_PERIOD = 100.0  # of the sinusoids, over 2 pi: in bytes or words
VERSION = 1  # to be raised whenever the vectors change


def byte_ids(text: str) -> list[int]:
    """Return the token ids of ByT5's tokenizer: UTF-8 bytes + 3, then the end, 1.

    Names of special tokens in the text, such as `</s>`, are bytes like any others.
    """
    return [byte + FIRST_BYTE_ID for byte in text.encode("utf-8")] + [END_ID]


class _Byte(NamedTuple):
    """One byte of a text."""

    id: int
    word: bytes  # to which it belongs, in lower case
    num_before: int  # bytes of the word before it
    place: int  # in the text
    number: int  # of the word in the text, white space not counted


class ByteEncoder(TextEncoder):
    """Fixed vectors of bytes, words or whole texts."""

    def __init__(
        self, *, unit: str = "byte", width: int = 256, max_tokens: int | None = None
    ) -> None:
        """Make the encoder.

        Args:
            unit: what a token is, "byte", "word" or "text".
            width: D, a multiple of 32.
            max_tokens: L, the end included; None takes 64 bytes, or 16 words. A text is 1.

        Raises:
            ValueError: another unit, width or number.
        """
        if unit not in MAX_TOKENS:
            raise ValueError(f"unit={unit!r}; expected one of {', '.join(MAX_TOKENS)}")
        if not 32 <= width <= MAX_WIDTH or width % 32:
            raise ValueError(f"width={width}; expected a multiple of 32, at most {MAX_WIDTH}")
        self.name = unit
        self.width = width
        max_tokens = MAX_TOKENS[unit] if max_tokens is None else max_tokens
        self.max_tokens = check_max_tokens(max_tokens, is_whole_text=unit == "text")
        self.spec = f"{unit},width={width},max_tokens={self.max_tokens}"

    @property
    def identity(self) -> str:
        return f"{self.spec},version={VERSION}"

    def tokenize(self, text: str) -> list[tuple[_Byte, ...]]:
        """Return tokens, each the bytes that it is made of."""
        words = _words(text)
        if self.name == "text":
            return [tuple(byte for word in words for byte in word)]
        if self.name == "byte":
            return [(byte,) for word in words for byte in word]
        return [word for word in words if not word[0].word.isspace()]

    def embed(self, tokens: Sequence[list[tuple[_Byte, ...]]]) -> list[np.ndarray]:
        return [
            np.stack([np.mean([self._vector(byte) for byte in token], axis=0) for token in row])
            for row in tokens
        ]

    def _vector(self, byte: _Byte) -> np.ndarray:
        """Return the vector (D,) of one byte; the mean square of each of its parts is 1."""
        sizes = {part: self.width // fraction for part, fraction in PARTS.items()}
        return np.concatenate(
            [
                _signs(b"word " + byte.word, sizes["word"]),
                _signs(b"prefix " + byte.word[: byte.num_before + 1], sizes["prefix"]),
                _signs(b"byte %d" % byte.id, sizes["byte"]),
                _sinusoids(byte.place, sizes["place"]),
                _sinusoids(byte.number, sizes["number"]),
            ]
        )


def _words(text: str) -> list[tuple[_Byte, ...]]:
    """Return all bytes of a text word by word, white space too, and the end as the last word."""
    words, place, number = [], 0, 0
    for match in WORD.findall(text.encode("utf-8")):
        word = match.lower()
        words.append(
            tuple(
                _Byte(byte + FIRST_BYTE_ID, word, i, place + i, number)
                for i, byte in enumerate(match)
            )
        )
        place += len(match)
        number += not word.isspace()
    return [*words, (_Byte(END_ID, END_WORD, 0, place, number),)]


@functools.lru_cache(maxsize=1 << 14)
def _signs(label: bytes, size: int) -> np.ndarray:
    """Return a vector of -1 and 1, random but fixed for the label; others are near orthogonal."""
    digest = hashlib.shake_256(label).digest(-(-size // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:size]
    return bits.astype(np.float32) * 2 - 1


@functools.lru_cache(maxsize=1 << 12)
def _sinusoids(position: int, size: int) -> np.ndarray:
    """Return sines and cosines of a position, with periods from 2 pi up."""
    frequencies = LONGEST_PERIOD ** (-np.arange(size // 2) / (size // 2))
    angles = position * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)])
    return (waves * np.sqrt(2.0)).astype(np.float32)
