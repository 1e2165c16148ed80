"""Train a denoiser on cached latents, or with a section `pretrained` together with its VAE.

mg train --config configs/movie_gen/train/demo.yaml
mg train --config configs/movie_gen/train/video_to_video.yaml
"""

import sys
from collections.abc import Mapping

from mg.cli import parse_config
from mg.cli.help import readable_configs
from mg.device import setup_device
from mg.training.denoiser.denoiser_config import TrainDenoiserConfig
from mg.training.video_to_video.video_to_video_config import TrainVideoToVideoConfig

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


# What --help shows where the VAE trains too.
COMMON_OF_BOTH = (
    "csv_path",
    "pretrained.vae.model_name",
    "pretrained.two_phase_training",
    "pretrained.phase1_epochs",
    "output_path",
    "steps",
    "batch_size",
    "optim.lr",
    "resume",
    "device",
)


def main() -> None:
    if has_pretrained_section(sys.argv[1:]):
        _train_both()
        return
    config = parse_config(TrainDenoiserConfig, description=__doc__, common=COMMON)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.denoiser.denoiser_trainer import DenoiserTrainer

    DenoiserTrainer(config, init_ranks()).run()


def has_pretrained_section(argv: list[str]) -> bool:
    """Return whether settings say how a VAE's weights are treated, which only one training does.

    Args:
        argv: the command's arguments; a config file that cannot be read says nothing here.
    """
    if any(argument.startswith("--pretrained.") for argument in argv):
        return True
    sections = [content.get("pretrained") for content in readable_configs(argv)]
    return any(isinstance(section, Mapping) for section in sections)


def _train_both() -> None:
    config = parse_config(TrainVideoToVideoConfig, description=__doc__, common=COMMON_OF_BOTH)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.video_to_video.video_to_video_trainer import VideoToVideoTrainer

    VideoToVideoTrainer(config, init_ranks()).run()
