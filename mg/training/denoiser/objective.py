"""The objective of a run: from its settings, and from the generator that it starts from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mindspore import nn

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.objectives import DiffusionObjective, FlowObjective, Objective
from mg.flow.scheduler_config import (
    build_scheduler,
    diffusion_config,
    flow_config,
    predicted_by,
    with_schedule,
)
from mg.flow.schedulers import FlowEuler
from mg.flow.velocity_network import published_network, velocity_network
from mg.training.denoiser.diffusion_loss import DiffusionLoss
from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.denoiser.objective_settings import DenoiserLossSettings, ObjectiveSettings

__all__ = ["TrainingObjective"]

PREDICTIONS = {"v": "v", "epsilon": "noise"}
SNR_SHIFT_SCALE = 3.0  # of CogVideoX-2b


@dataclasses.dataclass(frozen=True)
class TrainingObjective:
    """What a network learns, and the scheduler that its generator then samples with.

    Attributes:
        objective: times, mixtures and targets.
        own: what networks of the family predict where no scheduler says otherwise.
        scheduler: fields of scheduler_config.json, which also say what the network predicts; None
            for what the family predicts, sampled along the velocity.
    """

    objective: Objective
    own: str
    scheduler: Mapping[str, Any] | None

    @classmethod
    def of(
        cls,
        settings: ObjectiveSettings,
        own: str,
        *,
        is_start: bool = False,
        stored: Mapping[str, Any] | None = None,
    ) -> "TrainingObjective":
        """Return what the settings say.

        Args:
            settings: of the run.
            own: what networks of the family predict where no scheduler says otherwise.
            is_start: whether the run starts from a generator.
            stored: the scheduler of that generator, if it has one.

        Raises:
            ValueError: the generator predicts something else, or values that make no schedule.
        """
        if not settings.is_diffusion:
            shift, scheduler = _flow(settings.shift, own, stored)
            return cls(FlowObjective(shift), own, scheduler)
        prediction = PREDICTIONS[settings.kind]
        schedule = _first_schedule(settings.kind)
        if is_start:
            found, clock = predicted_by(stored, own)
            if found != prediction:
                raise ValueError(
                    f"the network of the generator predicts {found!r}, and objective.kind is "
                    f"{settings.kind}; leave objective out, or start from a generator of that kind"
                )
            schedule = clock or NoiseSchedule()
        try:
            schedule = dataclasses.replace(schedule, **settings.schedule_changes)
        except ValueError as error:
            raise ValueError(f"objective: {error}") from error
        if stored is None:
            scheduler = diffusion_config(schedule, prediction=prediction)
        else:
            scheduler = with_schedule(stored, schedule)
        return cls(DiffusionObjective(prediction, schedule), own, scheduler)

    def predictor(self, network: nn.Cell) -> nn.Cell:
        """Return a network as one that sees the objective's times and predicts its target."""
        convert = velocity_network
        if isinstance(self.objective, DiffusionObjective):
            convert = published_network
        return convert(network, self.own, self.scheduler)

    def loss(self, predictor: nn.Cell, settings: DenoiserLossSettings) -> nn.Cell:
        """Return the loss of a network.

        Args:
            predictor: from `predictor`.
            settings: weights of the errors.
        """
        weights = dataclasses.asdict(settings)
        if isinstance(self.objective, DiffusionObjective):
            return DiffusionLoss(predictor, self.objective, **weights)
        return FlowLoss(predictor, **weights)

    def check_lora(self, stored: Mapping[str, Any] | None) -> None:
        """Raise ValueError if a LoRA would need another clock than its generator has.

        Args:
            stored: the scheduler of the generator.
        """
        (_, here), (_, there) = (predicted_by(c, self.own) for c in (self.scheduler, stored))
        if (here or NoiseSchedule()) != (there or NoiseSchedule()):
            raise ValueError(
                "objective changes the schedule of the generator, which a LoRA does not carry; "
                "leave out its fields but for kind"
            )

    def check_steps(self, num_steps: int) -> None:
        """Raise ValueError if the generator could not sample in so many steps."""
        if self.scheduler is not None:
            build_scheduler(self.scheduler, num_steps)


def _flow(
    shift: float | None, own: str, stored: Mapping[str, Any] | None
) -> tuple[float, Mapping[str, Any] | None]:
    """Return the shift of the times, and the scheduler of the generator."""
    of_stored = None
    if stored is not None:
        scheduler = build_scheduler(stored, 1)
        if not isinstance(scheduler, FlowEuler):  # its clock is the network's, and stays
            return shift or 1.0, stored
        of_stored = scheduler.shift
    elif shift is None or own not in ("flow", "velocity"):
        return shift or 1.0, None
    shift = shift or of_stored
    return shift, flow_config(shift) if stored is None else {**stored, "shift": shift}


def _first_schedule(kind: str) -> NoiseSchedule:
    """Return the schedule of a network that starts from nothing."""
    return NoiseSchedule(snr_shift_scale=SNR_SHIFT_SCALE, zero_terminal_snr=kind == "v")
