"""Train the Movie Gen transformer on cached latents.

mg train --config configs/movie_gen/train/demo.yaml
"""

from mg.cli import parse_config
from mg.device import setup_device
from mg.training.denoiser_config import TrainDenoiserConfig

# What --help shows.
COMMON = (
    "csv_path",
    "latent_folder",
    "tae",
    "output_path",
    "steps",
    "batch_size",
    "optim.lr",
    "resume",
    "validation.csv_path",
    "device",
)


def main() -> None:
    config = parse_config(TrainDenoiserConfig, description=__doc__, common=COMMON)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.denoiser_trainer import DenoiserTrainer

    DenoiserTrainer(config, init_ranks()).run()
