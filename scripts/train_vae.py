"""Train a video autoencoder of any family.

python scripts/train_vae.py --config configs/vae/train/causal_vae_tiny.yaml
"""

import sys
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli import parse_config, run_main
from mg.device import setup_device
from mg.training.config import TrainVAEConfig


def main() -> None:
    config = parse_config(TrainVAEConfig, description=__doc__)
    setup_device(config)
    # After the device is set:
    from mg.parallel.ranks import init_ranks
    from mg.training.autoencoder_trainer import AutoencoderTrainer

    AutoencoderTrainer(config, init_ranks()).run()


if __name__ == "__main__":
    run_main(main)
