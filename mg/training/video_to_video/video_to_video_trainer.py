"""The training run of a denoiser and its VAE on pairs of videos, from its settings."""

from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.run.output_folder import check_output
from mg.training.setting_checks import require
from mg.training.trainer import Trainer
from mg.training.video_to_video.video_to_video_config import (
    NEEDED_TO_TRAIN,
    TrainVideoToVideoConfig,
)
from mg.training.video_to_video.video_to_video_task import VideoToVideoTask

__all__ = ["VideoToVideoTrainer"]


class VideoToVideoTrainer(Trainer):
    """A `Trainer` of both networks: `VideoToVideoTrainer(config).run()` does all of it.

    Args and errors as of `DenoiserTrainer`.
    """

    def __init__(self, config: TrainVideoToVideoConfig, ranks: Ranks = ONE_RANK) -> None:
        for name in NEEDED_TO_TRAIN:
            require(getattr(config, name) != "", f"{name} is not set, and training needs it")
        check_output(config)
        task = VideoToVideoTask(config, ranks)
        interval = task.config.validation.interval
        super().__init__(task.config, task, ranks, validation_interval=interval)
