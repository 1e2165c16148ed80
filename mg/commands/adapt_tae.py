"""Adapt the small autoencoder to a clip of yours and see what it learns in minutes.

mg demo --config configs/tae/train/adapt.yaml --video_folder my_clip.mp4

Trains on the clip's first half and shows its second half: before_after.gif, curves.png. All
settings of mg train-tae can be given.
"""

import logging
from pathlib import Path

from mg.cli import parse_config
from mg.commands.train_tae import TrainTAEConfig
from mg.device import setup_device
from mg.training.autoencoder.adaptation import halve_clips, write_before_and_after
from mg.training.run.output_folder import check_output

# What --help shows.
COMMON = (
    "video_folder",
    "output_path",
    "pretrained",
    "steps",
    "data.size",
    "data.sample_n_frames",
    "optim.lr",
    "max_minutes",
    "resume",
    "device",
)


def main() -> None:
    config = parse_config(TrainTAEConfig, description=__doc__, common=COMMON)
    check_output(config)
    config = halve_clips(config)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer

    trainer = AutoencoderTrainer(config, init_ranks())
    if trainer.run() is None:
        return
    output = Path(config.output_path)
    gif = output / "before_after.gif"
    write_before_and_after(output / "validation", gif, last_step=trainer.step)
    logging.getLogger("mg").info("Original | before | after: %s", gif)
