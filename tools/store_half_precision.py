#!/usr/bin/env python
"""Store TAE weights in float16, at half the size, with their config.

python tools/store_half_precision.py --src tae.safetensors --target tae_fp16.safetensors
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli import run_main
from mg.files import write_text
from mg.weights.checkpoint_file import write_weights
from mg.weights.load import load_tae_tensors
from mg.weights.stored_config import config_metadata, config_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--src", required=True, type=Path, help="TAE weights with their config")
    parser.add_argument("--target", required=True, type=Path, help="the .safetensors to write")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    arguments = parser.parse_args()
    tensors, config = load_tae_tensors(arguments.src)
    halved = {name: array.astype(np.float16) for name, array in tensors.items()}
    too_large = [name for name, array in halved.items() if not np.isfinite(array).all()]
    if too_large:
        raise ValueError(f"values beyond float16's range in {too_large[:8]}; keep float32")
    metadata = config_metadata(config)
    write_weights(arguments.target, halved, metadata=metadata, overwrite=arguments.overwrite)
    text = json.dumps(config, indent=1) + "\n"
    write_text(config_path(arguments.target), text, overwrite=arguments.overwrite)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_main(main)
