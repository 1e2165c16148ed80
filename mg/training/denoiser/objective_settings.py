"""What a denoiser is trained to predict, and its error: the sections `objective` and `loss`."""

import dataclasses
from typing import Any

from mg.training.setting_checks import check_types, require

__all__ = ["DenoiserLossSettings", "ObjectiveSettings"]

KINDS = ("flow", "v", "epsilon")
SCHEDULE_FIELDS = ("snr_shift_scale", "zero_terminal_snr", "beta_start", "beta_end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What the network is trained to predict, and of which mixtures of data and noise.

    The exported generator has the scheduler that belongs to it, and samples with that.

    Args:
        kind: flow, the velocity on the straight path (Movie Gen 3.1.2); v or epsilon, as in
            CogVideoX, at the 1000 steps of a diffusion.
        shift: time shift s, for flow: the share of noise x of the times that are drawn is moved
            to s x / (1 + (s - 1) x). HunyuanVideo has 7. null takes that of the scheduler of
            `pretrained`; without one nothing is moved.
        snr_shift_scale: number by which the ratio of signal to noise is divided, for v and
            epsilon. CogVideoX-2b has 3, 5b 1. null takes that of the scheduler of `pretrained`,
            else 3.
        zero_terminal_snr: whether the last step is pure noise, for v; null takes that of the
            scheduler of `pretrained`, else true. With epsilon it is false.
        beta_start, beta_end: variance of the noise that the first and the last step add, before
            the ratio is divided, for v and epsilon; null takes those of the scheduler of
            `pretrained`, else CogVideoX's 0.00085 and 0.012.
    """

    kind: str = "flow"
    shift: float | None = None
    snr_shift_scale: float | None = None
    zero_terminal_snr: bool | None = None
    beta_start: float | None = None
    beta_end: float | None = None

    def __post_init__(self) -> None:
        check_types(self, "objective.")
        require(
            self.kind in KINDS, f"objective.kind={self.kind!r}; expected one of {', '.join(KINDS)}"
        )
        idle = ("shift",) if self.is_diffusion else SCHEDULE_FIELDS
        for name in idle:
            require(
                getattr(self, name) is None,
                f"objective.{name} has no effect with objective.kind={self.kind}; leave it out",
            )
        for name in ("shift", "snr_shift_scale", "beta_start", "beta_end"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < float("inf"),
                f"objective.{name}={value}; expected more than 0, or null",
            )
        require(
            not (self.kind == "epsilon" and self.zero_terminal_snr),
            "objective.zero_terminal_snr=true with objective.kind=epsilon: the last step would be "
            "pure noise, of which a prediction of the noise tells nothing about the data; take "
            "kind=v, or leave zero_terminal_snr out",
        )

    @property
    def is_diffusion(self) -> bool:
        """Whether the network learns at the steps of a diffusion."""
        return self.kind != "flow"

    @property
    def schedule_changes(self) -> dict[str, Any]:
        """The fields of a `NoiseSchedule` that are set."""
        given = {name: getattr(self, name) for name in SCHEDULE_FIELDS}
        return {name: value for name, value in given.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserLossSettings:
    """The error of the prediction that training makes small; 0 leaves a term out.

    Validation measures the mean squared error in any case, so that runs can be compared.

    Args:
        mse_weight: mean squared error (Movie Gen 3.1.2).
        l1_weight: mean absolute error.
    """

    mse_weight: float = 1.0
    l1_weight: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "loss.")
        for name in ("mse_weight", "l1_weight"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"loss.{name}={value}; expected 0 or more")
        require(
            self.mse_weight + self.l1_weight > 0,
            "loss: both weights are 0, so nothing would be learned; set mse_weight or l1_weight",
        )
