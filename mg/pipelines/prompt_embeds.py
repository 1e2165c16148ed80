"""Texts that were embedded elsewhere, as diffusers' pipelines take them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mg.models.denoiser_config import DenoiserConfig, TextInput

__all__ = ["EMBEDS", "PromptEmbeds", "texts_of_call"]

NAMES = ("prompt_embeds", "prompt_attention_mask", "pooled_prompt_embeds")
NEGATIVE = tuple(f"negative_{name}" for name in NAMES)
EMBEDS = (*NAMES, *NEGATIVE)  # arguments of a call


@dataclasses.dataclass(frozen=True)
class PromptEmbeds:
    """What a network takes in place of prompts.

    Attributes:
        tensors: of each text encoder embedding (B, L, D) and mask (B, L), a row per video.
        negative: the same of what the videos are pushed away from; None where it is not given.
    """

    tensors: tuple[np.ndarray, ...]
    negative: tuple[np.ndarray, ...] | None

    @property
    def num_videos(self) -> int:
        """How many videos the embeddings are of."""
        return len(self.tensors[0])

    @classmethod
    def of(cls, config: DenoiserConfig, given: Mapping[str, Any]) -> "PromptEmbeds | None":
        """Return the tensors of a call's arguments; None where it has none of them.

        Args:
            config: of the network.
            given: values of `EMBEDS` by name, arrays or None: embeddings (B, L, D), masks (B, L),
                without which all tokens count, and pooled embeddings (B, D).

        Raises:
            ValueError: one that the network does not take, lacks, or that has another shape.
        """
        arrays = {name: np.asarray(a) for name, a in given.items() if a is not None}
        if not arrays:
            return None
        inputs = config.text_encoders
        has_pooled = len(inputs) == 2 and inputs[1].max_tokens == 1
        if len(inputs) != 1 and not has_pooled:
            raise ValueError(
                f"prompt_embeds: this network takes embeddings of {len(inputs)} text encoders, "
                f"{', '.join(encoder.name for encoder in inputs)}; give prompts"
            )
        tensors = _tensors(inputs, arrays, NAMES, has_pooled)
        if not any(name in arrays for name in NEGATIVE):
            return cls(tensors, None)
        negative = _tensors(inputs, arrays, NEGATIVE, has_pooled)
        shapes = [[tuple(a.shape) for a in both] for both in (tensors, negative)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"negative_prompt_embeds and what belongs to it have the shapes {shapes[1]}; "
                f"expected those of the prompts, {shapes[0]}"
            )
        return cls(tensors, negative)


def texts_of_call(prompts: str | Sequence[str] | None, embeds: PromptEmbeds | None) -> list[str]:
    """Return the prompts as a list; empty ones where they were embedded elsewhere.

    Raises:
        ValueError: neither is given, or both.
    """
    if (prompts is None) == (embeds is None):
        raise ValueError("prompts and prompt_embeds: give one of them")
    if embeds is not None:
        return [""] * embeds.num_videos
    return [prompts] if isinstance(prompts, str) else list(prompts)


def _tensors(
    inputs: tuple[TextInput, ...],
    arrays: Mapping[str, np.ndarray],
    names: tuple[str, ...],
    has_pooled: bool,
) -> tuple[np.ndarray, ...]:
    name, mask_name, pooled_name = names
    for needed in (name, pooled_name) if has_pooled else (name,):
        if needed not in arrays:
            raise ValueError(f"{needed} is missing, which belongs to the embeddings given")
    if not has_pooled and pooled_name in arrays:
        raise ValueError(f"{pooled_name}: this network takes no pooled embedding; leave it out")
    values = arrays[name].astype(np.float32, copy=False)
    width, longest = inputs[0].width, inputs[0].max_tokens
    if values.ndim != 3 or values.shape[2] != width or not 1 <= values.shape[1] <= longest:
        raise ValueError(
            f"{name} has the shape {values.shape}; expected (videos, at most {longest} tokens, "
            f"{width})"
        )
    mask = arrays.get(mask_name)
    mask = np.ones(values.shape[:2], bool) if mask is None else mask.astype(bool)
    if mask.shape != values.shape[:2]:
        raise ValueError(f"{mask_name} has the shape {mask.shape}; expected {values.shape[:2]}")
    if not has_pooled:
        return values, mask
    pooled = arrays[pooled_name].astype(np.float32, copy=False)
    expected = (len(values), inputs[1].width)
    if pooled.shape != expected:
        raise ValueError(f"{pooled_name} has the shape {pooled.shape}; expected {expected}")
    return values, mask, pooled[:, np.newaxis], np.ones((len(values), 1), bool)
