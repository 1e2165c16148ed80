"""The compiled step of a phase: what trains, and how fast."""

import logging
from collections.abc import Mapping, Sequence

from mindspore import nn

from mg.parallel.ranks import Ranks
from mg.training.parameter_groups import (
    group_table,
    learning_rate_multipliers,
    trainable_names,
)
from mg.training.settings import PhaseSettings, RunSettings
from mg.training.stages import Stage
from mg.training.step import TrainStep

__all__ = ["phase_step", "trained_in"]

logger = logging.getLogger("mg")


def trained_in(
    phase: PhaseSettings,
    network: nn.Cell,
    config: RunSettings,
    *,
    aliases: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the names of the parameters that train in a phase.

    Args:
        phase: its own patterns, besides those of the run.
        network: what is trained.
        config: of the run.
        aliases: what short names in patterns stand for.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    constants = getattr(network, "constants", ())
    names = [name for name, _ in network.parameters_and_names() if name not in constants]
    train = config.train if phase.train is None else phase.train
    learning_rate_multipliers(names, config.lr_multipliers, aliases=aliases)
    return trainable_names(names, train, [*config.freeze, *phase.freeze], aliases=aliases)


def phase_step(
    stage: Stage,
    network: nn.Cell,
    loss: nn.Cell,
    config: RunSettings,
    *,
    aliases: Mapping[str, Sequence[str]],
    ranks: Ranks,
) -> TrainStep:
    """Return the step that trains a network in a stage; parameters that do not are frozen.

    Args:
        stage: whose phase counts.
        network: what is trained.
        loss: with the network inside.
        config: of the run.
        aliases: what short names in patterns stand for.
        ranks: that train together.
    """
    phase = stage.phase
    parameters = dict(network.parameters_and_names())
    names = trained_in(phase, network, config, aliases=aliases)
    for name, parameter in parameters.items():
        parameter.requires_grad = name in set(names)
    multipliers = learning_rate_multipliers(
        list(parameters), config.lr_multipliers, aliases=aliases
    )
    sizes = {name: parameter.size for name, parameter in parameters.items()}
    logger.info("Phase %d:\n%s", stage.phase_number, group_table(sizes, names, multipliers))
    return TrainStep(
        loss,
        config.optim,
        parameters=[parameters[name] for name in names],
        lr_multipliers=[multipliers[name] * phase.lr_multiplier for name in names],
        ranks=ranks,
        zero_stage=config.zero_stage,
    )
