"""Ranks that do not train on the same refuse to train, all of them, with the same words."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.run.rank_agreement import check_same_data, check_same_step


class Meeting:
    """A channel between threads."""

    def __init__(self, rank, messages, barrier):
        self.rank, self.messages, self.barrier = rank, messages, barrier

    def gather(self, message):
        self.messages[self.rank] = message
        self.barrier.wait(60)
        gathered = list(self.messages)
        self.barrier.wait(60)
        return gathered


def on_ranks(check, *arguments_by_rank):
    """Return what a check raises on each rank, None where it passes."""
    size = len(arguments_by_rank)
    messages, barrier = [b""] * size, threading.Barrier(size)

    def run(rank):
        try:
            check(Ranks(rank, size, Meeting(rank, messages, barrier)), *arguments_by_rank[rank])
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(run, range(size)))


SETTINGS = {"seed": 1, "optim": {"lr": 1e-3}, "steps": 9}
CLIPS = ["a", "b", "c", "d", "e"]


def test_equal_ranks_pass():
    assert on_ranks(check_same_data, *[(SETTINGS, CLIPS)] * 3) == [None] * 3
    assert on_ranks(check_same_step, (4,), (4,)) == [None] * 2
    check_same_data(ONE_RANK, SETTINGS, CLIPS)


@pytest.mark.parametrize(
    ("settings", "clips", "message"),
    [
        (
            {**SETTINGS, "optim": {"lr": 0.01}},
            CLIPS,
            "settings than rank 0: only rank 0 has optim.lr=0.001; only rank 2 has optim.lr=0.01",
        ),
        (SETTINGS, CLIPS[1:], "clips than rank 0: only rank 0 has a; all"),
        (SETTINGS, ["e", "d", "c", "b", "a"], "clips than rank 0: another order; all"),
        (SETTINGS, ["a"], "clips than rank 0: only rank 0 has b, c, d and 1 more; all"),
    ],
)
def test_a_rank_that_differs_is_told_by_all(settings, clips, message):
    told = on_ranks(check_same_data, (SETTINGS, CLIPS), (SETTINGS, CLIPS), (settings, clips))
    assert len(set(told)) == 1 and f"rank 2 has other {message}" in told[0]
    assert "\n" not in told[0]


def test_ranks_that_found_different_checkpoints_are_told():
    told = on_ranks(check_same_step, (4,), (2,))
    assert told[0] == told[1] and "go on from different steps, [4, 2]" in told[0]
