"""Text as a condition: the empty text stands for none."""

from collections.abc import Sequence

import numpy as np

from mg.conditions.condition import Condition, LatentShape
from mg.conditions.text.encoder import TextEncoder

__all__ = ["TextCondition"]


class TextCondition(Condition):
    """What one text encoder makes of prompts: embedding (B, L, D) and mask (B, L).

    Args:
        encoder: of the text.
        truncate: whether texts that are too long are cut, instead of refused.
    """

    name = "text"

    def __init__(self, encoder: TextEncoder, *, truncate: bool = False) -> None:
        self._encoder = encoder
        self._truncate = truncate

    @property
    def identity(self) -> str:
        return self._encoder.identity

    def check(self, given: Sequence[str | None]) -> None:
        if not self._truncate:
            self._encoder.check_lengths([text or "" for text in given])

    def batch(
        self, given: Sequence[str | None], latent_shape: LatentShape
    ) -> tuple[np.ndarray, ...]:
        texts = [text or "" for text in given]
        different = list(dict.fromkeys(texts))  # each is embedded once
        embedding = self._encoder.encode(different, truncate=self._truncate)
        rows = [different.index(text) for text in texts]
        return embedding.values[rows], embedding.mask[rows]
