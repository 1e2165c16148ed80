"""Check this machine: versions, device, memory, caches, and one operation of each kind.

mg doctor

Ends with exit code 1 if something has to be mended; the line says what.
"""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mg import __version__
from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.metrics.i3d import i3d_weights_path
from mg.metrics.lpips import lpips_weights_path
from mg.pipelines.memory import machine_memory_gb
from mg.shipped import shipped_root
from mg.versions import PACKAGES, PYTHONS, Versions, version_numbers
from mg.weights.hub import weights_folder

if TYPE_CHECKING:
    from mindspore import Tensor

MIN_MEMORY_GB = 4  # of the machine: a small network's training step takes about half of it
TOLERANCE = 1e-2  # of float32 kernels on devices that multiply in reduced precision


class Finding(NamedTuple):
    """A line of the report: what was looked at, what was found, and whether it will do."""

    subject: str
    text: str
    is_fine: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorConfig(DeviceConfig):
    """Which device is checked; auto takes the best that is usable."""


def main() -> int:
    """Print the findings; return 1 if one of them has to be mended."""
    config = parse_config(DoctorConfig, description=__doc__)
    num_faults = 0
    for finding in _findings(config):
        num_faults += not finding.is_fine
        print(f"{'ok ' if finding.is_fine else 'BAD'}  {finding.subject:<22}{finding.text}")
    print("Everything is fine." if not num_faults else f"{num_faults} to mend: the lines with BAD.")
    return int(num_faults > 0)


def _findings(config: DoctorConfig) -> Iterator[Finding]:
    yield python_finding(sys.version_info[:2])
    yield Finding("mg", f"{__version__}, files in {shipped_root()}")
    for name, supported in PACKAGES.items():
        yield package_finding(name, installed_version(name), supported)
    yield memory_finding(machine_memory_gb())
    yield from _cache_findings()
    try:
        device = setup_device(config)
    except (ValueError, ImportError) as error:
        yield Finding("device", str(error), False)
        return
    yield Finding("device", f"{device}, {config.mode} mode")
    for name, run, expected in operations():
        yield operation_finding(name, run, expected)


def python_finding(version: tuple[int, int]) -> Finding:
    """Return whether an interpreter's version is supported."""
    is_fine = PYTHONS[0] <= version < PYTHONS[1]
    needed = "" if is_fine else "; expected 3.10, 3.11 or 3.12"
    text = "{}.{} on {} {}{}".format(*version, platform.system(), platform.machine(), needed)
    return Finding("Python", text, is_fine)


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_finding(name: str, version: str | None, supported: Versions) -> Finding:
    """Return whether a package's version lies in the supported range."""
    lowest, below, tested = supported
    wanted = f"{name}>={lowest}" + (f",<{below}" if below else "")
    if version is None:
        return Finding(name, f"not installed; run: pip install '{wanted}'", False)
    numbers = version_numbers(version)
    is_too_new = below is not None and numbers >= version_numbers(below)
    if is_too_new or numbers < version_numbers(lowest):
        return Finding(name, f"{version}; run: pip install '{wanted}'", False)
    return Finding(name, version if version == tested else f"{version} (tested: {tested})")


def memory_finding(memory_gb: float | None) -> Finding:
    """Return whether the machine has memory enough for the small networks."""
    cores = f"{os.cpu_count()} cores"
    if memory_gb is None:
        return Finding("memory", f"unknown on this system; {cores}")
    is_fine = memory_gb >= MIN_MEMORY_GB
    needed = "" if is_fine else f"; at least {MIN_MEMORY_GB} GB are needed"
    return Finding("memory", f"{memory_gb:.1f} GB, {cores}{needed}", is_fine)


def _cache_findings() -> Iterator[Finding]:
    folder = weights_folder()
    models = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    there = ", ".join(models) or "none yet (mg download --list)"
    yield Finding("weights", f"{folder}: {there}; {_free_gb(folder):.0f} GB free")
    for name, path, command in (
        ("LPIPS", lpips_weights_path("vgg"), "mg fetch-lpips"),
        ("I3D", i3d_weights_path(), "mg fetch-i3d"),
    ):
        yield Finding(name, str(path) if path.is_file() else f"not fetched ({command})")


def _free_gb(folder: Path) -> float:
    """Return the free space where a folder is, or will be, in GB (10^9 bytes)."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def operations() -> list[tuple[str, Callable[[], "Tensor"], np.ndarray]]:
    """Return (name, function that runs it on the device, expected result) of each operation."""
    import mindspore as ms
    from mindspore import Tensor, ops

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 32, 32), np.float32)
    image = rng.standard_normal((1, 4, 8, 8), np.float32)
    kernel = rng.standard_normal((4, 4, 1, 1), np.float32)
    exponent = np.exp(a - a.max(-1, keepdims=True))

    def convolved(x, w):
        return ops.conv2d(x, w)

    def total(x, w):
        return convolved(x, w).sum()

    x, w = Tensor(image), Tensor(kernel)
    return [
        ("matrix product", lambda: ops.matmul(Tensor(a), Tensor(b)), a @ b),
        (
            "convolution",
            lambda: convolved(x, w),
            np.einsum("bchw,oc->bohw", image, kernel[..., 0, 0]),
        ),
        (
            "gradient, compiled",
            lambda: ms.grad(total)(x, w),
            np.broadcast_to(kernel.sum(0), image.shape),
        ),
        (
            "softmax",
            lambda: ops.softmax(Tensor(a), -1),
            exponent / exponent.sum(-1, keepdims=True),
        ),
        ("bfloat16", lambda: Tensor(a).astype(ms.bfloat16) * 2, 2 * a),
    ]


def operation_finding(name: str, run: Callable[[], "Tensor"], expected: np.ndarray) -> Finding:
    """Return whether an operation gives what it should."""
    try:
        result = run().float().asnumpy()
    except Exception as error:  # whatever a device's libraries raise is the finding
        return Finding(name, f"failed: {str(error).strip().splitlines()[0][:200]}", False)
    difference = float(np.abs(result - expected).max() / np.abs(expected).max())
    if not difference < TOLERANCE:
        return Finding(name, f"differs by {difference:.1e} of the largest value", False)
    return Finding(name, f"right to {difference:.0e}")
