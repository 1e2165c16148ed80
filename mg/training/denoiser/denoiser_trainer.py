"""The training run of the Movie Gen transformer, from its settings."""

from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.denoiser.denoiser_config import TrainDenoiserConfig
from mg.training.denoiser.denoiser_task import DenoiserTask
from mg.training.run.output_folder import check_output
from mg.training.trainer import Trainer

__all__ = ["DenoiserTrainer"]


class DenoiserTrainer(Trainer):
    """A `Trainer` of the transformer: `DenoiserTrainer(config).run()` does all of it.

    Args:
        config: every setting.
        ranks: this process among those that train together; alone by default.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
        FileExistsError: `output_path` holds another run.
        NotADirectoryError: there can be no folder at `output_path`.
    """

    def __init__(self, config: TrainDenoiserConfig, ranks: Ranks = ONE_RANK) -> None:
        check_output(config)
        task = DenoiserTask(config, ranks)
        super().__init__(
            config,
            task,
            ranks,
            validation_interval=config.validation.interval,
            sample_interval=None if config.samples is None else config.samples.interval,
        )
