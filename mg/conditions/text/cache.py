"""Text embeddings on disk: each text is embedded once, whatever number of epochs needs it.

    FOLDER/<encoder's key>/encoder.json                  what made these embeddings
    FOLDER/<encoder's key>/<2 digits>/<key>.safetensors  one text

A key is the SHA-256 of the encoder's identity, or of text and identity; the identity tells weights
and length. Embeddings of other weights therefore never take each other's place. A file holds
`values` (tokens of the text, D), `mask` (L,) and, as metadata, the text and the identity.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mg.conditions.text.encoder import TextEmbedding, TextEncoder, check_max_tokens
from mg.files import remove_abandoned, write_text
from mg.json_file import read_json_object
from mg.progress import ProgressBar
from mg.type_checks import check_types
from mg.weights.safetensors_file import (
    read_safetensors,
    read_safetensors_metadata,
    write_safetensors,
)

__all__ = [
    "EncoderInfo",
    "FillCounts",
    "TextCache",
    "cached_encoders",
    "fill_text_cache",
]

logger = logging.getLogger("mg")

ENCODER_FILE = "encoder.json"
MAX_WIDTH = 1 << 17
NUM_KEY_DIGITS = 16  # of an encoder's folder


@dataclasses.dataclass(frozen=True)
class EncoderInfo:
    """What made the embeddings of a cache: fields as those of `TextEncoder`."""

    name: str
    spec: str
    width: int
    max_tokens: int
    identity: str

    def __post_init__(self) -> None:
        check_types(self)
        check_max_tokens(self.max_tokens, is_whole_text=self.name == "text" or self.max_tokens == 1)
        if not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f"width={self.width}; expected 1 to {MAX_WIDTH}")

    @classmethod
    def of(cls, encoder: TextEncoder) -> "EncoderInfo":
        """Return the description of an encoder."""
        return cls(
            **{field.name: getattr(encoder, field.name) for field in dataclasses.fields(cls)}
        )


@dataclasses.dataclass(frozen=True)
class FillCounts:
    """What `fill_text_cache` did, in texts; truncated ones are among those written."""

    written: int
    skipped: int
    truncated: int


class TextCache:
    """The embeddings of one encoder in a folder."""

    def __init__(self, folder: str | os.PathLike, info: EncoderInfo) -> None:
        """Name the cache; nothing is read or written.

        Args:
            folder: of the cache, which may hold embeddings of other encoders too.
            info: the encoder; `EncoderInfo.of(encoder)`, or one of `cached_encoders(folder)`.
        """
        self.info = info
        self._root = Path(folder)
        self.folder = self._root / _encoder_key(info.identity)

    @classmethod
    def open(cls, folder: str | os.PathLike, identity: str) -> "TextCache":
        """Return the cache that the encoder of this identity made.

        Raises:
            FileNotFoundError: the folder holds no embeddings at all.
            ValueError: it holds those of other encoders only.
        """
        description = Path(folder) / _encoder_key(identity) / ENCODER_FILE
        if description.is_file():
            return cls(folder, _read_info(description))
        there = "\n".join(f"  {info.identity}" for info in cached_encoders(folder))
        raise ValueError(
            f"the text embeddings in {folder} were not made by the encoder\n  {identity}\nbut by\n"
            f"{there}\nUse that encoder, or run mg encode-text with this one"
        )

    def path_of(self, text: str) -> Path:
        """Return the file of a text, there or not."""
        key = _sha256(json.dumps([text, self.info.identity]))
        return self.folder / key[:2] / f"{key}.safetensors"

    def __contains__(self, text: str) -> bool:
        return self.path_of(text).is_file()

    def read(self, text: str) -> TextEmbedding:
        """Return the embedding of a text: values (L, D), mask (L,).

        Raises:
            FileNotFoundError: the text is not there; the message has the command that makes it.
            ValueError: its file is damaged, or of another text or encoder.
        """
        path = self.path_of(text)
        if not path.is_file():
            arguments = {"captions": text, "encoder": self.info.spec, "output_folder": self._root}
            command = shlex.join(f"--{name}={value}" for name, value in arguments.items())
            raise FileNotFoundError(
                f"{self._root} has no embedding of {text!r} by {self.info.name!r}; run: "
                f"mg encode-text {command} (or with --csv_path, for all captions)"
            )
        tensors, told = read_safetensors(path), read_safetensors_metadata(path)
        if told.get("text") != text or told.get("identity") != self.info.identity:
            raise ValueError(f"{path} is of another text or encoder than its name; delete it")
        values, mask = tensors.get("values"), tensors.get("mask")
        if (
            values is None
            or mask is None
            or (mask.dtype, mask.shape) != (np.bool_, (self.info.max_tokens,))
            or (values.dtype, values.shape) != (np.float32, (mask.sum(), self.info.width))
            or not np.isfinite(values).all()
        ):
            raise ValueError(f"{path} is damaged; delete it and run mg encode-text again")
        whole = np.zeros((self.info.max_tokens, self.info.width), np.float32)  # (L, D)
        whole[mask] = values
        return TextEmbedding(whole, np.array(mask))

    def write(self, text: str, embedding: TextEmbedding) -> None:
        """Store the embedding of a text: values (L, D), mask (L,). Replaces an older one.

        Raises:
            ValueError: the embedding is not of this encoder's shape.
        """
        expected = (self.info.max_tokens, self.info.width)
        if embedding.values.shape != expected:
            raise ValueError(f"embedding of shape {embedding.values.shape}, expected {expected}")
        description = self.folder / ENCODER_FILE
        if not description.is_file():
            write_text(description, json.dumps(dataclasses.asdict(self.info)), overwrite=True)
        write_safetensors(
            self.path_of(text),
            {"values": embedding.values[embedding.mask], "mask": embedding.mask},
            metadata={"text": text, "identity": self.info.identity},
            overwrite=True,
        )

    def has_whole(self, text: str) -> bool:
        """Return whether a text is there and can be read; damage is logged."""
        try:
            self.read(text)
        except FileNotFoundError:
            return False
        except ValueError as error:
            logger.warning("%s; it is made again", error)
            return False
        return True


def cached_encoders(folder: str | os.PathLike) -> list[EncoderInfo]:
    """Return the encoders that have embeddings in a folder, ordered by name.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a description is damaged.
    """
    files = sorted(Path(folder).glob(f"*/{ENCODER_FILE}"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no text embeddings; make them with mg encode-text")
    return sorted(map(_read_info, files), key=lambda info: (info.name, info.identity))


def _read_info(file: Path) -> EncoderInfo:
    try:
        info = EncoderInfo(**read_json_object(file))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a text encoder: {error}") from error
    if file.parent.name != _encoder_key(info.identity):
        raise ValueError(f"{file} describes another encoder than its folder is named after")
    return info


def fill_text_cache(
    folder: str | os.PathLike,
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    truncate: bool = False,
    batch_size: int = 16,
) -> FillCounts:
    """Embed and store all texts that are not there yet, the empty one too.

    Can be interrupted at any time and run again; each text is stored at once, whole or not at all.

    Args:
        folder: of the cache, made if needed.
        encoder: what embeds.
        texts: repetitions count once.
        truncate: whether texts that are too long are cut.
        batch_size: texts embedded together.

    Raises:
        ValueError: a text is too long and `truncate` is false; nothing is embedded then.
    """
    cache = TextCache(folder, EncoderInfo.of(encoder))
    remove_abandoned(cache.folder, below=True)
    wanted = list(dict.fromkeys(["", *texts]))
    missing = [text for text in wanted if not cache.has_whole(text)]
    if not truncate:
        encoder.check_lengths(missing)
    num_truncated = sum(encoder.is_too_long(text) for text in missing)
    with ProgressBar(len(missing), f"encoding texts ({encoder.name})", unit="text") as bar:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            embedding = encoder.encode(batch, truncate=truncate)
            for text, values, mask in zip(batch, embedding.values, embedding.mask, strict=True):
                cache.write(text, TextEmbedding(values, mask))
            bar.update(len(batch))
    return FillCounts(len(missing), len(wanted) - len(missing), num_truncated)


def _encoder_key(identity: str) -> str:
    return _sha256(identity)[:NUM_KEY_DIGITS]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
