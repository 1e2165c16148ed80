"""Importing packages that talk at length about what is not needed here."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet_imports"]


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Hold back what mindone and transformers say, when imported, about other frameworks."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
