"""How far long work has come: a bar on a terminal, plain lines in the log where there is none."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ["ProgressBar", "counting_seconds", "duration_text", "with_progress"]

logger = logging.getLogger("mg")

Item = TypeVar("Item")

# Between signs of life of what takes long: on a terminal, and in the log where there is none.
SHOWN_SECONDS, LOGGED_SECONDS = 1.0, 60.0
LINE_SECONDS = 10.0  # between lines about progress in the log


def duration_text(seconds: float) -> str:
    """Return a duration in the two largest units, such as `2 h 05 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / (24 * 60):.1f} days"


@contextlib.contextmanager
def counting_seconds(what: str, bar: Any = None) -> Iterator[None]:
    """Show how long the block has been at work, in a progress bar or else in the log.

    Args:
        what: is being done, such as "compiling".
        bar: shows it; without one, and where it is disabled, the log gets a line a minute.
    """
    began, is_done = time.monotonic(), threading.Event()
    is_shown = bar is not None and not bar.disable

    def count() -> None:
        while not is_done.wait(SHOWN_SECONDS if is_shown else LOGGED_SECONDS):
            seconds = duration_text(time.monotonic() - began)
            if is_shown:
                bar.set_postfix_str(f"{what}, {seconds}")
            else:
                logger.info("Still %s after %s.", what, seconds)

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        is_done.set()
        counter.join()


class ProgressBar:
    """A context around work of known size: `update` after each part.

    On a terminal it is a tqdm bar; elsewhere the log gets a line about every ten seconds, with what
    is done and how long the rest takes.

    Args:
        total: parts.
        desc: what is done, such as "encoding".
        unit: of the parts, such as "frame".
        leave: whether the bar stays when all is done.
        compiles: what the first part compiles, such as "the network", which is announced and left
            out of the estimate; None: nothing.
    """

    def __init__(
        self,
        total: int,
        desc: str,
        *,
        unit: str = "it",
        leave: bool = True,
        compiles: str | None = None,
    ) -> None:
        self._bar = tqdm(total=total, desc=desc, unit=unit, leave=leave, disable=None)
        self._total, self._desc, self._unit, self._compiles = total, desc, unit, compiles
        self._num_done = self._num_compiling = 0
        self._compiling = contextlib.ExitStack()

    def __enter__(self) -> "ProgressBar":
        self._began = self._last_line = time.monotonic()
        if self._compiles is not None and self._total:
            logger.info("Compiling %s, which can take minutes ...", self._compiles)
            self._compiling.enter_context(counting_seconds("compiling", self._bar))
        return self

    def __exit__(self, *exc_info) -> None:
        self._compiling.close()
        self._bar.close()

    def update(self, number: int = 1) -> None:
        """Count more parts as done."""
        self._num_done += number
        if self._compiles is not None:
            self._compiles = None
            self._compiling.close()
            if not self._bar.disable:
                self._bar.set_postfix_str("")
            self._began, self._num_compiling = time.monotonic(), self._num_done
        self._bar.update(number)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            logger.info("%s", self._line(now - self._began))

    def _line(self, seconds: float) -> str:
        """Return how far the work has come, such as `encoding: 64 of 900 frames, 2 min left`."""
        units = self._unit if self._total == 1 else f"{self._unit}s"
        counted = f"{self._desc}: {self._num_done} of {self._total} {units}"
        num_timed = self._num_done - self._num_compiling
        left = self._total - self._num_done
        if not num_timed or left <= 0:
            return counted
        return f"{counted}, {duration_text(seconds / num_timed * left)} left"


def with_progress(
    items: Iterable[Item],
    desc: str,
    *,
    total: int | None = None,
    unit: str = "it",
    leave: bool = True,
) -> Iterator[Item]:
    """Yield items under a progress bar, each counted as done when the next is asked for.

    Args:
        items: what is worked through.
        desc, unit, leave: as of `ProgressBar`.
        total: how many there are; None asks `items`.
    """
    with ProgressBar(len(items) if total is None else total, desc, unit=unit, leave=leave) as bar:
        for item in items:
            yield item
            bar.update()
