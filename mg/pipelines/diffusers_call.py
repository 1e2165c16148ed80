"""A generator called as diffusers' pipelines are: their names of arguments, their layout."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mg.console import one_line
from mg.data.transforms import from_model_range
from mg.known_names import check_known
from mg.models.families import DenoiserFamily

__all__ = [
    "OUTPUT_TYPES",
    "check_output_type",
    "finished_frames",
    "own_names",
    "step_callback",
    "with_published_layout",
]

# Their name -> ours.
SYNONYMS = {
    "prompt": "prompts",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "use_dynamic_cfg": "dynamic_guidance",
}
OUTPUT_TYPES = ("uint8", "np", "latent")


def own_names(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of arguments that have two names, by ours.

    Args:
        own: under our names; None where it is not given.
        given: under diffusers'.

    Raises:
        ValueError: a name that is neither, or both names of one thing.
    """
    check_known(given, list(SYNONYMS), kind="argument", place="of a generator's call")
    values = dict(own)
    for theirs, value in given.items():
        name = SYNONYMS[theirs]
        if values[name] is not None:
            raise ValueError(f"{name} and {theirs} are the same; give one of them")
        values[name] = value
    return values


def check_output_type(output_type: str) -> None:
    """Raise ValueError unless it is one of `OUTPUT_TYPES`."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(
            f"output_type={one_line(repr(output_type))}; expected one of {', '.join(OUTPUT_TYPES)}"
        )


def finished_frames(video: np.ndarray, output_type: str) -> np.ndarray:
    """Return the decoder's video as a user sees it, (T, H, W, 3).

    Args:
        video: float32 (3, T, H, W) in about [-1, 1].
        output_type: "uint8", or "np" for float32 in [0, 1].
    """
    if output_type == "uint8":
        return from_model_range(video)
    return np.clip(video / 2 + 0.5, 0, 1).transpose(1, 2, 3, 0)


def with_published_layout(latents: np.ndarray, family: DenoiserFamily) -> np.ndarray:
    """Return latents (N, C, T', H', W') with the axes that the family's published pipeline has.

    It is its own inverse.
    """
    return latents.swapaxes(1, 2) if family.frames_first else latents


def step_callback(
    generator: Any, family: DenoiserFamily, callback: Callable[..., Any] | None
) -> Callable[[int, float, np.ndarray], np.ndarray | None] | None:
    """Return diffusers' `callback_on_step_end` as one that the sampler calls.

    Args:
        generator: the callback's first argument.
        family: of its network.
        callback: (generator, number of the step from 0, the network's time, {"latents": scaled, in
            the published layout}) -> a mapping whose "latents", if any, replace those; or None.
    """
    if callback is None:
        return None

    def after_step(num_done: int, t: float, latents: np.ndarray) -> np.ndarray | None:
        given = with_published_layout(latents.copy(), family)
        expected = given.shape
        changed = (callback(generator, num_done - 1, t, {"latents": given}) or {}).get("latents")
        if changed is None:
            return None
        if np.shape(changed) != expected:
            raise ValueError(
                f"callback_on_step_end gave latents of the shape {np.shape(changed)}; expected "
                f"{expected}"
            )
        return with_published_layout(np.asarray(changed), family)

    return after_step
