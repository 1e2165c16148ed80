"""What stands around a prompt when a language model reads it as a text encoder (HunyuanVideo).

The model gets an instruction with the prompt inside; the states of the instruction's first tokens
are left out of the embedding.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from mg.console import one_line
from mg.json_file import read_json_object

__all__ = ["PLACEHOLDER", "PromptTemplate"]

PLACEHOLDER = "{}"
MAX_CHARACTERS = 1 << 16
MAX_CROP = 1 << 12
FORM = '{"template": "... {} ...", "crop_start": N}'


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """A text with a place for the prompt, as diffusers' `prompt_template` has it.

    Attributes:
        template: with `{}` where the prompt goes, once.
        crop_start: how many tokens in front are left out of the embedding.

    Raises:
        ValueError: a template without place for the prompt, or a number out of range.
    """

    template: str
    crop_start: int

    def __post_init__(self) -> None:
        text, crop = self.template, self.crop_start
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise ValueError(f"prompt_template: template is {_shown(text)}; expected a text")
        around = text.replace(PLACEHOLDER, "", 1)
        if around == text or "{" in around or "}" in around:
            raise ValueError(
                f"prompt_template: template is {_shown(text)}; expected {PLACEHOLDER} once, where "
                "the prompt goes, and no other braces"
            )
        if not isinstance(crop, int) or isinstance(crop, bool) or not 0 <= crop <= MAX_CROP:
            raise ValueError(
                f"prompt_template: crop_start is {_shown(crop)}; expected a whole number from 0 to "
                f"{MAX_CROP}, the tokens of the template in front of the prompt"
            )

    @classmethod
    def of(cls, given: "PromptTemplate | Mapping | str | os.PathLike") -> "PromptTemplate":
        """Return the template of a mapping with the keys `template` and `crop_start`.

        Args:
            given: the mapping, the path of a JSON file that holds it, or the template itself.

        Raises:
            FileNotFoundError: no such file.
            ValueError: other keys, or values that make no template.
        """
        if isinstance(given, cls):
            return given
        place = "prompt_template"
        if isinstance(given, str | os.PathLike):
            place = f"prompt_template {os.fspath(given)}"
            try:
                given = read_json_object(given)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{place} not found; expected a JSON file with {FORM}"
                ) from None
        if not isinstance(given, Mapping):
            raise ValueError(f"{place} is {_shown(given)}; expected {FORM} or a JSON file with it")
        if set(given) != {"template", "crop_start"}:
            raise ValueError(f"{place} has the keys {_shown(sorted(given))}; expected {FORM}")
        return cls(**given)

    def around(self, prompt: str) -> str:
        """Return what the model reads."""
        return self.template.replace(PLACEHOLDER, prompt)

    def digest(self) -> str:
        """Return the SHA-256 of what it says."""
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode("ascii")).hexdigest()


def _shown(value: Any) -> str:
    return one_line(repr(value))
