"""Batches computed ahead of the training step by worker processes."""

import collections
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from mg.data.clips import Batch, ClipDataset, stack_batch

__all__ = ["ClipLoader"]


class ClipLoader:
    """Iterator over the batches of steps [start_step, start_step + num_steps), in order.

    The batches are those of `dataset.batch(step, batch_size)`, however many workers compute them.
    Clips that workers fail to read are added to `dataset.bad`. Use it as a context manager, or
    call `close()`, to end the workers early; exhausting it ends them too.

    Args:
        dataset: where the clips come from.
        batch_size: clips per batch on this rank.
        start_step: number of the first batch: the step to resume at.
        num_steps: how many batches there are in all; None: no end.
        num_workers: processes that read and decode; 0 does the work in this process.
        prefetch: batches computed or being computed ahead of the one asked for.

    Raises:
        ValueError: a number is out of range; on iteration: no clip can be read.
        RuntimeError: on iteration: a worker process died.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        start_step: int = 0,
        num_steps: int | None = None,
        num_workers: int = 2,
        prefetch: int = 4,
    ):
        if batch_size < 1 or prefetch < 1 or num_workers < 0 or start_step < 0:
            raise ValueError(
                "batch_size and prefetch must be at least 1, num_workers and start_step at least "
                f"0; got {batch_size=}, {prefetch=}, {num_workers=}, {start_step=}"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self._steps = (
            itertools.count(start_step)
            if num_steps is None
            else iter(range(start_step, start_step + num_steps))
        )
        self._prefetch = max(prefetch, num_workers)
        self._pending: collections.deque[Future] = collections.deque()
        self._pool = None
        if num_workers:
            # Spawned, not forked: the parent holds MindSpore's threads, which a fork would break.
            self._pool = ProcessPoolExecutor(
                num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(dataset, batch_size),
            )
            self._submit()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            return self.dataset.batch(next(self._steps), self.batch_size)
        self._submit()
        if not self._pending:
            self.close()
            raise StopIteration
        try:
            frames, names, bad = self._pending.popleft().result()
        except BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                "a data worker process died (killed, or out of memory?); use fewer workers or a "
                "smaller batch, or num_workers=0 to see the fault in this process"
            ) from error
        except BaseException:
            self.close()
            raise
        self.dataset.bad.update(bad)
        return stack_batch(frames, names)

    def __enter__(self) -> "ClipLoader":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the loader is exhausted afterwards."""
        self._steps = iter(())
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        with _hidden_main_module():
            while len(self._pending) < self._prefetch:
                step = next(self._steps, None)
                if step is None:
                    return
                self._pending.append(self._pool.submit(_compute_batch, step))


@contextlib.contextmanager
def _hidden_main_module() -> Iterator[None]:
    """Hide the running script while workers start.

    A spawned process imports its parent's main script, and with it MindSpore: seconds of start-up
    and hundreds of megabytes per worker, for code that it never calls.
    """
    main_module = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module


_worker: tuple[ClipDataset, int] | None = None


def _start_worker(dataset: ClipDataset, batch_size: int) -> None:
    global _worker
    # Ctrl-C reaches the whole group of processes; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker = (dataset, batch_size)


def _exit_with_parent() -> None:
    """End this worker when its parent is gone, even if that was killed without a chance to act."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _compute_batch(step: int) -> tuple[np.ndarray, tuple[str, ...], dict[str, str]]:
    dataset, batch_size = _worker
    return *dataset.raw_batch(step, batch_size), dataset.bad
