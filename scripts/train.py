"""Train the Movie Gen transformer on cached latents.

python scripts/train.py --config configs/movie_gen/train/demo.yaml
"""

import sys
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli import parse_config, run_main
from mg.device import setup_device
from mg.training.denoiser_config import TrainDenoiserConfig


def main() -> None:
    config = parse_config(TrainDenoiserConfig, description=__doc__)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.denoiser_trainer import DenoiserTrainer

    DenoiserTrainer(config, init_ranks()).run()


if __name__ == "__main__":
    run_main(main)
