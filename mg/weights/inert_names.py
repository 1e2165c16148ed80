"""What training programs keep beside the weights: known by name, never imported, called or made.

Settings, paths, dates, numbers of numpy. `mg.weights.safe_pickle` puts a placeholder where they
would stand, and the reader of state dicts leaves the placeholder out and lists it.
"""

import functools
from typing import NamedTuple

__all__ = ["Inert", "inert"]

# Module -> its names. Those of Python 2 are what protocol 2, PyTorch's, writes.
NAMES: dict[str, tuple[str, ...]] = {
    "_codecs": ("encode",),  # of bytes, which protocol 2 lacks
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "collections": ("defaultdict", "deque", "Counter"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "numpy": ("dtype", "ndarray"),
    "torch": ("Generator",),
    "torch.torch_version": ("TorchVersion",),
    "yacs.config": ("CfgNode",),
    "easydict": ("EasyDict",),
    "addict.addict": ("Dict",),
    "typing": ("Any",),  # omegaconf states the types of its fields
    "enum": ("Enum",),
}
NAMES |= dict.fromkeys(
    ("pathlib", "pathlib._local"),
    ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
)
NAMES |= dict.fromkeys(
    ("numpy.core.multiarray", "numpy._core.multiarray"), ("scalar", "_reconstruct")
)
NAMES |= dict.fromkeys(
    ("builtins", "__builtin__"),
    (
        *("bool", "int", "float", "str", "bytes", "bytearray", "complex"),
        *("dict", "list", "tuple", "set", "frozenset", "range", "xrange", "slice", "object"),
    ),
)
NAMES |= dict.fromkeys(("copyreg", "copy_reg"), ("_reconstructor",))
# Packages of which every name is one: settings, callbacks, optimisers and their schedules.
PACKAGES = (
    "lightning",
    "lightning_fabric",
    "ml_collections",
    "omegaconf",
    "pytorch_lightning",
    "torch.optim",
)


class Inert(NamedTuple):
    """The placeholder of an object that was named in a file and not made."""

    name: str


@functools.lru_cache(maxsize=1024)
def inert(module: str, name: str) -> Inert | None:
    """Return the placeholder of a name that is known to stand beside weights; None of another."""
    is_packaged = any(module == p or module.startswith(p + ".") for p in PACKAGES)
    is_plain = all(part.isidentifier() for part in [*module.split("."), name])
    if name in NAMES.get(module, ()) or (is_packaged and is_plain):
        return Inert(f"{module}.{name}")
    return None
