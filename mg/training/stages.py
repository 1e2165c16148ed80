"""The stages of a run: stretches of steps for which one compiled step is built."""

import dataclasses

from mg.training.settings import PhaseSettings, RunSettings

__all__ = ["Stage", "plan_stages", "stage_at"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Steps [first, end) of a run, in which the same parameters and losses train.

    Args:
        first: the first step.
        end: the step after the last.
        phase: what the settings say about these steps.
        phase_number: its place in the settings' list, from 0.
        has_discriminator: whether a discriminator takes part.
    """

    first: int
    end: int
    phase: PhaseSettings
    phase_number: int = 0
    has_discriminator: bool = False


def plan_stages(settings: RunSettings, *, discriminator_start: int | None = None) -> list[Stage]:
    """Return the stages of a run in order: its phases, cut where a discriminator joins.

    Args:
        settings: of the run.
        discriminator_start: the step at which it joins; None for never.
    """
    stages = []
    first = 0
    for number, phase in enumerate(settings.phases or [PhaseSettings()]):
        end = settings.steps if phase.steps is None else first + phase.steps
        for piece_first, piece_end, has_discriminator in _split(first, end, discriminator_start):
            stages.append(Stage(piece_first, piece_end, phase, number, has_discriminator))
        first = end
    return stages


def _split(first: int, end: int, start: int | None) -> list[tuple[int, int, bool]]:
    """Return [first, end) as pieces (first, end, has discriminator)."""
    if start is None or start >= end:
        return [(first, end, False)]
    if start <= first:
        return [(first, end, True)]
    return [(first, start, False), (start, end, True)]


def stage_at(stages: list[Stage], step: int) -> Stage:
    """Return the stage that `step` belongs to; the last one for steps behind the end."""
    return next((stage for stage in stages if step < stage.end), stages[-1])
