"""Leaving the text out in training, so that classifier-free guidance has an unconditional model."""

import numpy as np

from mg.text.encoder import TextEmbedding

__all__ = ["draw_dropped", "drop_text"]


def draw_dropped(probability: float, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return bool (B,): which samples of a batch lose their text, in all encoders alike.

    Args:
        probability: in [0, 1].
        batch_size: B.
        rng: keyed by seed and step, so that a resumed run draws the same.

    Raises:
        ValueError: no probability.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability={probability} of dropping the text; expected 0 to 1")
    return rng.random(batch_size) < probability


def drop_text(text: TextEmbedding, empty: TextEmbedding, dropped: np.ndarray) -> TextEmbedding:
    """Return the texts with those dropped replaced by the empty text, as guidance samples it.

    Args:
        text: (B, L, D).
        empty: the empty text by the same encoder, (1, L, D) or (L, D).
        dropped: bool (B,), from `draw_dropped`.

    Raises:
        ValueError: the empty text has another shape than the texts.
    """
    empty_values = empty.values.reshape(-1, *empty.values.shape[-2:])  # (1, L, D)
    if empty_values.shape != (1, *text.values.shape[1:]):
        raise ValueError(
            f"the empty text is {empty.values.shape}, the texts are {text.values.shape}; expected "
            "one text of the same encoder"
        )
    return TextEmbedding(
        np.where(dropped[:, None, None], empty_values, text.values),  # (B, L, D)
        np.where(dropped[:, None], empty.mask.reshape(1, -1), text.mask),  # (B, L)
    )
