"""Ranks without other processes: what one knows of itself, and how work is divided."""

import numpy as np
import pytest

from mg.parallel.ranks import ONE_RANK, Ranks, init_ranks
from mg.parallel.rows import Rows, splits_evenly
from mg.parallel.sequence import data_ranks
from mg.parallel.work import map_over_ranks, share_files

VARIABLES = ("MS_ROLE", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "RANK_SIZE")


@pytest.fixture
def environment(monkeypatch):
    """Return a function that sets the variables of a launcher and unsets the others."""

    def set_variables(**values):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


def test_one_rank_without_a_launcher(environment):
    environment()
    ranks = init_ranks()
    assert ranks == Ranks(0, 1) and ranks.is_main
    assert ranks.gather_json({"a": 1}) == [{"a": 1}]
    assert ranks.any(True) and not ranks.any(False)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK_SIZE": "8"}, "RANK_SIZE=8, but this process was not started by msrun"),
        ({"MS_ROLE": "MS_SERVER"}, "MS_ROLE='MS_SERVER'; expected MS_WORKER or MS_SCHED"),
        ({"MS_ROLE": "MS_WORKER"}, "MS_ROLE is set, but MS_WORKER_NUM is not"),
        (
            {
                "MS_ROLE": "MS_WORKER",
                "MS_WORKER_NUM": "two",
                "MS_SCHED_HOST": "127.0.0.1",
                "MS_SCHED_PORT": "1",
            },
            "MS_WORKER_NUM='two'; expected the number of ranks",
        ),
    ],
)
def test_wrong_variables_are_refused(environment, variables, message):
    environment(**variables)
    with pytest.raises(ValueError, match=message):
        init_ranks()


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 1), (0, 0)])
def test_a_rank_outside_is_refused(rank, size):
    with pytest.raises(ValueError, match="rank must lie in"):
        Ranks(rank, size)


def test_shares_are_disjoint_and_whole():
    items = list(range(11))
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert shares == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]


def test_few_files_are_worked_on_together():
    ranks = Ranks(1, 2)
    assert share_files(["a"], ranks) == (["a"], ranks)
    assert share_files(["a", "b", "c"], ranks) == (["b"], ONE_RANK)
    assert share_files([], ranks) == ([], ranks)


def test_one_rank_maps_lazily():
    taken = []
    results = map_over_ranks(lambda x: taken.append(x) or np.full(1, x), range(5), ONE_RANK)
    assert taken == [] and next(results)[0] == 0 and taken == [0]


def test_rows_are_shared_equally_or_not_at_all():
    ranks = [Ranks(rank, 3) for rank in range(3)]
    whole = np.arange(24.0).reshape(6, 4)
    parts = [Rows(each).own(whole) for each in ranks]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert [part.shape for part in parts] == [(2, 4)] * 3
    assert Rows(ranks[0]).whole_shape((2, 4)) == (6, 4)
    shapes = [(6, 4), (4, 6), (3,), ()]
    assert [splits_evenly(shape, ranks[0]) for shape in shapes] == [True, False, True, False]
    assert not splits_evenly((6, 4), ONE_RANK)


def test_groups_of_ranks_share_a_batch():
    assert [data_ranks(Ranks(rank, 4), 2) for rank in range(4)] == [
        Ranks(0, 2),
        Ranks(0, 2),
        Ranks(1, 2),
        Ranks(1, 2),
    ]
    assert data_ranks(Ranks(1, 2), 1) == Ranks(1, 2)
    with pytest.raises(ValueError, match="sequence_parallel=2 with 3 ranks: their number must be"):
        data_ranks(Ranks(0, 3), 2)
