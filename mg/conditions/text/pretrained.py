"""Pretrained text encoders of Movie Gen's three kinds, from a local folder.

UL2 and T5 ("t5"), ByT5 ("byt5"), CLIP ("clip"; Movie Gen's Long-prompt MetaCLIP was not published,
any CLIP text model stands in). A folder holds `config.json`, weights (safetensors or PyTorch,
whole or in shards) and a tokenizer, as transformers saves them.
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.conditions.text.encoder import TextEncoder, check_max_tokens
from mg.conditions.text.tokenizers import (
    load_tokenizer,
    tokenizer_files,
    tokenizer_folder,
)
from mg.console import one_line
from mg.files import sha256_of_file
from mg.json_file import read_json, read_json_object
from mg.weights.checkpoint_file import find_weights, list_tensors, read_weights
from mg.weights.config_sizes import check_config_sizes
from mg.weights.own_tensors import own_tensors
from mg.weights.safetensors_file import (
    INDEX_SUFFIX,
    MAX_INDEX_BYTES,
    safetensors_files,
)

__all__ = ["PRETRAINED_KINDS", "PretrainedTextEncoder"]

# Kind -> Movie Gen's number of tokens (section 3.1.4); CLIP has as many as it has positions.
MAX_TOKENS = {"t5": 512, "byt5": 100, "clip": None}
PRETRAINED_KINDS = tuple(MAX_TOKENS)

CONFIG_FILE = "config.json"
TORCH_INDEX = "pytorch_model.bin.index.json"
MAX_SIZE = 1 << 20  # of width, vocabulary and positions
LENGTH_STEP = 32  # what is computed is padded to a multiple of it, not always to max_tokens


class PretrainedTextEncoder(TextEncoder):
    """The last hidden states of a network of `mindone.transformers`, in float32.

    The network is read when the first text is embedded; until then nothing imports MindSpore. It
    runs line by line (PyNative), whatever mode is set, and on CPU too.
    """

    def __init__(
        self,
        kind: str,
        folder: str | os.PathLike,
        *,
        max_tokens: int | None = None,
        padded: bool = False,
    ) -> None:
        """Read config and tokenizer.

        Args:
            kind: one of `PRETRAINED_KINDS`; it is the encoder's name too.
            folder: with config.json, weights and tokenizer. The tokenizer may stand in a folder
                of its own beside it, `tokenizer` beside `text_encoder`.
            max_tokens: L; None takes 512 for T5, 100 for ByT5, and what CLIP's table of positions
                holds (77 as published, or more).
            padded: fill texts up to max_tokens and let the network attend to the filling, all of
                which then counts as text: how CogVideoX was trained.

        Raises:
            FileNotFoundError: the folder or a file that it must have does not exist.
            ValueError: another kind; damaged files; more tokens than CLIP has positions.
        """
        if kind not in MAX_TOKENS:
            raise ValueError(f"kind={kind!r}; expected one of {', '.join(PRETRAINED_KINDS)}")
        self.name = kind
        self._folder = Path(folder)
        self._config = _read_config(self._folder, kind)
        self._tokenizer_folder = tokenizer_folder(kind, self._folder)
        self._tokenize = load_tokenizer(kind, self._tokenizer_folder)
        self._weights = _weight_files(self._folder)
        width, vocabulary = ("d_model", "vocab_size")
        if kind == "clip":
            width = "hidden_size"
        self.width = _number(self._config, width, self._folder)
        self._num_ids = _number(self._config, vocabulary, self._folder)
        self._check_sizes()
        self.max_tokens = self._checked_max_tokens(max_tokens)
        self.spec = f"{kind}:{self._folder},max_tokens={self.max_tokens}"
        self._is_padded = padded
        if padded:
            self.spec += ",padded"

    @functools.cached_property
    def identity(self) -> str:
        """Kind, number of tokens, and the SHA-256 of weights, tokenizer and config.

        The first use reads all files once, which takes a minute for tens of gigabytes.
        """
        digests = {
            "weights": self._weights,
            "tokenizer": tokenizer_files(self.name, self._tokenizer_folder),
            "config": [self._folder / CONFIG_FILE],
        }
        parts = [f"{what}={_sha256_of(files)}" for what, files in digests.items() if files]
        padded = ["padded"] if self._is_padded else []
        return ",".join([self.name, f"max_tokens={self.max_tokens}", *padded, *parts])

    def tokenize(self, text: str) -> list[int]:
        """Return token ids, with the marks that the encoder was trained with."""
        ids = self._tokenize(text)
        if max(ids) >= self._num_ids:
            raise ValueError(
                f"{self._folder}: the tokenizer gives the id {max(ids)}, the network knows "
                f"{self._num_ids}; tokenizer and weights are of different models"
            )
        return ids

    def embed(self, tokens: Sequence[list[int]]) -> list[np.ndarray]:
        from mg.conditions.text.text_networks import run_text_network  # imports MindSpore

        longest = max(len(row) for row in tokens)
        length = min(self.max_tokens, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        if self._is_padded:
            length = self.max_tokens
        filling = self._config.get("pad_token_id") if self._is_padded else 0
        ids = np.full((len(tokens), length), filling or 0, np.int32)  # (B, L)
        mask = np.full(ids.shape, self._is_padded)
        for i, row in enumerate(tokens):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        states = run_text_network(self._network, ids, mask)  # (B, L, D)
        return [states[i, kept] for i, kept in enumerate(mask)]

    @functools.cached_property
    def _network(self) -> Any:
        from mg.conditions.text.text_networks import (
            build_text_network,
            load_text_network,
        )

        tensors: dict[str, np.ndarray] = {}
        try:
            for file in self._weights:
                tensors |= read_weights(file)
            network = build_text_network(self.name, self._config)
            load_text_network(network, self.name, own_tensors(tensors))
        except ValueError as error:
            raise ValueError(f"{self._folder}: {error}") from error
        return network

    def _check_sizes(self) -> None:
        """Raise ValueError if the config states sizes that the weights cannot have."""
        entries = {}
        for file in self._weights:
            entries |= list_tensors(file)
        shapes = {name: entry.shape for name, entry in entries.items()}
        check_config_sizes(self._config, shapes, place=self._folder / CONFIG_FILE)

    def _checked_max_tokens(self, max_tokens: int | None) -> int:
        if self.name != "clip":
            return check_max_tokens(MAX_TOKENS[self.name] if max_tokens is None else max_tokens)
        num_positions = _number(self._config, "max_position_embeddings", self._folder)
        if max_tokens is not None and max_tokens > num_positions:
            raise ValueError(
                f"max_tokens={max_tokens}, but {self._folder} has {num_positions} positions"
            )
        return check_max_tokens(num_positions if max_tokens is None else max_tokens)


def _read_config(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = read_json_object(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} not found; expected a folder with {CONFIG_FILE}, weights and tokenizer of a "
            f"{kind} encoder"
        ) from None
    whole = config.get("text_config")  # of a whole CLIP
    return whole if isinstance(whole, dict) else config


def _number(config: dict[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
        raise ValueError(
            f"{folder / CONFIG_FILE}: {key} is {one_line(repr(value))}, expected a whole number "
            f"from 1 to {MAX_SIZE}"
        )
    return value


def _weight_files(folder: Path) -> list[Path]:
    """Return the files with a folder's weights: one, or all shards."""
    has_safetensors = any(folder.glob("*.safetensors"))
    if has_safetensors or not (folder / TORCH_INDEX).is_file():
        file = find_weights(folder)
        return safetensors_files(file) if file.name.endswith(INDEX_SUFFIX) else [file]
    index = folder / TORCH_INDEX
    try:
        content = read_json(index, max_bytes=MAX_INDEX_BYTES)
        names = sorted(set(content["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{index} is not an index of shards: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index} names {name!r}; shards must stand in the folder itself")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{index} names {name}, which is not beside it")
    return [folder / name for name in names]


def _sha256_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of a file, or of those of several in the order of their names."""
    digests = [sha256_of_file(file) for file in sorted(files)]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()
