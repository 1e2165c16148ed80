"""A full disk, which ends no run."""

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["warning_if_disk_is_full"]

logger = logging.getLogger("mg")


@contextlib.contextmanager
def warning_if_disk_is_full(step: int, what: str) -> Iterator[None]:
    """Have a warning in the place of an error that keeps something from being written.

    Args:
        step: of the run.
        what: is written, such as "the checkpoint".
    """
    try:
        yield
    except OSError as error:
        logger.warning(
            "Step %d: %s was not written, the run goes on and tries again at the next interval: %s",
            step,
            what,
            error,
        )
