"""What cards hold under ZeRO and sequence parallel, and how few are enough."""

import pytest

from memory_plan import make_plan, smallest_plan, state_bytes
from mg.models.movie_gen.config import PRESETS
from mg.models.movie_gen.costs import activation_bytes, block_parameters
from mg.models.movie_gen.parameter_shapes import num_parameters

CONFIG = PRESETS["5b"]
SIZE, LAYER = num_parameters(CONFIG), block_parameters(CONFIG)
TOKENS = 73_728  # 256 frames of 768x768


@pytest.mark.parametrize(
    ("zero", "whole", "spread", "passing"),
    [(0, 22, 0, 0), (1, 6, 16, 0), (2, 2, 20, 4), (3, 0, 22, 8)],
)
def test_the_state_on_each_of_eight_cards(zero, whole, spread, passing):
    expected = whole * SIZE + spread * SIZE / 8 + passing * LAYER
    assert state_bytes(CONFIG, zero=zero, num_cards=8) == pytest.approx(expected, abs=1)


def test_one_card_has_nothing_to_share():
    assert {state_bytes(CONFIG, zero=zero, num_cards=1) for zero in range(4)} == {22 * SIZE}


def test_cards_that_share_a_sequence_have_their_part_of_its_activations():
    plan = make_plan(CONFIG, TOKENS, num_cards=16, zero=1, sequence_parallel=8)
    assert plan.activation_bytes == activation_bytes(CONFIG, TOKENS // 8).peak(recompute=True)
    assert plan.total_bytes == plan.activation_bytes + state_bytes(CONFIG, zero=1, num_cards=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cards": 12, "sequence_parallel": 8}, "does not divide the 12 cards"),
        ({"num_cards": 5, "sequence_parallel": 5}, "does not divide the 73728 tokens"),
        ({"num_cards": 16, "sequence_parallel": 16}, "does not divide the 24 heads"),
        ({"num_cards": 1, "sequence_parallel": 0}, "sequence_parallel=0"),
        ({"num_cards": 1, "zero": 4}, "ZeRO stage 4"),
        ({"num_cards": 0}, "on 0 cards"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_plan(CONFIG, TOKENS, **{"zero": 0, **options})


def test_the_smallest_plan_fits_and_no_plan_with_fewer_cards_does():
    plan = smallest_plan(CONFIG, TOKENS, card_bytes=57.6e9)
    assert (plan.num_cards, plan.zero, plan.sequence_parallel, plan.recompute) == (4, 2, 2, True)
    assert plan.total_bytes <= 57.6e9
    fewer = [
        make_plan(CONFIG, TOKENS, num_cards=n, zero=zero, sequence_parallel=sp)
        for n in (1, 2)
        for zero in range(4)
        for sp in (1, 2)
        if sp <= n
    ]
    assert min(p.total_bytes for p in fewer) > 57.6e9


def test_what_is_not_needed_is_not_used():
    plan = smallest_plan(PRESETS["1b"], 8192, card_bytes=57.6e9)
    assert (plan.num_cards, plan.zero, plan.sequence_parallel, plan.recompute) == (1, 0, 1, False)


def test_restrictions_cost_cards_or_leave_none():
    limited = {"card_bytes": 57.6e9}
    assert smallest_plan(CONFIG, TOKENS, recompute=False, **limited).num_cards == 24
    alone = smallest_plan(CONFIG, TOKENS, sequence_parallel=False, **limited)
    assert (alone.num_cards, alone.sequence_parallel) == (8, 1)
    # 6 bytes for each of 29 billion parameters stay on every card.
    assert smallest_plan(PRESETS["30b"], TOKENS, zero_stages=(0, 1), **limited) is None
