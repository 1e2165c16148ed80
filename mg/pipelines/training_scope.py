"""What a generator was made for: the words, sizes and lengths that it was trained on."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mg.latent_spec import LatentSpec
from mg.pipelines.sampling_settings import SamplingSettings

__all__ = ["TrainingScope", "scope_of_captions"]

WORD = re.compile(r"[^\W_]+")
# Captions with more different words than this are natural language: no list of words bounds them.
MAX_WORDS = 1000
NUM_EXAMPLES, NUM_SHOWN = 4, 8


@dataclasses.dataclass(frozen=True)
class TrainingScope:
    """What the videos and captions of training had; stored in the generator's folder.

    Attributes:
        examples: captions, as prompts to begin with.
        words: every word of the captions in lower case, or none where there are too many to list.
        num_frames: lengths of the videos in frames; 1 is an image.
        sizes: (height, width) of the videos, in pixels.

    Raises:
        ValueError: a field of another kind.
    """

    examples: tuple[str, ...]
    words: tuple[str, ...]
    num_frames: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for name, kind in (("examples", str), ("words", str), ("num_frames", int), ("sizes", list)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple):
                raise ValueError(f"{name}={values!r}; expected a list")
            if kind is list:
                values = [tuple(v) if isinstance(v, list | tuple) else v for v in values]
                right = all(isinstance(v, tuple) and _are_sizes(v, 2) for v in values)
            else:
                right = _are_sizes(values) if kind is int else all(type(v) is str for v in values)
            if not right:
                expected = {str: "texts", int: "whole numbers", list: "pairs [height, width]"}
                raise ValueError(f"{name}={values!r}; expected {expected[kind]}")
            object.__setattr__(self, name, tuple(values))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "TrainingScope":
        """Return the scope that a mapping with the fields' names states.

        Raises:
            ValueError: a key is missing or unknown, or a value is of another kind.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(mapping, Mapping) or set(mapping) != set(names):
            raise ValueError(f"trained_on: expected an object with the keys {', '.join(names)}")
        return cls(**mapping)

    def departures(
        self, prompts: Sequence[str], settings: SamplingSettings, spec: LatentSpec
    ) -> str:
        """Return one line that names what of a request is new to the generator, or "".

        Args:
            prompts: of the videos.
            settings: of all of them.
            spec: the autoencoder's latents; lengths that give as many frames of them are one.
        """
        new = []
        texts = [*prompts, settings.negative_prompt]
        if self.words and (unknown := _unknown_words(texts, self.words)):
            more = f" and {len(unknown) - NUM_SHOWN} more" if len(unknown) > NUM_SHOWN else ""
            noun = "word" if len(unknown) == 1 else "words"
            new.append(f"the {noun} {', '.join(map(repr, unknown[:NUM_SHOWN]))}{more}")
        if (settings.height, settings.width) not in self.sizes:
            new.append(f"{settings.height}x{settings.width} pixels")
        lengths = set(map(spec.latent_frames, self.num_frames))
        if spec.latent_frames(settings.num_frames) not in lengths:
            new.append(f"a length of {settings.num_frames} frames")
        if not new:
            return ""
        return f"new to this generator: {'; '.join(new)}. It was trained on {self.summary()}"

    def summary(self) -> str:
        """Return in words what the generator was trained on."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes)
        lengths = ", ".join(map(str, self.num_frames))
        text = f"{sizes} pixels and {lengths} frames"
        return f"{text}, on captions like {self.examples[0]!r}" if self.examples else text


def scope_of_captions(
    captions: Sequence[str], num_frames: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> TrainingScope:
    """Return the scope of a training.

    Args:
        captions: all of them.
        num_frames: lengths of the videos.
        sizes: (height, width) of the videos.
    """
    words = sorted({word for caption in captions for word in _words(caption)})
    every = sorted(set(captions))
    step = max(1, len(every) // NUM_EXAMPLES)  # neighbours in order are much alike
    return TrainingScope(
        examples=tuple(every[::step][:NUM_EXAMPLES]),
        words=tuple(words) if len(words) <= MAX_WORDS else (),
        num_frames=tuple(sorted(set(num_frames))),
        sizes=tuple(sorted(set(sizes))),
    )


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _unknown_words(texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the words of the texts that are not known, each once, in their order."""
    words = dict.fromkeys(word for text in texts for word in _words(text))
    return [word for word in words if word not in set(known)]


def _are_sizes(values: Sequence[Any], count: int | None = None) -> bool:
    return (count is None or len(values) == count) and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values
    )
