"""Batches computed ahead of the training step by worker processes."""

import collections
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mg.data.dataset import Batch, Dataset, Draw
from mg.data.workers import CallFailedError, WorkerPool

__all__ = ["ClipLoader"]


class ClipLoader:
    """Iterator over the batches of steps [start_step, start_step + num_steps), in order.

    A clip that cannot be read, at which the decoder hangs or which crashes it, is quarantined
    (`Dataset.quarantine`) and replaced by the next one; a worker that hung or crashed is
    restarted. The batches are those that `dataset.batch(step, batch_size)` returns when it is
    called for one step after the other, for any number of workers and however far they are ahead,
    bad clips included: a clip that fails in a batch ahead counts as bad from that batch on and not
    before, in `dataset.bad` too. Only hangs and crashes that come and go by chance can make two
    runs differ.

    Use it as a context manager, or call `close()`, to end the workers early; exhausting it ends
    them too.

    Args:
        dataset: where the clips come from.
        batch_size: clips per batch on this rank, unless the dataset says otherwise.
        start_step: number of the first batch: the step to resume at.
        num_steps: how many batches there are in all; None: no end.
        num_workers: processes that read and decode; 0 does the work in this process, where a
            decoder that hangs or crashes takes the run with it.
        prefetch: batches computed or being computed ahead of the one asked for.
        decode_seconds_limit: seconds after which the reading of one clip, first look at its file
            included, counts as hung.

    Attributes:
        seconds_waited: how long the caller was kept waiting for the last batch.
        total_seconds_waited: the same, summed over all batches.

    Raises:
        ValueError: a number is out of range; on iteration: too many clips are bad.
        RuntimeError: on iteration: worker processes end before they have anything to do.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        start_step: int = 0,
        num_steps: int | None = None,
        num_workers: int = 2,
        prefetch: int = 4,
        decode_seconds_limit: float = 60.0,
    ):
        if batch_size < 1 or prefetch < 1 or num_workers < 0 or start_step < 0:
            raise ValueError(
                "batch_size and prefetch must be at least 1, num_workers and start_step at least "
                f"0; got {batch_size=}, {prefetch=}, {num_workers=}, {start_step=}"
            )
        if not decode_seconds_limit > 0:
            raise ValueError(f"decode_seconds_limit must be above 0, not {decode_seconds_limit}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seconds_waited = self.total_seconds_waited = 0.0
        self._steps = (
            itertools.count(start_step)
            if num_steps is None
            else iter(range(start_step, start_step + num_steps))
        )
        self._num_ahead = max(prefetch, num_workers)
        self._pending: collections.deque[list[_Sample]] = collections.deque()
        self._failures: dict[str, _Failure] = {}
        self._failures_lock = threading.Lock()
        self._pool = None
        if num_workers:
            self._pool = WorkerPool(dataset.read, num_workers, seconds_limit=decode_seconds_limit)
            self._threads = ThreadPoolExecutor(num_workers)  # each waits for one process
            self._submit_batches()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        began = time.monotonic()
        try:
            return self._next_batch()
        except BaseException:
            self.close()
            raise
        finally:
            self.seconds_waited = time.monotonic() - began
            self.total_seconds_waited += self.seconds_waited

    def __enter__(self) -> "ClipLoader":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the loader is exhausted afterwards."""
        self._steps = iter(())
        self._pending.clear()
        if self._pool is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._pool.close()
            self._threads.shutdown(wait=True)

    def _next_batch(self) -> Batch:
        if self._pool is None:
            return self.dataset.batch(next(self._steps), self.batch_size)
        if not self._pending:
            raise StopIteration
        samples = self._pending.popleft()
        self._submit_batches()
        read = [self._settled(sample) for sample in samples]
        return self.dataset.collate([sample.draw for sample in samples], read)

    def _submit_batches(self) -> None:
        """Have the workers begin the batches ahead."""
        while len(self._pending) < self._num_ahead:
            step = next(self._steps, None)
            if step is None:
                return
            num_samples = self.dataset.num_samples(step, self.batch_size)
            samples = [_Sample((step, index)) for index in range(num_samples)]
            for sample in samples:
                self._submit(sample)
            self._pending.append(samples)

    def _submit(self, sample: "_Sample") -> None:
        step, index = sample.place
        sample.draw = self.dataset.draw(step, index, batch_size=self.batch_size)
        sample.future = self._threads.submit(self._read, sample.draw, sample.place)

    def _settled(self, sample: "_Sample") -> Any:
        """Return what was read of a sample, once all before it are settled."""
        while True:
            if sample.draw.name in self.dataset.bad:  # since it was drawn
                self._submit(sample)
            try:
                return sample.future.result()
            except CallFailedError as error:
                self.dataset.quarantine(sample.draw.name, str(error))

    def _read(self, draw: Draw, place: tuple[int, int]) -> Any:
        """Return what a draw stands for; called in the threads."""
        name = draw.name
        known = self._failures.get(name)
        # A clip that failed at an earlier place will be replaced here anyway; and it must not keep
        # one worker after the other busy until its time is up.
        if known is not None and known.place < place:
            raise CallFailedError(known.reason)
        try:
            return self._pool.call(draw)
        except CallFailedError as error:
            with self._failures_lock:
                known = self._failures.get(name)
                if known is None or place < known.place:
                    self._failures[name] = _Failure(place, str(error))
            raise


@dataclass
class _Sample:
    """One clip of a batch ahead. `place` is (step, index in the batch)."""

    place: tuple[int, int]
    draw: Draw | None = None
    future: Future | None = None


@dataclass(frozen=True)
class _Failure:
    """Where a clip failed first, in the order of the run, and why."""

    place: tuple[int, int]
    reason: str
