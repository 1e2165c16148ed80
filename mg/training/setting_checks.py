"""Checks of settings that need no more than their type annotations."""

from mg.type_checks import check_types

__all__ = ["check_types", "require"]


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)
