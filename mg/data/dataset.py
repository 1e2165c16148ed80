"""What the training loop and its loader ask of a dataset, whatever it holds.

A batch is a pure function of (seed, number of the batch, ranks): nothing here has state that
matters but the list of samples that could not be read.
"""

import abc
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

from mg.data.workers import reason_of

__all__ = ["Batch", "Dataset", "Draw"]

logger = logging.getLogger("mg")


class Batch(Protocol):
    """What the loop looks at in a batch; the rest is between the dataset and the task."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each sample, for the list of bad steps."""

    @property
    def num_frames(self) -> int:
        """Frames of each sample, for the log."""


class Draw(Protocol):
    """One sample to be read; it can be pickled."""

    @property
    def name(self) -> str:
        """What the sample is taken from: a clip or a file, one of the dataset's `names`."""


class Dataset(abc.ABC):
    """Random access to samples by (step, index), and the list of those that cannot be read.

    A sample that cannot be read is replaced by another one and its name listed in `bad`; the
    replacement is the same whether or not that was known beforehand.

    Attributes:
        seed: of all that is random.
        rank: of `num_ranks` that share each batch: together they see what a single rank with
            batches `num_ranks` times as large would see.
        bad: {name: reason} of what failed while reading. May be given, as a run that is resumed
            does; the dict is copied, unknown names are dropped.
        max_bad_share: share of all names, in (0, 1], that may turn out bad; one more stops the run.
    """

    seed: int
    rank: int
    num_ranks: int
    bad: dict[str, str]
    max_bad_share: float

    def check_settings(self) -> None:
        """Check what all datasets have; call it once they are set.

        Raises:
            ValueError: a number is out of range.
        """
        if not 0 < self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share must lie in (0, 1], not {self.max_bad_share}")
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(f"rank must lie in [0, {self.num_ranks}), not {self.rank}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        given, self.bad = self.bad, {}
        self.take_bad(given)

    @property
    @abc.abstractmethod
    def names(self) -> Collection[str]:
        """Names of all there is to draw from."""

    @abc.abstractmethod
    def draw(self, step: int, index: int, *, batch_size: int = 1) -> Draw:
        """Return what sample `index` of the batch of `step` is, bad ones left out.

        Args:
            step: number of the batch in the run, from 0.
            index: place in this rank's batch, in [0, num_samples(step, batch_size)).
            batch_size: samples per batch of this rank, unless the dataset says otherwise.

        Raises:
            ValueError: everything that could be drawn is bad.
        """

    @abc.abstractmethod
    def read(self, draw: Draw) -> Any:
        """Return what a draw stands for; it may be called in another process."""

    @abc.abstractmethod
    def collate(self, draws: Sequence[Draw], samples: Sequence[Any]) -> Batch:
        """Return the batch of these draws, each read."""

    @abc.abstractmethod
    def num_batches_per_epoch(self, batch_size: int) -> int:
        """Return in how many batches everything is drawn once, rounded up.

        Args:
            batch_size: of this rank; the others draw as many.
        """

    def num_samples(self, step: int, batch_size: int) -> int:
        """Return how many samples this rank's batch of `step` has."""
        return batch_size

    def batch(self, step: int, batch_size: int) -> Batch:
        """Return the batch of `step`.

        Raises:
            ValueError: too many samples are bad.
        """
        draws, samples = [], []
        for index in range(self.num_samples(step, batch_size)):
            draw, sample = self.read_or_replace(step, index, batch_size=batch_size)
            draws.append(draw)
            samples.append(sample)
        return self.collate(draws, samples)

    def read_or_replace(self, step: int, index: int, *, batch_size: int = 1) -> tuple[Draw, Any]:
        """Return (draw, what it stands for) of the first draw at this place that can be read.

        Raises:
            ValueError: too many samples are bad.
        """
        while True:
            draw = self.draw(step, index, batch_size=batch_size)
            try:
                return draw, self.read(draw)
            # Decoders raise all kinds of errors; one of our own would soon show in `bad`.
            except Exception as error:
                self.quarantine(draw.name, reason_of(error))

    def quarantine(self, name: str, reason: str) -> None:
        """List a name as bad, so that it is not drawn again.

        Raises:
            ValueError: more than `max_bad_share` of the names are bad.
        """
        reason = reason.removeprefix(f"{PurePath(name).name}: ")
        self.bad[name] = reason
        logger.warning("skipping clip %s: %s", name, reason)
        names = set(self.names)
        num_bad = len(names & self.bad.keys())
        if num_bad > self.max_bad_share * len(names):
            raise ValueError(
                f"{num_bad} of {len(names)} clips are bad, more than max_bad_share="
                f"{self.max_bad_share:g} allows; check the files and the disk:\n{self.bad_table()}"
            )

    def take_bad(self, bad: Mapping[str, str]) -> None:
        """List as bad what an earlier run or another rank found; unknown names are dropped."""
        names = set(self.names)
        self.bad.update({name: reason for name, reason in bad.items() if name in names})

    def bad_table(self) -> str:
        """Return one line per bad clip, its name and the reason."""
        width = max((len(name) for name in self.bad), default=0)
        return "\n".join(f"{name:<{width}}  {reason}" for name, reason in self.bad.items())
