"""Two logs, step by step."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from run_comparison import compare_runs, difference, is_timing, read_run

TOOLS = Path(__file__).parents[2] / "tools"
INF, NAN = math.inf, math.nan


def make_log(num_steps=5, **changes):
    """Return a log; a change is key_STEP=value."""
    log = [
        {"step": s, "loss": 1 / (s + 1), "kl": 1000.0 + s, "seconds": 0.1 * s}
        for s in range(num_steps)
    ]
    for name, value in changes.items():
        key, step = name.rsplit("_", 1)
        log[int(step)][key] = value
    return log


def test_a_log_equals_itself_whatever_the_time_it_took():
    comparison = compare_runs(make_log(), make_log(seconds_2=99.0, data_wait_3=1.0))
    assert comparison.is_equal and comparison.num_steps == 5
    assert [(d.key, d.largest, d.first_step) for d in comparison.differences] == [
        ("loss", 0.0, None),
        ("kl", 0.0, None),
    ]
    assert comparison.table().splitlines()[-1] == "equal"


def test_one_bit_in_one_step_is_found():
    changed = math.nextafter(1 / 4, 1)
    comparison = compare_runs(make_log(), make_log(loss_3=changed))
    assert not comparison.is_equal
    loss, kl = comparison.differences
    assert (loss.step, loss.first_step, loss.values) == (3, 3, (1 / 4, changed))
    assert loss.largest == changed - 1 / 4 > 0
    assert kl.first_step is None
    assert comparison.table().splitlines()[-1] == "NOT equal"


def test_largest_and_first_difference_are_told_apart():
    comparison = compare_runs(make_log(), make_log(loss_1=0.51, loss_4=0.5), tolerance=0.001)
    (loss, _) = comparison.differences
    assert (loss.first_step, loss.step) == (1, 4)
    assert loss.largest == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize(
    ("key", "value", "tolerance", "is_equal"),
    [
        ("loss", 0.5 + 9e-7, 1e-6, True),  # below 1: absolute
        ("loss", 0.5 + 2e-6, 1e-6, False),
        ("kl", 1001 * (1 + 9e-7), 1e-6, True),  # above 1: relative
        ("kl", 1001 * (1 + 2e-6), 1e-6, False),
    ],
)
def test_tolerance(key, value, tolerance, is_equal):
    comparison = compare_runs(make_log(), make_log(**{f"{key}_1": value}), tolerance=tolerance)
    assert comparison.is_equal is is_equal


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (NAN, NAN, 0),
        (NAN, 1.0, INF),
        (1.0, NAN, INF),
        (INF, INF, 0),
        (INF, -INF, INF),
        (INF, 1.0, INF),
        (None, 1.0, INF),
        (None, None, 0),
        ("bf16", "bf16", 0),
        ("bf16", "fp16", INF),
        (0.25, -0.25, 0.5),
        (100, 150.0, 1 / 3),
        (0, 0.0, 0),
    ],
)
def test_difference(a, b, expected):
    assert difference(a, b) == pytest.approx(expected)


def test_nan_in_one_run_alone_is_never_within_a_tolerance():
    comparison = compare_runs(make_log(), make_log(loss_2=NAN), tolerance=1e9)
    assert comparison.differences[0].first_step == 2 and not comparison.is_equal
    assert compare_runs(make_log(loss_2=NAN), make_log(loss_2=NAN)).is_equal


def test_a_key_that_one_run_lacks_is_a_difference():
    comparison = compare_runs(make_log(), make_log(grad_norm_3=1.0))
    (grad_norm,) = (d for d in comparison.differences if d.key == "grad_norm")
    assert (grad_norm.largest, grad_norm.step, grad_norm.values) == (INF, 3, (None, 1.0))
    assert not comparison.is_equal
    assert compare_runs(make_log(), make_log(grad_norm_3=1.0), keys=["loss", "kl"]).is_equal


def test_missing_steps_are_listed_on_their_side():
    log = make_log(12)
    a, b = log[:10], [log[0], *log[4:7], *log[8:]]
    comparison = compare_runs(a, b)
    assert comparison.missing == ((10, 11), (1, 2, 3, 7))
    assert comparison.num_steps == 6 and not comparison.is_equal
    table = comparison.table(("unbroken", "resumed"))
    assert "2 steps missing in unbroken: 10-11" in table
    assert "4 steps missing in resumed: 1-3, 7" in table


def test_runs_without_a_common_step_are_not_equal():
    log = make_log(6)
    comparison = compare_runs(log[:3], log[3:])
    assert (comparison.num_steps, comparison.differences) == (0, ())
    assert not comparison.is_equal


def test_of_a_step_that_was_run_twice_the_later_entry_counts():
    log = make_log(3)
    assert compare_runs([*make_log(3, loss_1=7.0)[:2], *log[1:]], log).is_equal


def test_wrong_questions_are_refused():
    with pytest.raises(ValueError, match="no entry has los; the logs hold loss, kl, seconds"):
        compare_runs(make_log(), make_log(), keys=["los"])
    with pytest.raises(ValueError, match="tolerance=-1"):
        compare_runs(make_log(), make_log(), tolerance=-1)
    with pytest.raises(ValueError, match="entry has no step"):
        compare_runs([{"loss": 1.0}], make_log())


def test_timing_keys():
    keys = ("seconds", "data_wait", "wait_share", "clips_per_second", "loss", "lr", "num_frames")
    assert [is_timing(key) for key in keys] == [True] * 4 + [False] * 3


def test_a_run_is_read_from_its_folder_or_its_log(tmp_path):
    path = tmp_path / "log.jsonl"
    with pytest.raises(FileNotFoundError, match=r"no training log: .*log\.jsonl"):
        read_run(tmp_path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no step"):
        read_run(path)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in make_log(loss_1=NAN)))
    assert compare_runs(read_run(tmp_path), make_log(loss_1=NAN)).is_equal
    assert read_run(path)[0] == make_log()[0]


def test_comparing_loads_no_mindspore():
    program = "import sys, compare_runs; print('mindspore' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TOOLS, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
