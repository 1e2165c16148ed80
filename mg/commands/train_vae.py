"""Train a video autoencoder of any family.

mg train-vae --config configs/vae/train/causal_vae_tiny.yaml
"""

from mg.cli import parse_config
from mg.commands.train_tae import train
from mg.training.autoencoder.autoencoder_config import TrainVAEConfig

# What --help shows.
COMMON = (
    "model",
    "video_folder",
    "output_path",
    "pretrained",
    "steps",
    "batch_size",
    "data.size",
    "optim.lr",
    "resume",
    "device",
)


def main() -> None:
    train(parse_config(TrainVAEConfig, description=__doc__, common=COMMON))
