"""Make a TAE's starting weights from an image VAE (Stable Diffusion's, SDXL's, SD3.5's).

    mg inflate --target models/tae_vae2d.ckpt \\
        --src /path/to/sd3.5_vae/diffusion_pytorch_model.safetensors

A TAE that was trained on images will do as well. Writes the weights and, beside them, the TAE's
config as JSON. Needs neither PyTorch nor MindSpore.

Where the TAE then equals the image VAE, by --method:

    method               an image   a still clip   a moving clip
    central              yes        yes            with --norm_per_frame, at every frame that is
                                                   kept: all with --temporal_compression 1
    replicate, average   yes        yes            no, motion blurs over neighbouring frames

replicate and average coincide: 1/k of the weights in each of k taps.
"""

import argparse
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mg.cli.argument_parser import CommandParser
from mg.console import printable
from mg.files import atomic_path, sha256_of_file
from mg.weights.checkpoint_file import (
    check_writable_suffix,
    find_weights,
    list_tensors,
    write_weights,
)
from mg.weights.image_vae import DEFAULT_NORM_GROUPS, image_vae_config, temporal_levels
from mg.weights.inflation import (
    METHODS,
    TEMPORAL_PADDINGS,
    inflate_image_tae,
    inflate_image_vae,
)
from mg.weights.own_tensors import read_own_tensors
from mg.weights.stored_config import (
    config_metadata,
    config_path,
    stored_tae_config,
    stored_vae_fields,
)
from mg.weights.tae_layers import image_vae_shapes
from mg.weights.tae_names import infer_tae_config, is_tae
from mg.weights.vae_names import to_diffusers_names

__all__ = ["main"]

ASSUMED = (
    " (assumed: no config.json beside the weights; Stable Diffusion has 0.18215 and 0, "
    "SDXL 0.13025 and 0)"
)


def parse_arguments() -> argparse.Namespace:
    parser = CommandParser(
        __doc__,
        names={"input": "src", "weights": "src", "output": "target", "output_path": "target"},
    )
    parser.add_argument(
        "--src",
        required=True,
        type=Path,
        help="the VAE: a weight file (fp32, fp16 or bf16), an index of shards, or a folder, with "
        "its config.json beside the weights; or a TAE without temporal levels",
    )
    parser.add_argument(
        "--key", help="which weights of a file that holds several; default: the averaged ones"
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
    parser.add_argument(
        "--temporal_compression",
        type=int,
        help="frames per frame of latent, a power of two; 1 compresses each frame by itself. "
        "Default: the spatial compression",
    )
    parser.add_argument(
        "--norm_per_frame",
        action="store_true",
        help="normalise each frame by itself, as the image VAE does, instead of the whole clip",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")
    return parser.parse_args()


def main() -> int:
    """Convert as the command line says; return the exit code."""
    arguments = parse_arguments()
    try:
        convert(arguments)
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    return 0


def convert(arguments: argparse.Namespace) -> None:
    """Read, inflate, write both files, and print what was done."""
    target, config_file = arguments.target, config_path(arguments.target)
    check_writable_suffix(target)
    refuse_existing([target, config_file], arguments.overwrite)
    file = find_weights(arguments.src)
    source = read_own_tensors(file, key=arguments.key)
    try:
        inflated, config, assumed = inflate(file, source, arguments)
    except ValueError as error:
        raise ValueError(f"{arguments.src}: {error}") from error
    # The config appears only after the weights have been written whole.
    with atomic_path(config_file, overwrite=arguments.overwrite) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        metadata = config_metadata(config) if target.suffix == ".safetensors" else None
        write_weights(target, inflated, metadata=metadata, overwrite=arguments.overwrite)
    print_summary(arguments, source, inflated, config, assumed)


def inflate(
    file: Path, source: Mapping[str, np.ndarray], arguments: argparse.Namespace
) -> tuple[dict[str, np.ndarray], dict[str, Any], bool]:
    """Return the TAE's tensors, its config, and whether its latent scaling is assumed."""
    choices = {"method": arguments.method, "temporal_padding": arguments.temporal_padding}
    structure = {"norm_per_frame": True} if arguments.norm_per_frame else {}
    if is_tae(source):
        config = stored_tae_config(file) or infer_tae_config(source)
        structure |= temporal_levels(len(config["ch_mult"]), arguments.temporal_compression)
        return *inflate_image_tae(source, config, structure=structure, **choices), False
    source = to_diffusers_names(source)
    stated = stored_vae_fields(file) or {}
    config = image_vae_config(source, norm_groups=stated.get("norm_groups", DEFAULT_NORM_GROUPS))
    structure |= temporal_levels(len(config["ch_mult"]), arguments.temporal_compression) | stated
    return *inflate_image_vae(source, structure=structure, **choices), not stated


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
    is_assumed: bool,
) -> None:
    """Print sizes, counts, the output files and what to do next."""
    target = arguments.target
    num_copied = len(source) if is_tae(source) else len(image_vae_shapes(config))
    sizes = ("ch", "ch_mult", "num_res_blocks", "z_channels", "in_channels", "out_ch")
    print(
        textwrap.dedent(
            f"""\
            source      {arguments.src}
                        {len(source)} tensors, {num_millions(source)} M parameters, \
{stored_types(arguments.src, arguments.key)}
            sizes       {", ".join(f"{key} {config[key]}" for key in sizes)}
            method      {arguments.method}, temporal padding {config["temporal_padding"]}
            time        {temporal_structure(config)}
            equality    {equality(arguments.method, config)}
            scaling     factor {config["scaling_factor"]}, shift {config["shift_factor"]}\
{ASSUMED if is_assumed else ""}
            tensors     {num_copied} copied, {len(inflated) - num_copied} created
            target      {target}
                        {len(inflated)} tensors, {num_millions(inflated)} M parameters, float32
            sha256      {sha256_of_file(target)}
            config      {config_path(target)}
            next        mg reconstruct --ckpt_path {target} \
--video_folder /path/to/videos --num_frames 16 --image_size 256"""
        )
    )


def temporal_structure(config: Mapping[str, Any]) -> str:
    """Return in words what the TAE does along time."""
    compression = 2 ** len(config["temporal_downsample_level"])
    pooled = "frame" if config.get("norm_per_frame", False) else "clip"
    return f"{compression} frame(s) per frame of latent, GroupNorm over each {pooled}"


def equality(method: str, config: Mapping[str, Any]) -> str:
    """Return in words on what the TAE equals its source (see `inflate_image_vae`)."""
    if method != "central" or not config.get("norm_per_frame", False):
        return "equals its source on images and still clips"
    kept = "every frame" if not config["temporal_downsample_level"] else "every frame that is kept"
    return f"equals its source on images, still clips and {kept} of moving clips"


def stored_types(src: Path, key: str | None) -> str:
    """Return the number types in the source file, most frequent first."""
    types = Counter(entry.dtype for entry in list_tensors(src, key=key).values())
    return ", ".join(name for name, _ in types.most_common())


def num_millions(tensors: Mapping[str, np.ndarray]) -> str:
    return f"{sum(array.size for array in tensors.values()) / 1e6:.1f}"
