"""An autoencoder in a folder of its own: config.json, weights and a model card."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.file_names import CONFIG_FILE
from mg.files import write_text
from mg.latent_spec import LatentSpec
from mg.models.families import AutoencoderFamily
from mg.weights.publishing import model_card, write_card
from mg.weights.safetensors_file import write_safetensors

__all__ = ["write_autoencoder"]


def write_autoencoder(
    folder: str | os.PathLike,
    family: AutoencoderFamily,
    fields: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    spec: LatentSpec,
    *,
    metadata: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write config.json and the weights, as the family's own package names them.

    A README.md that is not there yet is written too: a model card.

    Args:
        folder: made if needed.
        family: of the network.
        fields: of config.json.
        tensors: by the names of the family's official checkpoints.
        spec: of the latents, for the card.
        metadata: texts for the header of the weights file.
        overwrite: whether an autoencoder that is there may be replaced.

    Raises:
        FileExistsError: one of them is there already and `overwrite` is false.
    """
    folder = Path(folder)
    there = [name for name in (CONFIG_FILE, family.weights_file) if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{folder} holds {there[0]} already; choose another folder or pass overwrite=True"
        )
    text = json.dumps(dict(fields), indent=2) + "\n"
    write_safetensors(folder / family.weights_file, tensors, metadata=metadata, overwrite=overwrite)
    write_text(folder / CONFIG_FILE, text, overwrite=overwrite)
    write_card(folder, _card(family, fields, tensors, spec))


def _card(
    family: AutoencoderFamily,
    fields: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    spec: LatentSpec,
) -> str:
    num_parameters = sum(tensor.size for tensor in tensors.values())
    return model_card(
        f"Video autoencoder ({family.name})",
        pipeline_tag="image-to-image",
        about=f"An autoencoder of the family `{family.name}`, {num_parameters:,} parameters. "
        f"{spec.t}x{spec.h}x{spec.w} pixels (frames, rows, columns) become one of a latent of "
        f"{spec.channels} channels.",
        usage="from mg import VideoVAE\n\nvae = VideoVAE.from_pretrained('FOLDER')",
        config=fields,
    )
