"""From a name, a folder or a weight file to an autoencoder's weights."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mg.file_names import CONFIG_FILE
from mg.latent_spec import LatentSpec
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.families import AUTOENCODERS, autoencoder_family
from mg.models.recognition import family_of_config, family_of_shapes, recognise
from mg.shipped import find_shipped, short_path
from mg.weights.assumed_config import shapes_of
from mg.weights.checkpoint_file import WRITABLE_SUFFIXES, find_weights, read_weights
from mg.weights.config_sizes import check_config_sizes
from mg.weights.hub import fetch, find_model
from mg.weights.image_vae import fields_of_vae_config
from mg.weights.inflation import METHODS, STRUCTURE_KEYS, inflate_image_vae
from mg.weights.own_tensors import own_tensors
from mg.weights.stored_config import (
    read_config,
    stored_tae_config,
    stored_vae_config,
    stored_vae_fields,
)
from mg.weights.tae_fit import check_tae_config
from mg.weights.tae_names import is_tae, tae_from_published
from mg.weights.vae_names import to_diffusers_names
from mg.weights.wan_names import is_original_wan, wan_from_original

__all__ = [
    "INFLATE_METHODS",
    "ReadVAE",
    "check_checkpoint",
    "open_autoencoder",
    "read_autoencoder",
    "read_vae",
]

logger = logging.getLogger("mg")

INFLATE_METHODS = (*METHODS, "tail", "none")  # tail is of causal networks


class ReadVAE(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        family: one of `mg.models.families.AUTOENCODERS`.
        tensors: by the names of the family's network here.
        config: all fields of the network's config.
    """

    family: str
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]


def read_autoencoder(name_or_path: str | os.PathLike, **options: Any) -> AutoencoderParts:
    """Return the autoencoder of a checkpoint before it is built.

    Args:
        name_or_path, options: as of `read_vae`.

    Raises:
        FileNotFoundError, ValueError: as `read_vae`.
    """
    read = read_vae(name_or_path, **options)
    family = autoencoder_family(read.family)
    config = family.read_config(read.config)
    tensors = {
        name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
        for name, array in read.tensors.items()
    }
    return AutoencoderParts(family, config, tensors, family.spec(config, tensors))


def open_autoencoder(path: str | os.PathLike, *, family: str) -> AutoencoderParts:
    """Return the autoencoder of a checkpoint without tensors, unless they alone tell its config.

    Args:
        path: of a folder or a weight file.
        family: whose weights these are.

    Raises:
        FileNotFoundError, ValueError: as `read_vae`.
    """
    stated = _read_config(None, find_weights(path))
    record = autoencoder_family(family)
    if stated is None or family_of_config(stated) != family or record.stored_spec is not None:
        return read_autoencoder(path, method=family)
    try:
        config = record.read_config(stated)
    except ValueError:  # reading the weights says what is wrong, or completes what is missing
        return read_autoencoder(path, method=family)
    return AutoencoderParts(record, config, {}, config.spec)


def check_checkpoint(
    name_or_path: str | os.PathLike,
    *,
    method: str = "auto",
    inflate_method: str = "central",
    config: Mapping[str, Any] | str | os.PathLike | None = None,
) -> LatentSpec | None:
    """Return the latents of a checkpoint as far as its config tells them; no weights are read.

    Of a 2-D VAE that will be inflated, height and width count. None is for public names, which are
    not fetched, and for weights without a config.

    Args:
        name_or_path, method, inflate_method, config: as of `read_vae`.

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint, name or method.
    """
    _check_methods(method, inflate_method)
    path = _local_path(name_or_path, method)
    if path is None:
        return None
    file = find_weights(path)
    stated = _read_config(config, file)
    family = family_of_config(stated) if stated else None
    if family is None:
        return None
    try:
        return autoencoder_family(family).read_config(stated).spec
    except ValueError:  # reading the weights says what is wrong, or completes what is missing
        return None


def read_vae(
    name_or_path: str | os.PathLike,
    *,
    method: str = "auto",
    inflate_method: str = "central",
    inflate_options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | str | os.PathLike | None = None,
    cache_folder: str | os.PathLike | None = None,
    key: str | None = None,
    into: str | None = None,
) -> ReadVAE:
    """Return what a checkpoint holds, recognised and checked; nothing is built.

    This is the one road from a name, a folder or a file to an autoencoder's weights.

    Args and Raises: as `VideoVAE.from_pretrained`, and
        into: the family that is wanted, whose weights these must be, or be inflated into; None
            takes any, and inflates a 2-D VAE into what `config` is of, else into a TAE.
    """
    _check_methods(method, inflate_method)
    file = find_weights(_on_disk(name_or_path, method, cache_folder))
    stated = _read_config(config, file)
    loaded = read_weights(file, key=key)
    try:
        tensors = _renamed(own_tensors(loaded))
        shapes = shapes_of(tensors)
        found = family_of_shapes(shapes)
        by_config = family_of_config(stated) if stated else None
        _check_wanted(found, into)
        if found == "sd" and by_config == "tae":
            return _inflated_as(tensors, stated, file, inflate_method)
        target = into or by_config
        if found == "sd" and inflate_method != "none" and target not in (None, "sd", "tae"):
            _check_inflation(target, method, inflate_options)
            fields = None if by_config == "sd" else stated
            return _inflated_into(target, tensors, fields, file, inflate_method)
        family = recognise(stated, shapes)
        if method not in ("auto", "local", family):
            raise ValueError(f"method={method!r}, but these are weights of family {family!r}")
        logger.info("%s holds weights of family %s", short_path(file), family)
        check_config_sizes(stated or {}, shapes)
        completed = autoencoder_family(family).complete(stated, tensors)
        if family == "tae" and config is not None:
            check_tae_config(tensors, completed, stored_tae_config(file))
        if family == "sd" and inflate_method != "none":
            return _inflated(tensors, completed, inflate_method, inflate_options or {})
        if inflate_options or inflate_method not in ("central", "none"):
            raise ValueError(
                f"inflate_method={inflate_method!r} with inflate_options={inflate_options}: "
                f"nothing is inflated here, the weights are of family {family!r}"
            )
        return ReadVAE(family, tensors, completed)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _check_methods(method: str, inflate_method: str) -> None:
    for argument, given, known in (
        ("method", method, ("auto", "local", *AUTOENCODERS)),
        ("inflate_method", inflate_method, INFLATE_METHODS),
    ):
        if given not in known:
            raise ValueError(f"{argument}={given!r}; expected one of {', '.join(known)}")


def _on_disk(
    name_or_path: str | os.PathLike, method: str, cache_folder: str | os.PathLike | None
) -> Path:
    """Return the path, or the folder into which the named checkpoint has been downloaded."""
    path = _local_path(name_or_path, method)
    if path is not None:
        return path
    return fetch(find_model(str(name_or_path)).name, cache_folder=cache_folder)


def _local_path(name_or_path: str | os.PathLike, method: str) -> Path | None:
    """Return the path of a checkpoint on this machine; None if it is a public name."""
    path = Path(find_shipped(name_or_path)).expanduser()
    if path.exists():
        return path
    is_meant_as_path = (
        isinstance(name_or_path, os.PathLike)
        or str(name_or_path).startswith((".", "~", "/"))
        or path.suffix in WRITABLE_SUFFIXES
    )
    if method == "local" or is_meant_as_path:
        raise FileNotFoundError(f"weights not found: {path} does not exist")
    model = find_model(str(name_or_path))
    if method not in ("auto", model.family):
        raise ValueError(
            f"method={method!r}, but {name_or_path} is of family {model.family!r}; leave method "
            "away to have the family recognised"
        )
    return None


def _read_config(
    config: Mapping[str, Any] | str | os.PathLike | None, file: Path
) -> dict[str, Any] | None:
    """Return the config given, else that stored with the weight file, else None."""
    if isinstance(config, Mapping):
        return dict(config)
    if config is None:
        stored = stored_tae_config(file) or stored_vae_config(file)
        if stored is not None:
            return stored
        if not (file.parent / CONFIG_FILE).exists():
            return None
    return read_config(file.parent / CONFIG_FILE if config is None else config)


def _check_wanted(found: str | None, wanted: str | None) -> None:
    """Raise ValueError if weights of the family found cannot become one of the family wanted."""
    if None in (found, wanted):
        return
    record = autoencoder_family(wanted)
    if found not in (wanted, *record.starts_from):
        takes = "; ".join(
            f"{name} ({autoencoder_family(name).description})"
            for name in (wanted, *record.starts_from)
        )
        raise ValueError(
            f"it holds weights of family {found!r} ({autoencoder_family(found).description}), but "
            f"the network is of family {wanted!r}, which takes: {takes}"
        )


def _check_inflation(target: str, method: str, inflate_options: Mapping[str, Any] | None) -> None:
    """Raise ValueError for arguments that contradict the inflation of a 2-D VAE into a family."""
    if method not in ("auto", "local", "sd", target) or inflate_options:
        raise ValueError(
            f"method={method!r} with inflate_options={inflate_options}: a 2-D VAE becomes a "
            f"network of family {target!r}, whose fields stand in config"
        )


def _renamed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors under the names of their networks here."""
    if is_tae(tensors):
        return tae_from_published(tensors)
    if is_original_wan(tensors):
        return wan_from_original(tensors)
    return to_diffusers_names(tensors)


def _inflated(
    tensors: Mapping[str, np.ndarray],
    image_config: Mapping[str, Any],
    method: str,
    options: Mapping[str, Any],
) -> ReadVAE:
    """Return a 2-D VAE as a TAE."""
    if method == "tail":
        raise ValueError(
            "inflate_method='tail' is the tap of a causal network, such as a CausalVideoVAE; a TAE "
            f"is not causal: take one of {', '.join(METHODS)}"
        )
    structure = {**fields_of_vae_config(image_config), **options}
    padding = structure.pop("temporal_padding", "published")
    inflated, config = inflate_image_vae(
        tensors, method=method, temporal_padding=padding, structure=structure
    )
    return ReadVAE("tae", inflated, config)


def _inflated_as(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], file: Path, method: str
) -> ReadVAE:
    """Return a 2-D VAE as the TAE of a config."""
    stated = stored_vae_fields(file) or {}
    wanted = {key: config[key] for key in (*STRUCTURE_KEYS, "temporal_padding") if key in config}
    inflated = _inflated(tensors, {}, method, stated | wanted)
    check_tae_config(inflated.tensors, config, stated)
    _warn_of_scaling(file, config, stated)
    return ReadVAE("tae", inflated.tensors, dict(config))


def _inflated_into(
    family: str,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any] | None,
    file: Path,
    method: str,
) -> ReadVAE:
    """Return a 2-D VAE as a network of a family, of the fields given or those that suit it."""
    inflate = autoencoder_family(family).inflate
    if inflate is None:
        raise ValueError(
            f"these are weights of family 'sd', a 2-D VAE, which is not inflated into {family!r}"
        )
    inflated, fields = inflate(tensors, config, stored_vae_fields(file) or {}, method)
    return ReadVAE(family, inflated, fields)


def _warn_of_scaling(file: Path, config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Log a warning where a config scales latents differently from what the weights need."""
    keys = [key for key in ("scaling_factor", "shift_factor") if key in config and key in own]
    if any(config[key] != own[key] for key in keys):
        given, made = (
            ", ".join(f"{key} {fields[key]}" for key in keys) for fields in (config, own)
        )
        logger.warning("the config has %s, but %s was made with %s", given, file, made)
