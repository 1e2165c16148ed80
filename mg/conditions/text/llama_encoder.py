"""Llama as a text encoder: the hidden states of a layer near its end, under a prompt template.

HunyuanVideo (arXiv 2412.03603, section 4.2) takes a language model's states in place of T5's; its
published pipeline those of the third layer from the end. The folder holds `config.json`, weights
(whole or in shards) and `tokenizer.json`, as transformers saves them.
"""

import copy
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mg.conditions.text.encoder import TextEncoder, check_max_tokens
from mg.conditions.text.encoder_files import (
    encoder_tensors,
    list_encoder_tensors,
    read_encoder_config,
    sha256_of_all,
    weight_files,
)
from mg.conditions.text.llama_config import LlamaConfig, own_llama_names
from mg.conditions.text.prompt_template import PromptTemplate
from mg.conditions.text.tokenizers import load_tokenizer, tokenizer_files, tokenizer_folder
from mg.console import one_line
from mg.file_names import CONFIG_FILE
from mg.weights.config_sizes import check_config_sizes
from mg.weights.tensor_check import check_tensors

__all__ = ["KIND", "PRECISIONS", "LlamaEncoder"]

KIND = "llama"
PRECISIONS = ("float32", "float16", "bfloat16")
MAX_TOKENS = 256  # of HunyuanVideo, behind its template
LAYERS_LEFT_OUT = 2  # at the end, with the last norm
LENGTH_STEP = 32  # what is computed is padded to a multiple of it


class LlamaEncoder(TextEncoder):
    """The hidden states of a Llama in front of its last two layers, in float32.

    The network is read when the first text is embedded; until then nothing imports MindSpore. It
    runs line by line (PyNative), whatever mode is set, and on CPU too.

    Attributes:
        template: around each text; None as long as none is given.
    """

    name = KIND
    takes_template = has_precisions = True

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        max_tokens: int | None = None,
        template: PromptTemplate | str | os.PathLike | None = None,
        dtype: str | None = None,
    ) -> None:
        """Read config and tokenizer, and the names of the weights.

        Args:
            folder: with config.json and weights; the tokenizer may stand in `tokenizer` beside
                `text_encoder`.
            max_tokens: L, what is left behind the template's cropped tokens; None is 256.
            template: or the path of its JSON file; without it no text can be embedded.
            dtype: precision of the network, one of `PRECISIONS`; None is float32.

        Raises:
            FileNotFoundError: the folder or a file that it must have does not exist.
            ValueError: damaged files, a network that is not implemented, an unknown precision.
        """
        self._folder = Path(folder)
        self._weights = _Weights(self._folder, dtype or PRECISIONS[0])
        self._tokenizer_folder = tokenizer_folder(KIND, self._folder)
        self._tokenize = load_tokenizer(KIND, self._tokenizer_folder)
        self.width = self._weights.config.hidden_size
        self.max_tokens = check_max_tokens(MAX_TOKENS if max_tokens is None else max_tokens)
        self.template: PromptTemplate | None = None
        self._template_file = None
        if template is not None:
            self.template = self.with_template(PromptTemplate.of(template)).template
            if not isinstance(template, PromptTemplate):
                self._template_file = os.fspath(template)

    @property
    def spec(self) -> str:
        options = [f"max_tokens={self.max_tokens}"]
        if self._weights.dtype != PRECISIONS[0]:
            options.append(f"dtype={self._weights.dtype}")
        if self._template_file is not None:
            options.append(f"template={self._template_file}")
        return ",".join([f"{KIND}:{self._folder}", *options])

    @property
    def room(self) -> int:
        return self.max_tokens + (self.template.crop_start if self.template else 0)

    @functools.cached_property
    def identity(self) -> str:
        """All that decides the embeddings; the first use reads all files once."""
        parts = [KIND, f"max_tokens={self.max_tokens}", f"dtype={self._weights.dtype}"]
        if self.template is not None:
            parts.append(f"template={self.template.digest()}")
        digests = {
            "weights": self._weights.digest,
            "tokenizer": sha256_of_all(tokenizer_files(KIND, self._tokenizer_folder)),
            "config": sha256_of_all([self._folder / CONFIG_FILE]),
        }
        return ",".join(parts + [f"{what}={digest}" for what, digest in digests.items()])

    def crops_prompts(self) -> bool:
        crop = 0 if self.template is None else self.template.crop_start
        return crop > 0 and self.tokenize("")[:crop] != self.tokenize("a")[:crop]

    def with_template(self, template: PromptTemplate | None) -> "LlamaEncoder":
        if template is None:
            return self
        num_tokens = len(self._ids(template.around("")))
        if num_tokens <= template.crop_start:
            raise ValueError(
                f"prompt_template: crop_start={template.crop_start} leaves nothing of the empty "
                f"prompt, which has {num_tokens} tokens with the template by the tokenizer in "
                f"{self._tokenizer_folder}; template and tokenizer do not belong together"
            )
        return self._changed(template=template, _template_file=None)

    def in_precision(self, dtype: str) -> "LlamaEncoder":
        """Return the encoder with its network in a precision, one of `PRECISIONS`.

        Raises:
            ValueError: another one.
        """
        if dtype == self._weights.dtype:
            return self
        return self._changed(_weights=_Weights(self._folder, dtype))

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text with its template, which end as the template does."""
        if self.template is None:
            raise ValueError(
                "the text encoder llama reads prompts within a template, and none is given: pass "
                'prompt_template, {"template": "... {} ...", "crop_start": N} or a JSON file with '
                f"it, or {KIND}:FOLDER,template=FILE as its name; HunyuanVideo's is "
                "DEFAULT_PROMPT_TEMPLATE in pipelines/hunyuan_video/pipeline_hunyuan_video.py of "
                "diffusers and of mindone"
            )
        return self._ids(self.template.around(text))

    def embed(self, tokens: Sequence[list[int]]) -> list[np.ndarray]:
        longest = max(len(row) for row in tokens)
        length = min(self.room, -(-longest // LENGTH_STEP) * LENGTH_STEP)
        ids = np.zeros((len(tokens), length), np.int32)  # (B, L)
        mask = np.zeros(ids.shape, bool)
        for i, row in enumerate(tokens):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        states = self._weights.run(ids, mask)  # (B, L, D)
        crop = self.template.crop_start
        return [states[i, crop : len(row)] for i, row in enumerate(tokens)]

    def _cut(self, tokens: list[int]) -> list[int]:
        """Return the first tokens; the template's end is lost, as the published pipeline has it."""
        return tokens[: self.room]

    def _changed(self, **attributes: Any) -> "LlamaEncoder":
        other = copy.copy(self)
        other.__dict__.pop("identity", None)
        other.__dict__.update(attributes)
        return other

    def _ids(self, text: str) -> list[int]:
        ids = self._tokenize(text)
        num_ids = self._weights.config.vocab_size
        if max(ids) >= num_ids:
            raise ValueError(
                f"{self._folder}: the tokenizer gives the id {max(ids)}, the network knows "
                f"{num_ids}; tokenizer and weights are of different models"
            )
        return ids


class _Weights:
    """Config and files of a network, which is built once for all templates."""

    def __init__(self, folder: Path, dtype: str) -> None:
        if dtype not in PRECISIONS:
            raise ValueError(
                f"dtype={one_line(repr(dtype))} of a text encoder; expected one of "
                f"{', '.join(PRECISIONS)}"
            )
        fields = read_encoder_config(folder, KIND)
        self.files, self.dtype, self._folder = weight_files(folder), dtype, folder
        entries = list_encoder_tensors(folder)
        shapes = {name: entry.shape for name, entry in entries.items()}
        check_config_sizes(fields, shapes, place=folder / CONFIG_FILE)
        try:
            self.config = LlamaConfig.read(fields)
            if self.config.num_hidden_layers <= LAYERS_LEFT_OUT:
                raise ValueError(f"it has no more than {LAYERS_LEFT_OUT} layers")
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG_FILE}: {error}") from error
        try:
            self._names = own_llama_names(shapes)
            own = {inner: entries[name] for name, inner in self._names.items()}
            check_tensors(own, self.config.shapes())
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    @functools.cached_property
    def digest(self) -> str:
        return sha256_of_all(self.files)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        from mg.conditions.text.llama_network import run_llama  # imports MindSpore

        return run_llama(self._network, self.config, ids, mask)

    @functools.cached_property
    def _network(self) -> Any:
        from mg.conditions.text.llama_network import build_llama, load_llama

        num_layers = self.config.num_hidden_layers - LAYERS_LEFT_OUT
        network = build_llama(self.config, num_layers=num_layers, dtype=self.dtype)
        load_llama(network, encoder_tensors(self._folder), self._names)
        return network
