"""How to call pip: the environment's own, or, where it has none (uv makes such), that on PATH."""

import importlib.util
import sys

__all__ = ["pip_command"]


def pip_command() -> tuple[str, ...]:
    """Return the words that a command line of pip begins with."""
    return (sys.executable, "-m", "pip") if importlib.util.find_spec("pip") else ("pip",)
