#!/usr/bin/env python
"""Make a TAE's starting weights from the image VAE of Stable Diffusion 3.5, or from an image TAE.

    python tools/inflate_vae_to_tae.py --target models/tae_vae2d.ckpt \
        --src /path/to/sd3.5_vae/diffusion_pytorch_model.safetensors

Writes the weights and, beside them, the TAE's config as JSON. Needs neither PyTorch nor MindSpore.
"""

import argparse
import hashlib
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.files import atomic_path
from mg.weights.checkpoint_file import check_writable_suffix, read_weights, write_weights
from mg.weights.inflation import (
    METHODS,
    TEMPORAL_PADDINGS,
    inflate_image_tae,
    inflate_image_vae,
)
from mg.weights.safetensors_file import read_safetensors_types
from mg.weights.stored_config import (
    config_metadata,
    config_path,
    stored_tae_config,
    stored_vae_scaling,
)
from mg.weights.tae_names import infer_tae_config, is_tae

__all__ = ["main"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--src",
        required=True,
        type=Path,
        help="the VAE: a .safetensors file (fp32, fp16 or bf16), an index of shards, or a folder; "
        "or a TAE without temporal levels",
    )
    parser.add_argument(
        "--target", required=True, type=Path, help="the file to write: .ckpt or .safetensors"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="central",
        help="start of the temporal kernels: identity in the middle tap (central), or spread over "
        "the taps (replicate and average coincide here). Default: central",
    )
    parser.add_argument(
        "--temporal_padding",
        choices=TEMPORAL_PADDINGS,
        default="published",
        help="temporal padding of the TAE to come. Default: published",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")
    return parser.parse_args()


def main() -> int:
    """Convert as the command line says; return the exit code."""
    arguments = parse_arguments()
    try:
        convert(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def convert(arguments: argparse.Namespace) -> None:
    """Read, inflate, write both files, and print what was done."""
    target, config_file = arguments.target, config_path(arguments.target)
    check_writable_suffix(target)
    refuse_existing([target, config_file], arguments.overwrite)
    source = read_weights(arguments.src)
    choices = {"method": arguments.method, "temporal_padding": arguments.temporal_padding}
    try:
        if is_tae(source):
            image_config = stored_tae_config(arguments.src) or infer_tae_config(source)
            inflated, config = inflate_image_tae(source, image_config, **choices)
        else:
            inflated, config = inflate_image_vae(source, **choices)
    except ValueError as error:
        raise ValueError(f"{arguments.src}: {error}") from error
    config |= stored_vae_scaling(arguments.src)
    # The config appears only after the weights have been written whole.
    with atomic_path(config_file, overwrite=arguments.overwrite) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        metadata = config_metadata(config) if target.suffix == ".safetensors" else None
        write_weights(target, inflated, metadata=metadata, overwrite=arguments.overwrite)
    print_summary(arguments, source, inflated, config)


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise FileExistsError before any work is done, if an output exists and must not go."""
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"already there: {', '.join(existing)}; choose another --target or add --overwrite"
        )


def print_summary(
    arguments: argparse.Namespace,
    source: Mapping[str, np.ndarray],
    inflated: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
) -> None:
    """Print sizes, counts, the output files and what to do next."""
    target = arguments.target
    sizes = ("ch", "ch_mult", "num_res_blocks", "z_channels", "in_channels", "out_ch")
    print(
        textwrap.dedent(
            f"""\
            source      {arguments.src}
                        {len(source)} tensors, {num_millions(source)} M parameters, \
{stored_types(arguments.src, source)}
            sizes       {", ".join(f"{key} {config[key]}" for key in sizes)}
            method      {arguments.method}, temporal padding {config["temporal_padding"]}
            tensors     {len(source)} copied, {len(inflated) - len(source)} created
            target      {target}
                        {len(inflated)} tensors, {num_millions(inflated)} M parameters, float32
            sha256      {sha256(target)}
            config      {config_path(target)}
            next        python scripts/inference_vae.py --ckpt_path {target} \
--video_folder /path/to/videos --num_frames 16 --image_size 256"""
        )
    )


def stored_types(src: Path, source: Mapping[str, np.ndarray]) -> str:
    """Return the number types in the source file, most frequent first."""
    if src.suffix == ".ckpt":
        types = Counter(str(array.dtype) for array in source.values())
    else:
        types = Counter(read_safetensors_types(src).values())
    return ", ".join(name for name, _ in types.most_common())


def num_millions(tensors: Mapping[str, np.ndarray]) -> str:
    return f"{sum(array.size for array in tensors.values()) / 1e6:.1f}"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
