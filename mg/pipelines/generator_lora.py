"""A generator with LoRAs merged into its denoiser, and the record of which ones those are."""

import dataclasses
import os
from collections.abc import Mapping

from mg.files import sha256_of_file
from mg.pipelines.generator_parts import GeneratorParts, GeneratorWeights
from mg.weights.lora_file import check_maps, find_lora, merge_lora, read_lora

__all__ = ["with_lora", "with_lora_record"]


def with_lora(
    parts: GeneratorParts, path: str | os.PathLike, *, weight: float = 1.0
) -> GeneratorParts:
    """Return a generator with a LoRA merged into its transformer, once its weights are there.

    Args:
        parts: of the generator, which may only be opened.
        path: of the LoRA, a file or a folder that holds one, see `mg.weights.lora_file`.
        weight: how much of it; 1 is what was trained.

    Raises:
        FileNotFoundError, ValueError: no such file, or one of another network.
    """
    try:
        maps = read_lora(path)
        check_maps(maps, parts.family.shapes(parts.transformer_config))
    except ValueError as error:
        raise ValueError(f"lora={path}: {error}") from error

    def read_weights() -> GeneratorWeights:
        base = parts.with_weights()
        return GeneratorWeights(
            merge_lora(base.transformer_tensors, maps, weight=weight),
            base.autoencoder,
            with_lora_record(base.sha256, path, weight),
        )

    merged = dataclasses.replace(parts, read_weights=read_weights)
    return merged if parts.read_weights is not None else merged.with_weights()


def with_lora_record(
    sha256: Mapping[str, str], path: str | os.PathLike, weight: float
) -> dict[str, str]:
    """Return the SHA-256 of a generator's weights with that of one more LoRA.

    Args:
        sha256: of the weights, and of the LoRAs that were merged before.
        path: of the LoRA.
        weight: how much of it was merged.
    """
    number = 1 + sum(name.startswith("lora ") for name in sha256)
    amount = f"{weight:g}" if float(f"{weight:g}") == weight else repr(float(weight))
    # The first one has no number, so that records of before are still known.
    key = f"lora x {amount}" if number == 1 else f"lora {number} x {amount}"
    return {**sha256, key: sha256_of_file(find_lora(path))}
