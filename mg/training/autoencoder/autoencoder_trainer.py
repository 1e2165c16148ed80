"""The training run of an autoencoder, from its settings."""

from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.autoencoder.autoencoder_config import TrainAutoencoderConfig
from mg.training.autoencoder.autoencoder_task import AutoencoderTask
from mg.training.run.output_folder import check_output
from mg.training.trainer import Trainer

__all__ = ["AutoencoderTrainer"]


class AutoencoderTrainer(Trainer):
    """A `Trainer` of an autoencoder: `AutoencoderTrainer(config).run()` does all of it.

    Args:
        config: every setting.
        ranks: this process among those that train together; alone by default.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
        FileExistsError: `output_path` holds another run.
        NotADirectoryError: there can be no folder at `output_path`.
    """

    def __init__(self, config: TrainAutoencoderConfig, ranks: Ranks = ONE_RANK) -> None:
        check_output(config)
        task = AutoencoderTask(config, ranks)
        config = task.config  # with the section `pretrained` resolved
        super().__init__(config, task, ranks, validation_interval=config.validation.interval)
