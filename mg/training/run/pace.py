"""How fast a run goes on, and how long it still takes."""

import collections
import statistics

from mg.progress import duration_text

__all__ = ["Pace"]

NUM_REMEMBERED = 50  # steps


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
