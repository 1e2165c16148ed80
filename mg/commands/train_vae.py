"""Train a video autoencoder of any family.

mg train-vae --config configs/vae/train/causal_vae_tiny.yaml
"""

from mg.cli import parse_config
from mg.device import setup_device
from mg.training.config import TrainVAEConfig

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
    config = parse_config(TrainVAEConfig, description=__doc__, common=COMMON)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.autoencoder_trainer import AutoencoderTrainer

    AutoencoderTrainer(config, init_ranks()).run()
