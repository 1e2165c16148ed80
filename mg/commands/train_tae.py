"""Train the temporal autoencoder.

mg train-tae --config configs/tae/train/demo.yaml
"""

from mg.cli import parse_config
from mg.device import setup_device
from mg.training.autoencoder.autoencoder_config import TrainAutoencoderConfig, TrainTAEConfig

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


def main() -> None:
    train(parse_config(TrainTAEConfig, description=__doc__, common=COMMON))


def train(config: TrainAutoencoderConfig) -> None:
    """Set the device up and train an autoencoder."""
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer

    AutoencoderTrainer(config, init_ranks()).run()
