"""How fast a run goes on, and how long it still takes."""

import collections
import contextlib
import logging
import statistics
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm

__all__ = ["Pace", "counting_seconds", "duration_text"]

logger = logging.getLogger("mg")

NUM_REMEMBERED = 50  # steps
# Between signs of life of what takes long: on a terminal, and in the log where there is none.
SHOWN_SECONDS, LOGGED_SECONDS = 1.0, 60.0


class Pace:
    """Seconds per step, without the steps that compile a graph first.

    Attributes:
        compiles_next: whether the next step compiles its graph.
    """

    def __init__(self) -> None:
        self._seconds = collections.deque(maxlen=NUM_REMEMBERED)
        self.compiles_next = True

    def enter_stage(self) -> None:
        """Say that the next step compiles its graph, and that later ones may take another time."""
        self._seconds.clear()
        self.compiles_next = True

    def note(self, seconds: float) -> None:
        """Take down how long a step took."""
        if not self.compiles_next:
            self._seconds.append(seconds)
        self.compiles_next = False

    def left(self, num_steps: int, *, at_most: float) -> str:
        """Return how long so many steps still take, as text to be put behind a line of the log.

        Args:
            num_steps: steps to go.
            at_most: seconds after which the run ends anyway.
        """
        if not self._seconds:
            return "; compiling included"
        seconds = min(statistics.median(self._seconds) * num_steps, at_most)
        return f"; {duration_text(seconds)} left"


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
def counting_seconds(what: str, bar: tqdm) -> Iterator[None]:
    """Show how long the block has been at work, in a progress bar or else in the log.

    Args:
        what: is being done, such as "compiling".
        bar: shows it; where it is disabled, for want of a terminal, the log gets a line a minute.
    """
    began, is_done = time.monotonic(), threading.Event()

    def count() -> None:
        while not is_done.wait(LOGGED_SECONDS if bar.disable else SHOWN_SECONDS):
            seconds = duration_text(time.monotonic() - began)
            if bar.disable:
                logger.info("Still %s after %s.", what, seconds)
            else:
                bar.set_postfix_str(f"{what}, {seconds}")

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        is_done.set()
        counter.join()
