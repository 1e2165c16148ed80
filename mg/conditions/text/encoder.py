"""What every text encoder offers: texts in, embeddings of a fixed number of tokens out."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mg.conditions.text.prompt_template import PromptTemplate

__all__ = ["TRUNCATE_HINT", "TextEmbedding", "TextEncoder"]

# Where there is such a setting; the page has none.
TRUNCATE_HINT = ", or have it cut (the setting `truncate`)"
NUM_SHOWN = 60  # characters of a text in messages
MAX_TOKENS = 1 << 16


@dataclasses.dataclass(frozen=True)
class TextEmbedding:
    """Embedded texts.

    Attributes:
        values: float32 (B, L, D); zero where the mask is false. Of a single text: (L, D).
        mask: bool (B, L), true for tokens of the text, false for padding. Of a single text: (L,).
    """

    values: np.ndarray
    mask: np.ndarray

    def __post_init__(self) -> None:
        if self.values.shape[:-1] != self.mask.shape:
            raise ValueError(
                f"values {self.values.shape} and mask {self.mask.shape} do not belong together; "
                "expected (B, L, D) and (B, L)"
            )


class TextEncoder(abc.ABC):
    """A text encoder with frozen weights.

    A text becomes tokens, of which the last one always marks the end: even the empty text has one.

    Attributes:
        name: what the encoder is called in configs; no two encoders of a model share one.
        spec: the text from which `mg.conditions.text.build` makes this encoder again.
        width: D, the size of a token's embedding.
        max_tokens: L, the number of tokens of every embedding, mark of the end included.
        takes_template: whether texts are read within a prompt template.
        has_precisions: whether it has `in_precision(dtype)`; the others run in float32.
    """

    name: str
    spec: str
    width: int
    max_tokens: int
    takes_template = False
    has_precisions = False

    @property
    def room(self) -> int:
        """How many tokens a text may have, which are more than L where some are left out."""
        return self.max_tokens

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Text that changes whenever the embeddings would (weights, tokenizer, max_tokens)."""

    @abc.abstractmethod
    def tokenize(self, text: str) -> list[Any]:
        """Return all tokens of a text, however many, the last one marking the end."""

    @abc.abstractmethod
    def embed(self, tokens: Sequence[list[Any]]) -> list[np.ndarray]:
        """Return one float32 array (n, D) for each list of tokens, n at most L.

        It has a row for each token, unless the encoder leaves some out.
        """

    def crops_prompts(self) -> bool:
        """Return whether the prompt template leaves out the beginning of prompts too."""
        return False

    def with_template(self, template: PromptTemplate | None) -> "TextEncoder":
        """Return the encoder with another prompt template; itself where there is none to take.

        Raises:
            ValueError: a template that does not belong to the encoder's tokenizer.
        """
        return self

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> TextEmbedding:
        """Return the embeddings of texts: values (B, L, D) and mask (B, L), L = `max_tokens`.

        Args:
            texts: B texts; the empty text is one too.
            truncate: whether a text with too many tokens loses the last ones (the mark of the end
                stays).

        Raises:
            ValueError: a text has more than `room` tokens and `truncate` is false; or texts
                is not a list of texts.
        """
        tokens = self._tokens_of(texts, truncate)
        embedded = self.embed(tokens) if tokens else []
        values = np.zeros((len(tokens), self.max_tokens, self.width), np.float32)  # (B, L, D)
        mask = np.zeros(values.shape[:2], bool)  # (B, L)
        for i, rows in enumerate(embedded):
            values[i, : len(rows)] = rows
            mask[i, : len(rows)] = True
        return TextEmbedding(values, mask)

    def check_lengths(self, texts: Sequence[str]) -> None:
        """Raise ValueError, as `encode` would, if a text is too long; nothing is embedded."""
        self._tokens_of(texts, False)

    def is_too_long(self, text: str) -> bool:
        """Return whether a text has more than `room` tokens."""
        return len(self.tokenize(text)) > self.room

    def _tokens_of(self, texts: Sequence[str], truncate: bool) -> list[list[Any]]:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"texts={texts!r}: expected a list of texts")
        tokens = [self.tokenize(text) for text in texts]
        too_long = [i for i, row in enumerate(tokens) if len(row) > self.room]
        if too_long and not truncate:
            first = texts[too_long[0]]
            shown = first if len(first) <= NUM_SHOWN else first[:NUM_SHOWN] + "..."
            others = f" (and {len(too_long) - 1} more)" if len(too_long) > 1 else ""
            raise ValueError(
                f"the text {shown!r}{others} is too long for the encoder {self.name!r}: "
                f"{len(tokens[too_long[0]])} tokens, at most {self.room} fit; shorten it"
                f"{TRUNCATE_HINT}"
            )
        return [self._cut(row) for row in tokens]

    def _cut(self, tokens: list[Any]) -> list[Any]:
        if len(tokens) <= self.room:
            return tokens
        return [*tokens[: self.room - 1], tokens[-1]]


def check_max_tokens(max_tokens: int, *, is_whole_text: bool = False) -> int:
    """Return max_tokens.

    Args:
        max_tokens: of an encoder.
        is_whole_text: whether its only token is the whole text.

    Raises:
        ValueError: it is not at least 2, a token of text and the mark of the end, or not at most
            65,536; or more than 1 of a whole text.
    """
    if is_whole_text:
        if max_tokens != 1:
            raise ValueError(f"max_tokens={max_tokens}; a whole text is 1 token")
        return max_tokens
    if not 2 <= max_tokens <= MAX_TOKENS:
        raise ValueError(f"max_tokens={max_tokens}; expected 2 to {MAX_TOKENS}")
    return max_tokens
