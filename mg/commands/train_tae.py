"""Train the temporal autoencoder.

mg train-tae --config configs/tae/train/demo.yaml
"""

import dataclasses

from mg.cli import parse_config
from mg.device import setup_device
from mg.models.families import autoencoder_family
from mg.models.tae.config import TAEConfig
from mg.training.autoencoder.autoencoder_config import AutoencoderModel, TrainAutoencoderConfig

__all__ = ["TrainTAEConfig", "main", "parse", "train"]

# What --help shows.
COMMON = (
    "video_folder",
    "output_path",
    "pretrained",
    "steps",
    "batch_size",
    "data.size",
    "data.sample_n_frames",
    "optim.lr",
    "resume",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainTAEConfig(TrainAutoencoderConfig):
    """Train the temporal autoencoder.

    Args:
        model: the network (keys of TAE_CONFIG); null takes the config stored with pretrained, and
            the full-size one without.
    """

    model: TAEConfig | None = None

    def model_to_train(self) -> AutoencoderModel:
        family = autoencoder_family("tae")
        if self.model is not None and self.starts_in_part():
            return AutoencoderModel(family, None, self.model.to_dict())
        return AutoencoderModel(family, self.model)


def main() -> None:
    train(parse())


def parse(arguments: list[str] | None = None) -> TrainTAEConfig:
    """Return the settings of a run; None takes the command line's arguments."""
    return parse_config(TrainTAEConfig, arguments, description=__doc__, common=COMMON)


def train(config: TrainAutoencoderConfig) -> None:
    """Set the device up and train an autoencoder."""
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer

    AutoencoderTrainer(config, init_ranks()).run()
