"""Text encoders by their names in configs and on command lines."""

import re

from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.encoder import TextEncoder
from mg.conditions.text.pretrained import PRETRAINED_KINDS, PretrainedTextEncoder
from mg.console import one_line

__all__ = ["UNITS", "build_text_encoder", "build_text_encoders"]

UNITS = ("byte", "word", "text")
WITHOUT_WEIGHTS = re.compile(rf"({'|'.join(UNITS)})((?:,(?:max_tokens|width)=\d{{1,9}})*)")
PRETRAINED = re.compile(
    rf"({'|'.join(PRETRAINED_KINDS)}):([^,]+)((?:,max_tokens=\d{{1,9}})?)((?:,padded)?)"
)
KNOWN = "byte, word, text, t5:FOLDER, byt5:FOLDER, clip:FOLDER, each optionally with ,max_tokens=N"


def build_text_encoder(spec: str) -> TextEncoder:
    """Return the text encoder that a spec names.

    Args:
        spec: `byte`, `word` or `text` (no weights), `t5:FOLDER`, `byt5:FOLDER` or `clip:FOLDER`
            (the folder's path has no commas). Options follow after commas: `max_tokens=N`, for
            those without weights also `width=N`, as in `word,width=128,max_tokens=16`; after a
            folder also `padded`, as in `t5:FOLDER,max_tokens=226,padded` for CogVideoX.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: the spec names no encoder, or an option that it does not have.
    """
    if not isinstance(spec, str):
        raise ValueError(f"a text encoder is named by {one_line(repr(spec))}; expected text")
    if match := WITHOUT_WEIGHTS.fullmatch(spec):
        return ByteEncoder(unit=match[1], **_numbers(match[2]))
    if match := PRETRAINED.fullmatch(spec):
        numbers = _numbers(match[3])
        return PretrainedTextEncoder(match[1], match[2], **numbers, padded=bool(match[4]))
    raise ValueError(f"unknown text encoder {one_line(repr(spec))}; expected {KNOWN}")


def build_text_encoders(specs: list[str]) -> list[TextEncoder]:
    """Return the encoders of several specs.

    Raises:
        FileNotFoundError, ValueError: as `build_text_encoder`; or there is none, or two of one
            name.
    """
    if not specs:
        raise ValueError(f"no text encoder is given; expected one or more of {KNOWN}")
    encoders = [build_text_encoder(spec) for spec in specs]
    names = [encoder.name for encoder in encoders]
    if len(set(names)) < len(names):
        raise ValueError(f"text encoders {', '.join(names)}: each name may be there once")
    return encoders


def _numbers(options: str) -> dict[str, int]:
    """Return {name: number} of options like `,width=64,max_tokens=16`."""
    pairs = (option.split("=") for option in options.split(",")[1:])
    return {name: int(number) for name, number in pairs}
