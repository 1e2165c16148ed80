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
        NotADirectoryError: there can be no folder at `output_path`.
    """

    def __init__(self, config: TrainTAEConfig, ranks: Ranks = ONE_RANK) -> None:
        _check_output(config)
        task = TAETask(config, ranks)
        config = task.config  # with the section `pretrained` resolved
        super().__init__(config, task, ranks, validation_interval=config.validation.interval)


def _check_output(config: TrainTAEConfig) -> None:
    output = Path(config.output_path)
    # From there upwards, the first that exists.
    place = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"output_path={output}: {place} is a file, not a folder")
    holds_run = (output / "config.yaml").exists()
    if holds_run and not (config.resume or config.overwrite):
        raise FileExistsError(
            f"{output} holds a run already; choose another --output_path, go on with it "
            "(--resume=true), or replace it (--overwrite=true)"
        )
