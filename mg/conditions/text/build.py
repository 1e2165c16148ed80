"""Text encoders by their names in configs and on command lines."""

import os
import re
from collections.abc import Mapping
from typing import Any

from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.encoder import TextEncoder
from mg.conditions.text.llama_encoder import KIND as LLAMA
from mg.conditions.text.llama_encoder import LlamaEncoder
from mg.conditions.text.pretrained import PRETRAINED_KINDS, PretrainedTextEncoder
from mg.console import one_line

__all__ = ["UNITS", "absolute_spec", "build_text_encoder", "build_text_encoders"]

UNITS = ("byte", "word", "text")
WITHOUT_WEIGHTS = re.compile(rf"({'|'.join(UNITS)})((?:,(?:max_tokens|width)=\d{{1,9}})*)")
# Options behind an encoder's folder, with what they must look like; empty: a word alone.
NUMBER = re.compile(r"\d{1,9}")
OPTIONS: dict[str, Mapping[str, re.Pattern | None]] = {
    kind: {"max_tokens": NUMBER, "padded": None} for kind in PRETRAINED_KINDS
}
OPTIONS["clip"] = {**OPTIONS["clip"], "pooled": None}
OPTIONS[LLAMA] = {
    "max_tokens": NUMBER,
    "template": re.compile(".+"),
    "dtype": re.compile(r"\w+"),
}
PATHS = ("template",)  # options that are paths
KNOWN = (
    "byte, word, text, t5:FOLDER, byt5:FOLDER, clip:FOLDER, llama:FOLDER, each optionally with "
    ",max_tokens=N"
)


def build_text_encoder(spec: str) -> TextEncoder:
    """Return the text encoder that a spec names.

    Args:
        spec: `byte`, `word` or `text` (no weights), `t5:FOLDER`, `byt5:FOLDER`, `clip:FOLDER` or
            `llama:FOLDER` (paths have no commas). Options follow after commas: `max_tokens=N`, for
            those without weights also `width=N`, as in `word,width=128,max_tokens=16`; after a
            folder also `padded`, as in `t5:FOLDER,max_tokens=226,padded` for CogVideoX; for
            HunyuanVideo `clip:FOLDER,pooled` and `llama:FOLDER,template=FILE,dtype=float16`.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: the spec names no encoder, or an option that it does not have.
    """
    if not isinstance(spec, str):
        raise ValueError(f"a text encoder is named by {one_line(repr(spec))}; expected text")
    if match := WITHOUT_WEIGHTS.fullmatch(spec):
        return ByteEncoder(unit=match[1], **_numbers(match[2]))
    if parts := _pretrained(spec):
        kind, folder, options = parts
        if "max_tokens" in options:
            options["max_tokens"] = int(options["max_tokens"])
        if kind == LLAMA:
            return LlamaEncoder(folder, **options)
        return PretrainedTextEncoder(kind, folder, **options)
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


def absolute_spec(spec: str) -> str:
    """Return the spec of an encoder with the paths in it as seen from anywhere."""
    parts = _pretrained(spec)
    if parts is None:
        return spec
    kind, folder, options = parts
    words = [f"{kind}:{os.path.abspath(folder)}"]
    for name, value in options.items():
        value = os.path.abspath(value) if name in PATHS else value
        words.append(name if value is True else f"{name}={value}")
    return ",".join(words)


def _pretrained(spec: str) -> tuple[str, str, dict[str, Any]] | None:
    """Return kind, folder and options of a pretrained encoder; None if a spec names none."""
    kind, _, rest = spec.partition(":")
    folder, *words = rest.split(",")
    if kind not in OPTIONS or not folder:
        return None
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in OPTIONS[kind] or name in options:
            return None
        form = OPTIONS[kind][name]
        if bool(equals) != (form is not None) or (form and not form.fullmatch(value)):
            return None
        options[name] = value if form else True
    return kind, folder, options


def _numbers(options: str) -> dict[str, int]:
    """Return {name: number} of options like `,width=64,max_tokens=16`."""
    pairs = (option.split("=") for option in options.split(",")[1:])
    return {name: int(number) for name, number in pairs}
