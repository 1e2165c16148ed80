"""Pretrained text encoders of Movie Gen's three kinds, from a local folder.

UL2 and T5 ("t5"), ByT5 ("byt5"), CLIP ("clip"; Movie Gen's Long-prompt MetaCLIP was not published,
any CLIP text model stands in). A folder holds `config.json`, weights (safetensors or PyTorch,
whole or in shards) and a tokenizer, as transformers saves them.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.conditions.text.encoder import TextEncoder, check_max_tokens
from mg.conditions.text.encoder_files import (
    config_number,
    encoder_tensors,
    list_encoder_tensors,
    read_encoder_config,
    sha256_of_all,
    weight_files,
)
from mg.conditions.text.tokenizers import (
    load_tokenizer,
    tokenizer_files,
    tokenizer_folder,
)
from mg.file_names import CONFIG_FILE
from mg.weights.config_sizes import check_config_sizes
from mg.weights.own_tensors import own_tensors

__all__ = ["PRETRAINED_KINDS", "PretrainedTextEncoder"]

# Kind -> Movie Gen's number of tokens (section 3.1.4); CLIP has as many as it has positions.
MAX_TOKENS = {"t5": 512, "byt5": 100, "clip": None}
PRETRAINED_KINDS = tuple(MAX_TOKENS)

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
        pooled: bool = False,
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
            pooled: of CLIP, take the state of the mark of the end alone, as the only token
                (L = 1): HunyuanVideo's second encoder. max_tokens then bounds the texts.

        Raises:
            FileNotFoundError: the folder or a file that it must have does not exist.
            ValueError: another kind; damaged files; more tokens than CLIP has positions.
        """
        if pooled and (kind != "clip" or padded):
            raise ValueError("pooled belongs to clip, without padded: the state of the text's end")
        if kind not in MAX_TOKENS:
            raise ValueError(f"kind={kind!r}; expected one of {', '.join(PRETRAINED_KINDS)}")
        self.name = kind
        self._folder = Path(folder)
        self._config = read_encoder_config(self._folder, kind)
        self._tokenizer_folder = tokenizer_folder(kind, self._folder)
        self._tokenize = load_tokenizer(kind, self._tokenizer_folder)
        self._weights = weight_files(self._folder)
        width, vocabulary = ("d_model", "vocab_size")
        if kind == "clip":
            width = "hidden_size"
        self.width = config_number(self._config, width, self._folder)
        self._num_ids = config_number(self._config, vocabulary, self._folder)
        self._check_sizes()
        self._room = self._checked_max_tokens(max_tokens)
        self.max_tokens = 1 if pooled else self._room
        self._is_padded, self._is_pooled = padded, pooled
        self._options = [f"max_tokens={self._room}"]
        self._options += [name for name, on in (("padded", padded), ("pooled", pooled)) if on]
        self.spec = ",".join([f"{kind}:{self._folder}", *self._options])

    @property
    def room(self) -> int:
        return self._room

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
        parts = [f"{what}={sha256_of_all(files)}" for what, files in digests.items() if files]
        return ",".join([self.name, *self._options, *parts])

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
        length = min(self._room, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        if self._is_padded:
            length = self._room
        filling = self._config.get("pad_token_id") if self._is_padded else 0
        ids = np.full((len(tokens), length), filling or 0, np.int32)  # (B, L)
        mask = np.full(ids.shape, self._is_padded)
        for i, row in enumerate(tokens):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        states = run_text_network(self._network, ids, mask)  # (B, L, D)
        if self._is_pooled:
            return [states[i, len(row) - 1 : len(row)] for i, row in enumerate(tokens)]
        return [states[i, kept] for i, kept in enumerate(mask)]

    @functools.cached_property
    def _network(self) -> Any:
        from mg.conditions.text.text_networks import (
            build_text_network,
            load_text_network,
        )

        tensors: dict[str, np.ndarray] = {}
        try:
            for part in encoder_tensors(self._folder):
                tensors |= part
            network = build_text_network(self.name, self._config)
            load_text_network(network, self.name, own_tensors(tensors))
        except ValueError as error:
            raise ValueError(f"{self._folder}: {error}") from error
        return network

    def _check_sizes(self) -> None:
        """Raise ValueError if the config states sizes that the weights cannot have."""
        entries = list_encoder_tensors(self._folder)
        shapes = {name: entry.shape for name, entry in entries.items()}
        check_config_sizes(self._config, shapes, place=self._folder / CONFIG_FILE)

    def _checked_max_tokens(self, max_tokens: int | None) -> int:
        if self.name != "clip":
            return check_max_tokens(MAX_TOKENS[self.name] if max_tokens is None else max_tokens)
        num_positions = config_number(self._config, "max_position_embeddings", self._folder)
        if max_tokens is not None and max_tokens > num_positions:
            raise ValueError(
                f"max_tokens={max_tokens}, but {self._folder} has {num_positions} positions"
            )
        return check_max_tokens(num_positions if max_tokens is None else max_tokens)
