"""What a CausalVideoVAE's config.json says of its training, as settings of a run here.

Open-Sora-Plan's `LPIPSWithDiscriminator` sums the pixel loss and LPIPS over the values of a frame;
here both are means. So what stands beside them weighs less here, by that number of values:

    there   s (L1 + w LPIPS) + k KL + min(r, 1e4) d G     s = 3 H W exp(-logvar)
    here       L1 + w LPIPS  + k/s KL + min(r/s, 1e4/s) d G

KL is the sum over a clip's latent in both, r the ratio of gradients of the adaptive weight.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "DEFAULT_KL_WEIGHT",
    "DISCRIMINATORS",
    "HALVED",
    "PIXEL_LOSSES",
    "has_discriminator",
    "loss_params",
    "number",
    "pixel_loss",
    "stated_settings",
    "weights_beside_pixels",
]

logger = logging.getLogger("mg")

# Loss -> kind of its discriminator; None for a loss without one.
DISCRIMINATORS = {
    "LPIPSWithDiscriminator": "frames",
    "LPIPSWithDiscriminator3D": "video",
    "SimpleLPIPS": None,
}
DISCRIMINATOR_LOSSES = {"hinge": "hinge", "vanilla": "non_saturating"}
PIXEL_LOSSES = {"l1": (1.0, 0.0), "l2": (0.0, 1.0)}  # weights of L1 and MSE
DEFAULT_KL_WEIGHT = 1e-6
MAX_ADAPTIVE_WEIGHT = 1e4
HALVED = (
    "loss_params.disc_start=%d counts the updates of both networks, as Lightning does: the "
    "discriminator joins at step %d"
)
# Parameters that change nothing: the value that says nothing, and why others have no effect.
WITHOUT_EFFECT = {
    "pixelloss_weight": (1.0, "Open-Sora-Plan's loss does not use it either"),
    "disc_in_channels": (3, "the discriminator judges videos of 3 channels"),
    "use_actnorm": (False, "the discriminator here has GroupNorm"),
    "disc_conditional": (False, "the discriminator here sees the video alone"),
    "learn_logvar": (False, "logvar stays at logvar_init"),
    "wavelet_weight": (None, "a CausalVideoVAE has no wavelet loss"),
}
DISCRIMINATOR_WEIGHTS = ("disc_factor", "disc_weight")
NUMBERS = (
    *("disc_start", "disc_weight", "disc_factor", "disc_num_layers"),
    *("kl_weight", "logvar_init", "perceptual_weight"),
)


def weights_beside_pixels(
    height_width: tuple[int, int], *, kl_weight: float, logvar: float = 0.0
) -> dict[str, float]:
    """Return the settings of what stands beside the pixel loss, for clips of a size.

    Args:
        height_width: size of the clips, in pixels.
        kl_weight: weight of KL there.
        logvar: of the pixel loss there.
    """
    scale = 3 * math.prod(height_width) * math.exp(-logvar)
    return {
        "loss.kl_loss_weight": kl_weight / scale,
        "adversarial.max_adaptive_weight": MAX_ADAPTIVE_WEIGHT / scale,
    }


def stated_settings(
    fields: Mapping[str, Any], *, height_width: tuple[int, int], place: str
) -> dict[str, Any]:
    """Return {dotted name: value} of the settings that `lr`, `loss_type`, `loss_params` stand for.

    What they leave out is left out. Parameters without a counterpart are warned about.

    Args:
        fields: of the config.json.
        height_width: size of the training clips, in pixels, which the weights depend on.
        place: where the fields stand, for messages.

    Raises:
        ValueError: a value that is none of the right type; the parameter is named.
    """
    stated = loss_params(fields, place)
    settings: dict[str, Any] = {}
    if "lr" in fields:
        rate = number(fields["lr"], f"{place}: lr")
        settings = {"optim.lr": rate, "adversarial.lr": rate}
    kind = _kind_of_discriminator(fields.get("loss_type") or "")
    if kind:
        settings["adversarial.network.kind"] = kind
    values = {
        name: number(stated.pop(name), f"{place}: loss_params.{name}", whole=_is_whole(name))
        for name in NUMBERS
        if name in stated
    }
    settings |= _weights(values, height_width)
    settings |= _discriminator(values)
    settings |= _kinds_of_loss(stated, place)
    _warn_of_others(stated, place)
    is_off = not has_discriminator(fields)
    if is_off or not (kind or any(name.startswith("disc_") for name in values)):
        settings = {k: v for k, v in settings.items() if not k.startswith("adversarial.")}
    return settings | ({"adversarial": None} if is_off else {})


def loss_params(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the parameters of the loss that a config.json states.

    Raises:
        ValueError: they are not {name: value}.
    """
    stated = fields.get("loss_params") or {}
    if not isinstance(stated, Mapping):
        raise ValueError(f"{place}: loss_params={stated!r}; expected {{name: value}}")
    return dict(stated)


def has_discriminator(fields: Mapping[str, Any]) -> bool:
    """Return False if a config.json says that there is no discriminator, or that it weighs 0."""
    stated = fields.get("loss_params") or {}
    kind = _kind_of_discriminator(fields.get("loss_type") or "")
    return kind is not None and all(
        stated.get(name) != 0 for name in ("disc_factor", "disc_weight")
    )


def number(value: Any, name: str, *, whole: bool = False) -> float:
    """Return a number that is given as one or as text.

    Raises:
        ValueError: it is none, or not a whole one; the message begins with `name`.
    """
    try:
        found = int(str(value)) if whole else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        kind = "whole number" if whole else "number"
        raise ValueError(f"{name}={value!r}; expected a {kind}")
    return found


def _is_whole(name: str) -> bool:
    return name in ("disc_start", "disc_num_layers")


def _kind_of_discriminator(loss_type: str) -> str | None:
    """Return the kind of a loss's discriminator; None if it has none, "" if nothing says it."""
    return DISCRIMINATORS.get(str(loss_type).rpartition(".")[2], "")


def _weights(values: Mapping[str, float], height_width: tuple[int, int]) -> dict[str, Any]:
    settings = {}
    if "perceptual_weight" in values:
        settings["loss.perceptual_loss_weight"] = values["perceptual_weight"]
    if "kl_weight" in values or values.get("logvar_init"):
        settings |= weights_beside_pixels(
            height_width,
            kl_weight=values.get("kl_weight", DEFAULT_KL_WEIGHT),
            logvar=values.get("logvar_init", 0.0),
        )
    return settings


def _discriminator(values: Mapping[str, float]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if "disc_start" in values:
        settings["adversarial.start_step"] = int(values["disc_start"]) // 2
    if "disc_weight" in values or "disc_factor" in values:
        weight = values.get("disc_weight", 1.0) * values.get("disc_factor", 1.0)
        settings["adversarial.weight"] = weight
    if "disc_num_layers" in values:
        settings["adversarial.network.num_layers"] = values["disc_num_layers"]
    return settings


def _kinds_of_loss(stated: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the settings of the kinds of losses, which are taken out of what is stated."""
    settings: dict[str, Any] = {}
    for name, known in (("disc_loss", DISCRIMINATOR_LOSSES), ("loss_type", PIXEL_LOSSES)):
        if name not in stated:
            continue
        value = stated.pop(name)
        if value not in known:
            given = f"{place}: loss_params.{name}={value!r}"
            raise ValueError(f"{given}; expected one of {', '.join(known)}")
        if name == "disc_loss":
            settings["adversarial.loss"] = known[value]
            if value == "vanilla":
                logger.warning(
                    "%s: disc_loss=vanilla is adversarial.loss=non_saturating here, whose "
                    "generator has -log sigmoid(logit) in place of -logit",
                    place,
                )
        else:
            settings |= pixel_loss(value)
    return settings


def pixel_loss(loss_type: str) -> dict[str, float]:
    """Return the weights of the pixel loss of a name, l1 or l2."""
    l1, mse = PIXEL_LOSSES[loss_type]
    return {"loss.l1_weight": l1, "loss.mse_weight": mse}


def _warn_of_others(stated: Mapping[str, Any], place: str) -> None:
    for name, value in stated.items():
        neutral, reason = WITHOUT_EFFECT.get(name, (None, "there is nothing like it here"))
        if value != neutral:
            logger.warning("%s: loss_params.%s=%r has no effect: %s", place, name, value, reason)
