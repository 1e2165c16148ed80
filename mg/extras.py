"""Packages that only some tasks need, installed by the project's extras."""

import contextlib
from collections.abc import Iterator

__all__ = ["needs_extra"]


@contextlib.contextmanager
def needs_extra(extra: str, user: str, *, otherwise: str = "") -> Iterator[None]:
    """Say how to install what an import does not find.

    Args:
        extra: what the packages are called in `pip install 'mg-video[...]'`.
        user: what needs them, with its verb, such as "the page needs".
        otherwise: the end of the sentence, where there is another way out.

    Raises:
        ValueError: a module was not found.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{user} {error.name}, which is not installed: "
            f"pip install 'mg-video[{extra}]'{otherwise}"
        ) from error
