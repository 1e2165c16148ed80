#!/usr/bin/env python
"""Make each latent channel of a TAE as large as what it changes in the video.

    python scripts/encode.py --ckpt_path tae.safetensors --input videos --output_path latents
    python tools/scale_latents.py --src tae.safetensors --latent_folder latents \
        --target tae_scaled.safetensors

A TAE with a linear path begins with channels of variance 1 each, also those that matter to few
pixels. A generator's loss then looks as much at these as at the others. With the scaled weights the
same videos give the same reconstructions, and latents of mean square 1 over all channels; latents
that were encoded before are not those of the scaled weights.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from latent_channels import scale_channels, scales_by_effect
from mg.cli import run_main
from mg.data.latent_files import list_latent_files, read_latent
from mg.metrics.latents import LatentReport
from mg.models.reading import read_autoencoder
from mg.weights.stored_config import write_tae


def channel_deviations(folder: Path) -> np.ndarray:
    """Return the standard deviation of each channel over all latents of a folder, (C,)."""
    report = LatentReport()
    for name, path in list_latent_files(folder).items():
        report.add(name, read_latent(path).mean)
    return np.array([channel["std"] for channel in report.summary()["channels"]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", required=True, type=Path, help="TAE weights with a linear path")
    parser.add_argument(
        "--latent_folder", required=True, type=Path, help="latents that these weights encoded"
    )
    parser.add_argument("--target", required=True, type=Path, help="the .safetensors to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    arguments = parser.parse_args()
    parts = read_autoencoder(arguments.src, into="tae")
    tensors, config = parts.tensors, parts.config.to_dict()
    deviations = channel_deviations(arguments.latent_folder)
    scales = scales_by_effect(tensors, config, deviations)
    scaled = scale_channels(tensors, config, scales)
    write_tae(arguments.target, scaled, config, overwrite=arguments.overwrite)
    print("deviation of each channel, before -> now:")
    for channel, (before, scale) in enumerate(zip(deviations, scales, strict=True)):
        print(f"  {channel:2}: {before:.2f} -> {before * scale:.2f}")


if __name__ == "__main__":
    run_main(main)
