"""Reference curves: made from a run, written, read, and held against other runs."""

import json
import math

import numpy as np
import pytest

from reference_curve import (
    ReferenceCurve,
    compare_with_reference,
    make_reference,
    read_reference,
)


def make_log(num_steps=30, *, scale=1.0, noise=0.0, seed=0):
    noise = noise * np.random.default_rng(seed).standard_normal(num_steps)
    return [
        {"step": s, "loss": scale * (1 + 1 / (s + 1)) + noise[s], "l1": scale, "seconds": 1.0}
        for s in range(num_steps)
    ]


def make(log=None, **changes):
    options = {"command": "train", "tolerance": {"loss": 0.05, "l1": 0.01}, **changes}
    return make_reference(make_log() if log is None else log, **options)


def test_points_are_means_over_their_window():
    reference = make(every=10, window=4)
    assert [point["step"] for point in reference.curve] == [9, 19, 29]
    for point in reference.curve:
        steps = np.arange(point["step"] - 3, point["step"] + 1)
        assert point["loss"] == pytest.approx(np.mean(1 + 1 / (steps + 1)), rel=5e-6)
        assert set(point) == {"step", "loss", "l1"}
    # A point whose window begins before the run is left out.
    assert [point["step"] for point in make(every=5, window=12).curve] == [14, 19, 24, 29]


def test_it_survives_being_written_and_read(tmp_path):
    reference = make()
    path = tmp_path / "curve.json"
    path.write_text(reference.to_json())
    assert read_reference(path) == reference
    content = json.loads(path.read_text())
    assert list(content) == ["command", "machine", "date", "window", "tolerance", "curve"]
    assert content["command"] == "train" and "MindSpore 2" in content["machine"]
    assert len(content["date"]) == len("2000-01-01")


@pytest.mark.parametrize(("scale", "is_equal"), [(1.009, True), (0.991, True), (1.011, False)])
def test_the_tolerance_is_relative_and_per_key(scale, is_equal):
    comparison = compare_with_reference(make_log(scale=scale), make())
    loss, l1 = comparison.differences
    assert comparison.is_equal is is_equal
    assert (loss.tolerance, l1.tolerance) == (0.05, 0.01)
    assert loss.first_step is None and (l1.first_step is None) is is_equal
    assert l1.largest == pytest.approx(abs(scale - 1) / max(scale, 1), rel=1e-5)


def test_noise_of_single_steps_averages_out():
    reference = make(tolerance={"loss": 0.05})
    noisy = make_log(noise=0.1, seed=1)
    single = [
        abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(noisy, make_log(), strict=True)
    ]
    assert max(single) > 0.05
    assert compare_with_reference(noisy, reference).is_equal


def test_a_run_that_stops_early_lacks_steps_and_a_longer_one_lacks_none():
    comparison = compare_with_reference(make_log(25), make())
    assert comparison.missing == ((25, 26, 27, 28, 29), ())
    assert comparison.num_steps == 2 and not comparison.is_equal
    assert compare_with_reference(make_log(100), make()).is_equal


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_run_that_broke_down_is_not_equal(value):
    log = make_log()
    log[12]["loss"] = value
    comparison = compare_with_reference(log, make())
    assert comparison.differences[0].first_step == 19 and not comparison.is_equal
    with pytest.raises(ValueError, match=r"values at steps \[19\] are not finite"):
        make(log)


def test_wrong_references_are_refused(tmp_path):
    with pytest.raises(ValueError, match="too few for a point each 10 steps over 10"):
        make(make_log(9))
    with pytest.raises(ValueError, match="every=0 and window=10"):
        make(every=0)
    with pytest.raises(ValueError, match="no entry has psnr; the logs hold loss, l1"):
        make(tolerance={"psnr": 0.1})
    with pytest.raises(FileNotFoundError, match="no reference curve"):
        read_reference(tmp_path / "none.json")
    good = json.loads(make().to_json())
    path = tmp_path / "curve.json"
    for content, message in (
        ("{", "is not a reference curve: .* is not JSON"),
        ("[]", "is not a reference curve"),
        ({**good, "window": 0}, "window=0; expected a number of steps"),
        ({**good, "curve": []}, "needs points and a tolerance"),
        ({**good, "curve": [{"step": 1}]}, "lacks .*'loss'"),
        ({**good, "tolerance": {"loss": -1}}, "tolerance of .*loss.* is -1"),
        ({**good, "more": 1}, "unexpected keyword argument 'more'"),
    ):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(ValueError, match=message):
            read_reference(path)


def test_a_curve_checks_itself():
    with pytest.raises(ValueError, match="needs points"):
        ReferenceCurve(command="", machine="", date="", window=1, tolerance={"loss": 0}, curve=())
