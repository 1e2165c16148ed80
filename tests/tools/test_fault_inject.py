"""Fault experiments: all trials pass, and the tool notices when they should not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "tools/fault_inject.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def results(tmp_path, *arguments):
    """Return the (passed, trials) of each experiment by its name."""
    finished = run(*arguments, "--json", tmp_path / "report.json")
    assert finished.returncode == 0, finished.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    for result in report["results"]:
        if result["name"] in arguments:
            assert f"{result['num_passed']}/{result['num_trials']}" in finished.stdout
    return {r["name"]: (r["num_passed"], r["num_trials"]) for r in report["results"]}


def test_one_flipped_bit_at_1000_positions_is_told_1000_times(tmp_path):
    assert results(tmp_path, "--only", "flip_bits") == {"flip_bits": (1000, 1000)}


def test_100_truncations_are_told_and_the_older_checkpoint_is_loaded(tmp_path):
    assert results(tmp_path, "--only", "truncate_files") == {"truncate_files": (100, 100)}


def test_saves_that_end_before_any_call_to_the_file_system_leave_a_checkpoint(tmp_path):
    passed, tried = results(tmp_path, "--only", "crash_before_each_call")["crash_before_each_call"]
    assert passed == tried > 100  # three saves make that many calls


def test_damaged_logs_shared_folders_and_ranks_that_differ(tmp_path):
    names = ("flip_log_bits", "share_folder", "compare_ranks")
    found = results(tmp_path, "--only", *names, "--trials", 4)
    assert found == dict.fromkeys(names, (4, 4))


def test_ten_kills_while_saving_leave_a_checkpoint(tmp_path):
    found = results(tmp_path, "--only", "kill_while_saving", "--trials", 10)
    assert found == {"kill_while_saving": (10, 10)}


# The figures of docs/reliability.md. Up to an hour on one core:
#     pytest -m faults tests/tools/test_fault_inject.py
@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "num_trials"),
    [
        ("kill_training", 100),
        ("end_training", 20),
        ("resume_equals_unbroken", 3),
        ("bad_numbers", 45),
        ("corrupt_media", 40),
        ("weight_bombs", 16),
        ("media_bombs", 21),
    ],
)
def test_runs_survive(tmp_path, name, num_trials):
    assert results(tmp_path, "--only", name) == {name: (num_trials, num_trials)}


@pytest.mark.faults
def test_a_thousand_kills_while_saving_leave_a_checkpoint(tmp_path):
    found = results(tmp_path, "--only", "kill_while_saving", "--trials", 1000)
    assert found == {"kill_while_saving": (1000, 1000)}


UNSAFE_STORES = {
    # The manifest's sha256 is not compared, so changed values are loaded.
    "flip_bits": "manifest._compare = lambda name, record, **found: None",
    # The older checkpoints are removed before the new one is committed.
    "crash_before_each_call": """
flush = store._flush_folder
def remove_then_flush(folder):
    for path in folder.parent.glob("step_*"):
        shutil.rmtree(path)
    flush(folder)
store._flush_folder = remove_then_flush""",
}


@pytest.mark.parametrize("experiment", UNSAFE_STORES)
def test_a_store_that_is_not_safe_fails(experiment):
    program = f"""
import shutil, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tools")!r}]
import mg.training.run.checkpoint_manifest as manifest
import mg.training.run.checkpoint_store as store
{UNSAFE_STORES[experiment]}
import fault_inject
sys.argv[1:] = ["--only", {experiment!r}, "--trials", "60"]
fault_inject.main()
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 1
    assert f"{experiment}, trial " in finished.stderr
    assert "60/60" not in finished.stdout and "/60 |" in finished.stdout


def test_an_existing_report_is_kept(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("mine")
    refused = run("--only", "truncate_files", "--trials", 1, "--json", path)
    assert refused.returncode == 1 and "--overwrite" in refused.stderr
    assert path.read_text() == "mine"


def test_a_report_can_be_updated(tmp_path):
    assert results(tmp_path, "--only", "flip_bits", "--trials", 2) == {"flip_bits": (2, 2)}
    both = results(tmp_path, "--only", "truncate_files", "--trials", 3, "--update")
    assert both == {"flip_bits": (2, 2), "truncate_files": (3, 3)}
    newer = results(tmp_path, "--only", "truncate_files", "--trials", 4, "--update")
    assert newer == {"flip_bits": (2, 2), "truncate_files": (4, 4)}


def test_damaged_latents_and_bombs_in_configs_are_told(tmp_path):
    outcomes = results(tmp_path, "--trials", "400", "--only", "fuzz_latents", "config_bombs")
    assert outcomes == {"fuzz_latents": (400, 400), "config_bombs": (16, 16)}
