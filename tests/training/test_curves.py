"""The picture of a run."""

import numpy as np
import pytest
from matplotlib import figure, pyplot

from mg.training.metric import PSNR
from mg.training.run.curves import save_curves, smoothed


@pytest.fixture
def drawn(monkeypatch):
    """Return what is drawn: {title: {label: line}} of each figure that is closed."""
    panels = {}

    def keep(closed):
        assert isinstance(closed, figure.Figure)
        for axes in closed.axes:
            panels[axes.get_title()] = {line.get_label(): line for line in axes.get_lines()}

    monkeypatch.setattr(pyplot, "close", keep)
    return panels


def test_a_smooth_curve_is_the_mean_of_a_twentieth_around():
    values = np.random.default_rng(0).random(100)
    result = smoothed(values)
    assert result.shape == (100,)
    assert result[50] == pytest.approx(values[48:53].mean())
    assert result[0] == pytest.approx(values[:3].mean())
    assert result[-1] == pytest.approx(values[-3:].mean())


def test_short_runs_are_not_smoothed_and_what_is_not_finite_is_left_out():
    np.testing.assert_array_equal(smoothed([3.0, 1.0, 2.0]), [3.0, 1.0, 2.0])
    assert smoothed([]).shape == (0,)
    values = np.ones(100)
    values[50] = np.inf
    np.testing.assert_allclose(smoothed(values), 1.0)


def test_raw_and_smooth_loss_and_the_named_parts_are_drawn(tmp_path, drawn):
    train = [
        {"step": i, "loss": 1.0 + i % 2, "l1": 0.5, "lpips": 0.1 * (i + 1), "opl": 0.0}
        for i in range(100)
    ]
    for entry in train[60:]:
        entry |= {"adv": -0.2, "adv_weight": 3.0, "disc_loss": 1.0}
    validation = [{"step": 0, "psnr_per_clip": {"a": 20.0}}]
    terms = ("l1", "mse", "lpips", "opl", "adv", "adv_weight", "disc_loss")
    save_curves(tmp_path / "curves.png", train, validation, PSNR, terms=terms)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    loss = drawn["Loss (weighted sum of its parts)"]
    assert set(loss) == {"each step", "smoothed"}
    np.testing.assert_array_equal(loss["each step"].get_ydata(), [1.0 + i % 2 for i in range(100)])
    assert np.abs(loss["smoothed"].get_ydata()[5:95] - 1.5).max() < 0.11
    parts = drawn["Parts of the loss"]
    assert set(parts) == {"l1", "lpips", "adv", "disc_loss"}
    assert list(parts["adv"].get_xdata()) == list(range(60, 100))
    assert set(drawn["Held-out clips"]) == {"a"}


def test_curves_of_any_run_are_drawn(tmp_path, drawn):
    nan, inf = float("nan"), float("inf")
    train = [{"step": i, "loss": loss, "l1": loss} for i, loss in enumerate([1.0, nan, inf, 0.1])]
    validation = [
        {"step": 0, "psnr_per_clip": {"a": 20.0}},
        {"step": 4, "psnr_per_clip": {"a": 21.0, "b": inf}},
    ]
    for name, entries in (("full", (train, validation)), ("empty", ([], []))):
        save_curves(tmp_path / f"{name}.png", *entries, PSNR, terms=("l1",))
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ("Parts of the loss" in drawn) == (name == "full")
        drawn.clear()
