"""A network's own tensors among those of a file: prefixes come off, what is not its own goes.

One rule for all families and formats. Where all names share them, the names of wrappers
(`module.`, `_orig_mod.`, `first_stage_model.` ...) are taken off, in any combination; where a VAE
stands behind them and something else beside it, such as a whole pipeline, what is beside is left
out. So are the parts that only training needs: losses, discriminators, optimisers, counters. Of a
VAE that is there twice, once averaged over training, the averaged one counts.
"""

import logging
import os
import re
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from mg.weights.checkpoint_file import read_weights

__all__ = ["own_names", "own_tensors", "read_own_tensors"]

logger = logging.getLogger("mg")

Tensor = TypeVar("Tensor")  # an array, or anything with a shape

# What training frameworks, compilers and pipelines put around a network.
WRAPPERS = (
    *("module", "_orig_mod", "network", "model", "autoencoder", "_backbone", "net", "vae"),
    *("state_dict", "first_stage_model", "gen_model", "generator", "diffusion_model"),
    *("ema", "ema_model", "ema_state_dict"),
)
AVERAGED = frozenset({"ema", "ema_model", "ema_state_dict"})
WRAPPERS_RUN = re.compile(rf"(?:(?:{'|'.join(WRAPPERS)})\.)*")
# The first layer of each family's encoder: it shows where a VAE stands in a larger file.
FIRST_LAYER = re.compile(
    rf"({WRAPPERS_RUN.pattern})"
    r"(?:spatial_vae\.module\.)?encoder\.(?:conv_in|conv1|project_in)(?:\.conv|\.conv_spat)?\.weight"
)
# Networks beside the one that is trained, and what its loss keeps.
BESIDE = re.compile(
    r"(?:loss|loss_fn|criterion|disc|discriminator|discriminators|disc_model|dics_model|"
    r"perceptual_loss|lpips|model_ema|optimizer|lr_scheduler)\."
)
OPTIMIZER_COPY = re.compile(r"(?:adam_m|adam_v|moment1|moment2|moments|accum|stat)\.(.+)")
TRAINING_SCALARS = frozenset(
    {
        *("beta1_power", "beta2_power", "current_iterator_step", "epoch_num", "global_step"),
        *("last_overflow_iterator_step", "learning_rate", "loss_scale", "scale_sense", "step_num"),
    }
)
# Single numbers that are a network's own: the scaling of the latents of Open-Sora's VAE.
OWN_SCALARS = frozenset({"scale", "shift"})
MAX_ROUNDS = 8  # of taking off and leaving out
NUM_LISTED = 8


def read_own_tensors(path: str | os.PathLike, *, key: str | None = None) -> dict[str, np.ndarray]:
    """Return the tensors of the network in a weight file, under its own names.

    Args and Raises: as `mg.weights.checkpoint_file.read_weights` and `own_tensors`.
    """
    return own_tensors(read_weights(path, key=key))


def own_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's tensors among those of a file, under its own names; the rest is logged.

    Args:
        tensors: arrays, or anything with a shape, by their names in the file.

    Raises:
        ValueError: two VAEs are in the file, behind different prefixes.
    """
    names = own_names({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    left_out = [name for name in tensors if name not in names]
    if left_out:
        more = f", and {len(left_out) - NUM_LISTED} more" if len(left_out) > NUM_LISTED else ""
        shown = ", ".join(left_out[:NUM_LISTED]) + more
        logger.info("left out %d tensors that are not the network's: %s", len(left_out), shown)
    return {own: tensors[name] for name, own in names.items()}


def own_names(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return {name in the file: name in the network} of a network's own tensors.

    Args:
        shapes: of all tensors, by their names in the file.

    Raises:
        ValueError: as `own_tensors`.
    """
    names = {name: name for name in shapes}
    for _ in range(MAX_ROUNDS):
        names = _without_training(names, shapes)
        prefix = _prefix(list(names.values()))
        if not prefix:
            break
        names = {
            name: own.removeprefix(prefix) for name, own in names.items() if own.startswith(prefix)
        }
    return names


def _without_training(
    names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Return the names without those of training; all of them if nothing else is there."""
    bare = frozenset(WRAPPERS_RUN.sub("", own, count=1) for own in names.values())
    is_vae = any(FIRST_LAYER.fullmatch(own) for own in names.values())
    kept = {
        name: own
        for name, own in names.items()
        if not BESIDE.match(own)
        and own not in TRAINING_SCALARS
        and not (is_vae and _is_single_number(own, shapes[name]))
        and not _is_optimizer_copy(own, bare)
    }
    return kept or dict(names)


def _is_single_number(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is a number outside all layers, such as `step` or `best_loss`."""
    return "." not in name and shape in ((), (1,)) and name not in OWN_SCALARS


def _is_optimizer_copy(name: str, bare: frozenset[str]) -> bool:
    copy = OPTIMIZER_COPY.fullmatch(name)
    return copy is not None and WRAPPERS_RUN.sub("", copy[1], count=1) in bare


def _prefix(names: list[str]) -> str:
    """Return what to take off: wrappers that all names share, or those of the one VAE to take."""
    run = WRAPPERS_RUN.match(names[0])[0] if names else ""
    common = os.path.commonprefix([run, *names])
    if "." in common:
        return common[: common.rindex(".") + 1]
    prefixes = sorted({match[1] for name in names if (match := FIRST_LAYER.fullmatch(name))})
    averaged = [prefix for prefix in prefixes if AVERAGED & set(prefix.split("."))]
    if len(averaged) == 1:
        return averaged[0]
    if len(prefixes) > 1:
        raise ValueError(
            f"the file holds {len(prefixes)} VAEs, with the prefixes "
            f"{', '.join(map(repr, prefixes))}; say which with key={prefixes[-1].rstrip('.')!r}"
        )
    return prefixes[0] if prefixes else ""
