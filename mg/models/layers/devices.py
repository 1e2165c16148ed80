"""Which form of their arithmetic layers take: the plain one, or that for CPUs."""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

from mg.device import runs_on_cpu

__all__ = ["choose", "operations"]

_chosen: str | None = None


@contextlib.contextmanager
def choose(device: str) -> Iterator[None]:
    """Have all layers built in this block take the form for a device, whichever is in use.

    Args:
        device: Ascend, GPU or CPU.

    Raises:
        ValueError: another name.
    """
    global _chosen
    if device not in ("Ascend", "GPU", "CPU"):
        raise ValueError(f"device={device!r}; expected one of Ascend, GPU, CPU")
    before, _chosen = _chosen, device
    try:
        yield
    finally:
        _chosen = before


def operations() -> ModuleType:
    """Return the module, `plain` or `cpu`, whose operations a layer takes when it is built."""
    takes_cpu_form = runs_on_cpu() if _chosen is None else _chosen == "CPU"
    # Imported here: `cpu` builds on layers that import this module.
    return importlib.import_module(f"mg.models.layers.{'cpu' if takes_cpu_form else 'plain'}")
