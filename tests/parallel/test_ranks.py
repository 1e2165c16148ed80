"""Ranks without other processes: what one knows of itself, and how parameters are shared out."""

import itertools

import numpy as np
import pytest

from mg.parallel.ranks import ONE_RANK, Ranks, init_ranks
from mg.parallel.sharded_optimizer import owner_spans
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


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_owners_are_balanced_to_one_parameter(num_ranks):
    sizes = np.random.default_rng(0).integers(1, 1000, 60).tolist()
    spans = owner_spans(sizes, num_ranks)
    assert spans[0][0] == 0 and spans[-1][1] == len(sizes)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    loads = [sum(sizes[start:stop]) for start, stop in spans]
    assert max(loads) <= sum(sizes) / num_ranks + max(sizes)


def test_more_ranks_than_parameters_are_refused():
    with pytest.raises(ValueError, match=r"4 parameters cannot be shared by 5 ranks"):
        owner_spans([1, 1, 1, 1], 5)
