"""The training step on a toy network: what an update does, and what must not change it."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.parameters import set_values
from mg.training.settings import OptimSettings
from mg.training.step import TrainStep


class ToyLoss(nn.Cell):
    """Mean squared error of a small network on (batch, 4) inputs; `bent` is frozen."""

    def __init__(self):
        super().__init__()
        self.first = nn.Dense(4, 6)
        self.bent = nn.Dense(6, 6)
        self.last = nn.Dense(6, 2)
        rng = np.random.default_rng(0)
        for parameter in self.get_parameters():
            parameter.set_data(Tensor(rng.standard_normal(parameter.shape, np.float32) * 0.5))
        for parameter in self.bent.get_parameters():
            parameter.requires_grad = False

    def construct(self, inputs, targets):
        error = self.last(ops.tanh(self.bent(self.first(inputs)))) - targets
        loss = ops.square(error).mean()
        return loss, (ops.abs(error).mean(),), error


@pytest.fixture(params=["graph_mode", "pynative_mode"], autouse=True)
def mode(request):
    """Run each test compiled and line by line."""
    request.getfixturevalue(request.param)


def make_step(**settings):
    settings = {"clip_grad_norm": None, "weight_decay": 0.1, "ema_decay": 0.9, **settings}
    return TrainStep(ToyLoss(), OptimSettings(**settings))


def make_batch(batch_size=2, seed=1):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((batch_size, 4), np.float32),
        rng.standard_normal((batch_size, 2), np.float32),
    )


def update(step, *batch, lr=0.01, loss_scale=1.0, max_norm=3e38, is_last=True):
    """Run the step on numpy inputs; return (loss, gradient norm)."""
    scalars = (Tensor(value, ms.float32) for value in (lr, loss_scale, max_norm))
    loss, _, norm, _ = step(*scalars, is_last, *map(Tensor, batch))
    return float(loss.asnumpy()), float(norm.asnumpy())


def snapshot(step):
    """Return every weight, moment and average by name."""
    weights = {p.name: p.asnumpy().copy() for p in step.loss.get_parameters()}
    return weights | step.state()


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def test_an_update_lowers_the_loss_and_keeps_names():
    step = make_step()
    names = [name for name, _ in step.parameters_and_names()]
    losses = [update(step, *make_batch(), lr=0.02)[0] for _ in range(5)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]
    assert [name for name, _ in step.parameters_and_names()] == names


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_but_is_reported(bad):
    step = make_step()
    update(step, *make_batch())
    before = snapshot(step)
    inputs, targets = make_batch(seed=2)
    targets[0, 0] = bad
    _, norm = update(step, inputs, targets)
    assert not np.isfinite(norm)
    assert largest_difference(before, snapshot(step)) == 0
    _, norm = update(step, *make_batch(seed=3))
    assert np.isfinite(norm) and largest_difference(before, snapshot(step)) > 0


def test_two_accumulated_batches_of_one_are_a_batch_of_two():
    whole, pieces = make_step(), make_step(accumulation_steps=2)
    for seed in (1, 2):  # twice, so that the sum must have been reset in between
        inputs, targets = make_batch(2, seed)
        _, norm_of_whole = update(whole, inputs, targets)
        update(pieces, inputs[:1], targets[:1], is_last=False)
        _, norm_of_pieces = update(pieces, inputs[1:], targets[1:])
        assert norm_of_pieces == pytest.approx(norm_of_whole, rel=1e-5)
    assert largest_difference(snapshot(whole), snapshot(pieces)) < 1e-5


def test_a_bad_batch_among_accumulated_ones_is_forgotten_afterwards():
    step = make_step(accumulation_steps=2)
    before = snapshot(step)
    inputs, targets = make_batch()
    update(step, inputs, np.full_like(targets, np.nan), is_last=False)
    _, norm = update(step, inputs, targets)
    assert not np.isfinite(norm) and largest_difference(before, snapshot(step)) == 0
    update(step, inputs, targets, is_last=False)
    assert np.isfinite(update(step, inputs, targets)[1])


def test_clipping_scales_the_gradients_to_the_norm():
    """After one update the first moment is (1 - beta1) times the gradient that was applied."""
    limit = 0.05
    free, clipped = make_step(), make_step(clip_grad_norm=limit)
    _, norm = update(free, *make_batch())
    _, reported = update(clipped, *make_batch())
    assert reported == pytest.approx(norm, rel=1e-6) and norm > limit  # reported before clipping
    moments = [p.asnumpy() / 0.1 for p in clipped.optimizer.first_moment]
    applied = np.sqrt(sum(np.square(m).sum() for m in moments))
    assert applied == pytest.approx(limit, rel=1e-4)
    loose = make_step(clip_grad_norm=2 * norm)
    update(loose, *make_batch())
    assert largest_difference(snapshot(loose), snapshot(free)) < 1e-7


def test_the_loss_scale_does_not_change_an_update_in_float32():
    plain, scaled = make_step(), make_step()
    for seed in (1, 2):
        first = update(plain, *make_batch(seed=seed))
        second = update(scaled, *make_batch(seed=seed), loss_scale=65536.0)
        assert second == pytest.approx(first, rel=1e-6)
    # A power of two changes exponents only.
    assert largest_difference(snapshot(plain), snapshot(scaled)) == 0


def test_frozen_parameters_stay_bit_equal_under_weight_decay():
    step = make_step(weight_decay=0.5)
    frozen = [p.asnumpy().copy() for p in step.loss.bent.get_parameters()]
    trained = step.loss.first.weight.asnumpy().copy()
    for seed in range(3):
        update(step, *make_batch(seed=seed), lr=0.1)
    for parameter, before in zip(step.loss.bent.get_parameters(), frozen, strict=True):
        assert np.array_equal(parameter.asnumpy(), before)
    assert not np.array_equal(step.loss.first.weight.asnumpy(), trained)
    assert not any("bent" in name for name in step.state())


def test_state_holds_moments_counter_and_average():
    step = make_step()
    assert len(step.state()) == 4 * 4 + 1  # four trained parameters, the average's own count
    assert len(make_step(ema_decay=None).state()) == 4 * 3
    assert {name: value.shape for name, value in step.state().items()} == step.state_shapes()


def test_an_update_above_the_limit_of_the_norm_changes_nothing():
    step = make_step()
    _, norm = update(step, *make_batch(), max_norm=1e-3)
    assert norm > 1e-3
    before = snapshot(step)
    assert before["num_updates.first.weight"] == 0
    update(step, *make_batch(), max_norm=norm * 1.001)
    assert snapshot(step)["num_updates.first.weight"] == 1


def test_the_output_of_the_loss_is_handed_on():
    step = make_step()
    inputs, targets = make_batch()
    scalars = (Tensor(value, ms.float32) for value in (0.01, 1.0, 3e38))
    loss, _, _, error = step(*scalars, True, Tensor(inputs), Tensor(targets))
    assert float(loss.asnumpy()) == pytest.approx(np.square(error.asnumpy()).mean(), rel=1e-6)


def test_state_moves_to_a_step_with_other_parameters():
    """What both train goes on; what is new starts with the first update's bias correction."""
    old = make_step(clip_grad_norm=None)
    for seed in range(3):
        update(old, *make_batch(seed=seed))
    loss = ToyLoss()
    for parameter in loss.bent.get_parameters():
        parameter.requires_grad = True
    for parameter in loss.first.get_parameters():
        parameter.requires_grad = False
    new = TrainStep(loss, OptimSettings(clip_grad_norm=None, ema_decay=0.9))
    new.load_state(old.state())
    state = new.state()
    assert np.array_equal(
        state["first_moment.last.weight"], old.state()["first_moment.last.weight"]
    )
    assert state["num_updates.last.weight"] == 3 and state["num_updates.bent.weight"] == 0
    before = loss.bent.weight.asnumpy().copy()
    update(new, *make_batch(), lr=0.01)
    # The first step of Adam moves every weight by about the learning rate.
    moved = np.abs(loss.bent.weight.asnumpy() - before)
    np.testing.assert_allclose(moved, 0.01, rtol=1e-2)


def test_a_learning_rate_multiplier_scales_the_first_step():
    step = TrainStep(
        ToyLoss(),
        OptimSettings(clip_grad_norm=None, weight_decay=0.0),
        lr_multipliers=[0.1, 1.0, 1.0, 1.0],
    )
    before = step.loss.first.weight.asnumpy().copy(), step.loss.last.weight.asnumpy().copy()
    update(step, *make_batch(), lr=0.01)
    np.testing.assert_allclose(
        np.abs(step.loss.first.weight.asnumpy() - before[0]), 0.001, rtol=2e-2
    )
    np.testing.assert_allclose(np.abs(step.loss.last.weight.asnumpy() - before[1]), 0.01, rtol=2e-2)


def test_a_compiled_step_goes_back_to_an_earlier_state_exactly():
    """Weights and state of any moment can be set, and read afterwards, as often as one likes."""
    step = make_step()
    for seed in range(2):
        update(step, *make_batch(seed=seed))
    saved = snapshot(step)
    results = []
    for _ in range(3):
        for parameter in step.loss.get_parameters():
            set_values(parameter, saved[parameter.name])
        step.load_state(saved)
        assert largest_difference(snapshot(step), saved) == 0
        for seed in range(2, 4):
            update(step, *make_batch(seed=seed))
        results.append(snapshot(step))
    assert largest_difference(results[0], saved) > 0
    assert largest_difference(results[0], results[1]) == 0
    assert largest_difference(results[0], results[2]) == 0
