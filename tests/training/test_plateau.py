"""The learning rate's multiplier along given validation losses."""

import json

import pytest

from mg.training.optimizers.plateau import Plateau, PlateauSettings


def follow(losses, **settings):
    """Return the multiplier after each loss."""
    plateau = Plateau(PlateauSettings(**settings))
    multipliers = []
    for loss in losses:
        plateau.update(loss)
        multipliers.append(plateau.multiplier)
    return multipliers


def test_a_falling_loss_changes_nothing():
    assert follow([1 / n for n in range(1, 20)], num_validations=1) == [1.0] * 19


def test_it_halves_after_so_many_validations_without_improvement():
    losses = [1.0, 0.9, 0.9, 0.95, 0.91, 0.9, 0.9, 0.9]
    assert follow(losses, num_validations=3) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_an_improvement_starts_the_count_anew():
    losses = [1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9]
    assert follow(losses, num_validations=3) == [1, 1, 1, 1, 1, 1, 0.5]


def test_an_improvement_must_be_large_enough():
    slow = [1.0, 0.995, 0.992, 0.9901]  # never 1 % below the best one
    assert follow(slow, num_validations=3, min_improvement=0.01) == [1, 1, 1, 0.5]
    assert follow(slow, num_validations=3, min_improvement=0.001) == [1, 1, 1, 1]
    # Small steps add up: 0.985 is more than 1 % below 1.0.
    assert follow([*slow[:3], 0.985], num_validations=3, min_improvement=0.01) == [1, 1, 1, 1]


def test_the_multiplier_has_a_floor():
    settings = PlateauSettings(num_validations=1, factor=0.5, min_multiplier=0.3)
    plateau = Plateau(settings)
    assert [plateau.update(1.0) for _ in range(5)] == [False, True, True, False, False]
    assert plateau.multiplier == 0.3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_no_improvement(bad):
    assert follow([bad, 1.0, bad, bad, 0.5], num_validations=2) == [1, 1, 1, 0.5, 0.5]


def test_a_resumed_plateau_goes_on_as_an_unbroken_one():
    losses = [1.0, 0.9, 0.95, 0.95, 0.89, 0.9, 0.91, 0.92, 0.7]
    settings = PlateauSettings(num_validations=2)
    unbroken = follow(losses, num_validations=2)
    for cut in range(len(losses)):
        first, second = Plateau(settings), Plateau(settings)
        for loss in losses[:cut]:
            first.update(loss)
        second.load_state(json.loads(json.dumps(first.state())))
        for loss, multiplier in zip(losses[cut:], unbroken[cut:], strict=True):
            second.update(loss)
            assert second.multiplier == multiplier


def test_a_state_of_other_fields_is_refused():
    with pytest.raises(ValueError, match=r"state of a plateau with \['best'\]; expected"):
        Plateau(PlateauSettings()).load_state({"best": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_validations", 0),
        ("min_improvement", -0.1),
        ("min_improvement", 1.0),
        ("factor", 1.0),
        ("factor", 0.0),
        ("min_multiplier", 0.0),
        ("min_multiplier", 1.5),
        ("factor", float("nan")),
        ("num_validations", 2.5),
    ],
)
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"plateau.{name}={value}; expected"):
        PlateauSettings(**{name: value})
