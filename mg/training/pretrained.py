"""The section `pretrained`: which weights a run starts from, what is frozen first, how fast.

It is a shorthand. `resolve_pretrained` turns it into what every run has: start weights, `phases`
and `lr_multipliers`.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mg.known_names import did_you_mean
from mg.models.families import AUTOENCODERS, autoencoder_family
from mg.training.setting_checks import check_types, require
from mg.training.settings import PhaseSettings, RunSettings
from mg.weights.hub import fetch
from mg.weights.hub_models import find_model, is_hub_name, nearest_name
from mg.weights.inflation import METHODS

__all__ = [
    "PretrainedSettings",
    "PretrainedTarget",
    "PretrainedVAESettings",
    "ResolvedPretrained",
    "apply_pretrained",
    "check_pretrained",
    "find_start_weights",
    "resolve_pretrained",
]

logger = logging.getLogger("mg")

Run = TypeVar("Run", bound=RunSettings)

FAMILIES = ("auto", "local", *AUTOENCODERS)
INFLATE_METHODS = (*METHODS, "tail")
PARTS = ("vae_encoder", "vae_decoder", "unet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedVAESettings:
    """The weights of the VAE.

    Args:
        enabled: whether they are used.
        model_name: a weight file, a folder with one, or a name that
            `mg download --list` shows.
        key: the weights to take from a file that holds several, such as state_dict; null takes
            those averaged over training, if it has some.
        method: what the weights are: tae, sd (a 2-D VAE), or another family of
            `mg.models.families.AUTOENCODERS`; auto recognises it; local does, too, and never asks
            the network.
        inflate_method: inflation of a 2-D VAE: central, replicate or average; in a causal network
            central is the last tap in time, and tail another name of it.
        freeze_epochs: epochs for which what comes from the weights stays as it is.
        parts: patterns of the parameters that come from the weights, such as [encoder]; the others
            start anew, and fields of `model` replace those of the weights' config, so that a
            decoder may be of another size; null for all.
    """

    enabled: bool = True
    model_name: str | None = None
    key: str | None = None
    method: str = "auto"
    inflate_method: str = "central"
    freeze_epochs: int = 0
    parts: list[str] | None = None

    def __post_init__(self) -> None:
        check_types(self, "pretrained.vae.")
        require(self.parts != [], "pretrained.vae.parts=[] takes nothing; null takes all")
        for name, known in (("method", FAMILIES), ("inflate_method", INFLATE_METHODS)):
            value = getattr(self, name)
            require(
                value in known,
                f"pretrained.vae.{name}={value!r}; {_nearest(value, known)}",
            )
        require(
            self.freeze_epochs >= 0,
            f"pretrained.vae.freeze_epochs={self.freeze_epochs}; expected 0 or more",
        )

    def family(self) -> str | None:
        """Return the family of the weights as far as method and name tell it.

        Raises:
            ValueError: the two contradict each other.
        """
        stated = None if self.method in ("auto", "local") else self.method
        name = str(self.model_name)
        if self.method == "local" or not is_hub_name(name) or Path(name).exists():
            return stated
        known = find_model(name).family
        require(
            stated in (None, known),
            f"pretrained.vae.method={self.method!r}, but {name} is of family {known!r}",
        )
        return known


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """Weights to start from, and how carefully they are treated.

    Args:
        use_pretrained: false switches the whole section off.
        vae: the weights of the VAE.
        two_phase_training: keep what comes from the weights as it is for phase1_epochs, then train
            all; replaces vae.freeze_epochs.
        phase1_epochs: epochs of the first phase.
        layer_lr_multipliers: factor on the learning rate by part: vae_encoder, vae_decoder, unet.
    """

    use_pretrained: bool = True
    vae: PretrainedVAESettings = dataclasses.field(default_factory=PretrainedVAESettings)
    two_phase_training: bool = False
    phase1_epochs: int | None = None
    layer_lr_multipliers: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self, "pretrained.")
        for part, factor in self.layer_lr_multipliers.items():
            name = "pretrained.layer_lr_multipliers"
            require(part in PARTS, f"{name}: unknown part {part!r}; {_nearest(part, PARTS)}")
            require(
                factor > 0,
                f"{name}.{part}={factor}; expected more than 0 (to keep a part as is, freeze it)",
            )
        require(
            self.phase1_epochs is None or self.phase1_epochs >= 1,
            f"pretrained.phase1_epochs={self.phase1_epochs}; expected 1 or more",
        )
        if not self.is_used:
            return
        require(
            self.vae.model_name is not None,
            "pretrained.vae.model_name is missing: a file, a folder or a name that "
            "mg download --list shows (or set pretrained.use_pretrained=false)",
        )
        require(
            not self.two_phase_training or self.phase1_epochs is not None,
            "pretrained.two_phase_training needs pretrained.phase1_epochs",
        )

    @property
    def is_used(self) -> bool:
        """Whether there are weights to start from."""
        return self.use_pretrained and self.vae.enabled

    @property
    def frozen_epochs(self) -> tuple[str, int]:
        """The setting that says for how many epochs weights stay as they are, and how many."""
        if self.two_phase_training:
            return "phase1_epochs", self.phase1_epochs or 0
        return "vae.freeze_epochs", self.vae.freeze_epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedTarget:
    """What a kind of training can make of the section.

    Args:
        families: of the weights that it can start from.
        trained_first: patterns of the parameters that the weights do not provide, which train
            while the others are frozen.
        parts: {name in `layer_lr_multipliers`: pattern of its parameters}; parts that are left out
            do not exist in this training.
    """

    families: Sequence[str]
    trained_first: Sequence[str]
    parts: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedPretrained:
    """The section as settings that every run has.

    Args:
        vae: the weights to start from; None for random ones.
        phases: two of them, or none.
        lr_multipliers: factor on the learning rate by pattern.
        warnings: what has no effect, and why.
    """

    vae: PretrainedVAESettings | None = None
    phases: list[PhaseSettings] = dataclasses.field(default_factory=list)
    lr_multipliers: dict[str, float] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def check_pretrained(
    settings: PretrainedSettings,
    target: PretrainedTarget,
    *,
    phases: Sequence[PhaseSettings],
    train: Sequence[str] | None,
    lr_multipliers: Mapping[str, float],
) -> None:
    """Raise ValueError if a training cannot do what the section says, beside its other settings.

    Args:
        settings: the section.
        target: what the training can make of it.
        phases, train, lr_multipliers: the run's own, which must not say the same things again.
    """
    if not settings.is_used:
        return
    family = settings.vae.family()
    require(
        family is None or family in target.families,
        f"pretrained.vae: {settings.vae.model_name} are weights of family {family!r}, which this "
        "training cannot start from. It takes: "
        + "; ".join(f"{n} ({autoencoder_family(n).description})" for n in target.families),
    )
    name, num_epochs = settings.frozen_epochs
    for other, is_set in (("phases", bool(phases)), ("train", train is not None)):
        require(
            num_epochs == 0 or not is_set,
            f"pretrained.{name}={num_epochs} and {other} both say what trains when; keep one",
        )
    require(
        not (settings.layer_lr_multipliers and lr_multipliers),
        "pretrained.layer_lr_multipliers and lr_multipliers both set learning rates; keep one",
    )


def resolve_pretrained(
    settings: PretrainedSettings,
    target: PretrainedTarget,
    *,
    num_steps: int,
    steps_per_epoch: int,
) -> ResolvedPretrained:
    """Return the section as start weights, phases and learning rates of a run.

    Args:
        settings: the section, checked by `check_pretrained`.
        target: what the training can make of it.
        num_steps: of the run.
        steps_per_epoch: updates in which every clip is seen once.

    Raises:
        ValueError: the first phase takes all steps.
    """
    if not settings.is_used:
        return ResolvedPretrained(warnings=_warnings_when_off(settings))
    return ResolvedPretrained(
        vae=dataclasses.replace(settings.vae, freeze_epochs=0),
        phases=_phases(settings, target, num_steps, steps_per_epoch),
        lr_multipliers={
            target.parts[part]: factor
            for part, factor in settings.layer_lr_multipliers.items()
            if part in target.parts
        },
        warnings=_warnings(settings, target),
    )


def _phases(
    settings: PretrainedSettings, target: PretrainedTarget, num_steps: int, steps_per_epoch: int
) -> list[PhaseSettings]:
    name, num_epochs = settings.frozen_epochs
    if num_epochs == 0:
        return []
    num_frozen = num_epochs * steps_per_epoch
    require(
        num_frozen < num_steps,
        f"pretrained.{name}={num_epochs} takes {num_frozen} steps ({steps_per_epoch} per epoch), "
        f"which leaves none of steps={num_steps} to train what comes from the weights; raise "
        f"steps or lower {name}",
    )
    return [PhaseSettings(steps=num_frozen, train=list(target.trained_first)), PhaseSettings()]


def _warnings(settings: PretrainedSettings, target: PretrainedTarget) -> tuple[str, ...]:
    """Return what has no effect, of a section that is used."""
    warnings = []
    epochs, freeze_epochs = settings.phase1_epochs, settings.vae.freeze_epochs
    if settings.two_phase_training and freeze_epochs not in (0, epochs):
        warnings.append(
            f"pretrained.vae.freeze_epochs={freeze_epochs} has no effect: two_phase_training is "
            f"on, and phase1_epochs={epochs} counts"
        )
    if not settings.two_phase_training and epochs is not None:
        warnings.append(
            f"pretrained.phase1_epochs={epochs} has no effect: two_phase_training is off"
        )
    warnings += [
        f"pretrained.layer_lr_multipliers.{part} has no effect: this training has no such part"
        for part in settings.layer_lr_multipliers
        if part not in target.parts
    ]
    return tuple(warnings)


def _warnings_when_off(settings: PretrainedSettings) -> tuple[str, ...]:
    if not settings.use_pretrained:  # the user's own switch for all of it
        return ()
    return (
        "pretrained.vae.enabled is false: the run starts from random weights, and the rest of "
        "pretrained has no effect",
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known, f"expected one of {', '.join(known)}")


def apply_pretrained(config: Run, target: PretrainedTarget, *, steps_per_epoch: int) -> Run:
    """Return the settings of a run with its section `pretrained` resolved.

    What is left of the section are the weights; the rest stands in `phases` and `lr_multipliers`.
    Settings without effect are warned about. Resolved settings stay as they are.

    Args:
        config: settings of a run that has the field `pretrained`.
        target: what the training can make of the section.
        steps_per_epoch: updates in which every clip is seen once.

    Raises:
        ValueError: the first phase takes all steps.
    """
    section = config.pretrained
    if not isinstance(section, PretrainedSettings):
        return config
    resolved = resolve_pretrained(
        section, target, num_steps=config.steps, steps_per_epoch=steps_per_epoch
    )
    for warning in resolved.warnings:
        logger.warning("%s", warning)
    if resolved.phases:
        logger.info(
            "An epoch has %d steps; what comes from the pretrained weights stays as it is for the "
            "first %d steps.",
            steps_per_epoch,
            resolved.phases[0].steps,
        )
    return dataclasses.replace(
        config,
        pretrained=PretrainedSettings(vae=resolved.vae) if resolved.vae else None,
        phases=resolved.phases or config.phases,
        lr_multipliers=resolved.lr_multipliers or config.lr_multipliers,
    )


def find_start_weights(vae: PretrainedVAESettings) -> Path:
    """Return the file or folder of start weights; public ones are fetched where they are missing.

    Raises:
        FileNotFoundError: there is no such file, folder or public name.
        ValueError, OSError: as `mg.weights.hub.fetch`.
    """
    name = str(vae.model_name)
    path = Path(name).expanduser()
    if path.exists():
        return path
    if vae.method != "local" and is_hub_name(name):
        return fetch(name)
    near = None if vae.method == "local" else nearest_name(name)
    hint = f"; did you mean {near!r}?" if near else ""
    raise FileNotFoundError(f"weights not found: {name} does not exist{hint}")
