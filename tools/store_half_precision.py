#!/usr/bin/env python
"""Store TAE weights or a generator's folder in float16, at half the size, with their config.

python tools/store_half_precision.py --src tae.safetensors --target tae_fp16.safetensors
python tools/store_half_precision.py --src outputs/movie_gen_demo/generator --target generator_fp16
python tools/store_half_precision.py --src outputs/movie_gen_demo/generator \\
    --autoencoder outputs/shapes_decoder/tae.safetensors --target generator_fp16

The folder of a checkpoint of TAE training will do as well: its averaged weights are stored.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli import run_main
from mg.models.reading import read_autoencoder
from mg.pipelines.generator_folder import INDEX_FILE, load_generator
from mg.pipelines.generator_writer import save_generator
from mg.weights.safetensors_file import read_safetensors
from mg.weights.stored_config import write_tae


def halved(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors in float16.

    Raises:
        ValueError: values beyond float16's range.
    """
    with np.errstate(over="ignore"):
        result = {name: array.astype(np.float16) for name, array in tensors.items()}
    too_large = [name for name, array in result.items() if not np.isfinite(array).all()]
    if too_large:
        raise ValueError(f"values beyond float16's range in {too_large[:8]}; keep float32")
    return result


def store_tae(source: Path, target: Path, *, overwrite: bool) -> None:
    """Write TAE weights in float16, with their config in the header and beside them.

    Of a checkpoint (a folder) these are the averaged weights, as a run's final ones are.
    """
    parts = read_autoencoder(source / "tae.safetensors" if source.is_dir() else source, into="tae")
    tensors, config = dict(parts.tensors), parts.config.to_dict()
    if source.is_dir():
        tensors = tensors | _averaged(source / "tae_state.safetensors", tensors)
    write_tae(target, halved(tensors), config, overwrite=overwrite)


def _averaged(state: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return what the state of a checkpoint has of averaged weights; none where none are kept."""
    arrays = read_safetensors(state)
    return {name: arrays[f"average.{name}"] for name in names if f"average.{name}" in arrays}


def store_generator(
    source: Path, target: Path, *, overwrite: bool, autoencoder: Path | None = None
) -> None:
    """Write a generator's folder with transformer and autoencoder in float16.

    Args:
        source, target: folders.
        overwrite: whether what is there may be replaced.
        autoencoder: one with the same encoder, to take the place of the generator's own.

    Raises:
        ValueError: its encoder is another one, so the generator does not know its latents.
    """
    parts = load_generator(source)
    vae = parts.autoencoder
    if autoencoder is not None:
        other = read_autoencoder(autoencoder).scaled_by(vae.spec)
        before, after = (_encoder(halved(each.tensors)) for each in (vae, other))
        if before.keys() != after.keys() or any(
            not np.array_equal(before[name], after[name]) for name in before
        ):
            raise ValueError(
                f"{autoencoder} has another encoder than {source}, whose latents the generator was "
                "trained on; expected one of which the decoder alone was trained on"
            )
        vae = other
    save_generator(
        target,
        transformer_tensors=halved(parts.transformer_tensors),
        transformer_config=parts.transformer_config,
        autoencoder=dataclasses.replace(vae, tensors=halved(vae.tensors)),
        text_encoders=parts.text_encoders,
        defaults=parts.defaults,
        scope=parts.scope,
        conditions=parts.conditions,
        family=parts.family,
        scheduler=parts.scheduler,
        overwrite=overwrite,
    )


def _encoder(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what does not belong to the decoder."""
    return {name: array for name, array in tensors.items() if "decoder" not in name}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--src",
        required=True,
        type=Path,
        help="TAE weights with their config, the folder of a checkpoint, or that of a generator",
    )
    parser.add_argument(
        "--target", required=True, type=Path, help="the .safetensors, or the folder, to write"
    )
    parser.add_argument(
        "--autoencoder",
        type=Path,
        help="of a generator: weights to take for its own, with the same encoder",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    arguments = parser.parse_args()
    source, target, overwrite = arguments.src, arguments.target, arguments.overwrite
    if (source / INDEX_FILE).is_file():
        store_generator(source, target, overwrite=overwrite, autoencoder=arguments.autoencoder)
    elif arguments.autoencoder is not None:
        raise ValueError("--autoencoder is for a generator's folder; --src is none")
    else:
        store_tae(source, target, overwrite=overwrite)
    files = [arguments.target, *arguments.target.rglob("*")]
    size = sum(path.stat().st_size for path in files if path.is_file())
    print(f"{arguments.target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_main(main)
