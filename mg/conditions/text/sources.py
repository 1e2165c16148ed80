"""Where a dataset gets the embeddings of its captions: from a cache on disk, or computed anew."""

import functools
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from mg.conditions.text.cache import TextCache
from mg.conditions.text.encoder import TextEncoder

__all__ = ["CachedText", "EncodedText", "TextSource"]

MEMORY_FOR_TEXTS = 256 * 2**20  # bytes of embeddings that `EncodedText` keeps
NUM_SHOWN = 5  # texts in messages


class TextSource(Protocol):
    """One text encoder as a dataset sees it."""

    def check(self, texts: Collection[str]) -> None:
        """Raise ValueError or FileNotFoundError if some of these texts could not be embedded."""

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return (values float32 (B, L, D), mask bool (B, L)) of B texts."""


class CachedText:
    """Embeddings that mg encode-text has stored; the encoder itself is not needed."""

    def __init__(self, cache: TextCache) -> None:
        self._cache = cache

    def check(self, texts: Collection[str]) -> None:
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if not missing:
            return
        shown = "".join(f"\n  {text!r}" for text in missing[:NUM_SHOWN])
        rest = "\n  ..." if len(missing) > NUM_SHOWN else ""
        raise FileNotFoundError(
            f"{len(missing)} of {len(set(texts))} texts have no embedding by "
            f"{self._cache.info.name!r}; run mg encode-text --encoder "
            f"{self._cache.info.spec} --output_folder FOLDER --csv_path CAPTIONS for:{shown}{rest}"
        )

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        read = [self._cache.read(text) for text in texts]
        return np.stack([text.values for text in read]), np.stack([text.mask for text in read])


class EncodedText:
    """Embeddings computed when they are needed; those used last are kept in memory.

    Args:
        encoder: what embeds.
        truncate: whether texts that are too long are cut, instead of refused.
    """

    def __init__(self, encoder: TextEncoder, *, truncate: bool = False) -> None:
        self._encoder = encoder
        self._truncate = truncate
        num_kept = MEMORY_FOR_TEXTS // (4 * encoder.max_tokens * encoder.width)
        self._embed_one = functools.lru_cache(maxsize=num_kept)(self._compute)

    def check(self, texts: Collection[str]) -> None:
        if not self._truncate:
            self._encoder.check_lengths(list(dict.fromkeys(texts)))

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        pairs = [self._embed_one(text) for text in texts]
        return np.stack([values for values, _ in pairs]), np.stack([mask for _, mask in pairs])

    def _compute(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        embedding = self._encoder.encode([text], truncate=self._truncate)
        return embedding.values[0], embedding.mask[0]
