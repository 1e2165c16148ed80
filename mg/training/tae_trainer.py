"""The training run of the TAE, from its settings."""

from pathlib import Path

from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.config import TrainTAEConfig
from mg.training.tae_task import TAETask
from mg.training.trainer import Trainer

__all__ = ["TAETrainer"]


class TAETrainer(Trainer):
    """A `Trainer` of the TAE: `TAETrainer(config).run()` does all of it.

    Args:
        config: every setting.
        ranks: this process among those that train together; alone by default.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
        FileExistsError: `output_path` holds another run.
    """

    def __init__(self, config: TrainTAEConfig, ranks: Ranks = ONE_RANK) -> None:
        _refuse_other_run(config)
        task = TAETask(config, ranks)
        super().__init__(config, task, ranks, validation_interval=config.validation.interval)


def _refuse_other_run(config: TrainTAEConfig) -> None:
    output = Path(config.output_path)
    holds_run = (output / "config.yaml").exists()
    if holds_run and not (config.resume or config.overwrite):
        raise FileExistsError(
            f"{output} holds a run already; choose another --output_path, go on with it "
            "(--resume=true), or replace it (--overwrite=true)"
        )
