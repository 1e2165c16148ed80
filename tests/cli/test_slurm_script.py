"""scripts/slurm/train_vae.sh: what it starts on each node, with Slurm and msrun imitated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm" / "train_vae.sh"
# Slurm's way: the command on each of two nodes at once, which are told their numbers.
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] || exit 2
shift
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait $first && wait $second
"""
SCONTROL = """#!/bin/bash
[ "$*" = "show hostnames cluster[7-8]" ] || exit 2
echo cluster7
echo cluster8
"""
# Notes the command line, and what the script or Slurm has set of the ranks' environment.
MSRUN = f"""#!{sys.executable}
import json, os, sys
names = [n for n in os.environ if n.startswith(("SLURM_", "MS_", "RANK_", "MG_"))]
record = {{"arguments": sys.argv[1:], "variables": {{n: os.environ[n] for n in names}}}}
with open(f"node_{{os.environ['SLURM_NODEID']}}.json", "w") as file:
    json.dump(record, file)
sys.exit(int(os.environ.get("MSRUN_CODE", "0")))
"""
JOB = {
    "SLURM_JOB_NODELIST": "cluster[7-8]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_ID": "41",
    "MG_CACHE": "/shared/cache",
}


@pytest.fixture
def submit(tmp_path):
    """Return a function that runs the script in `tmp_path`: (exit code, errors, both records)."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("msrun", MSRUN)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    def run(*arguments, **variables):
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", SCRIPT, *arguments],
            cwd=tmp_path,
            env={"PATH": path, **JOB, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        records = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("node_*.json"))]
        return done.returncode, done.stderr, records

    return run


def test_the_script_is_bash():
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = SCRIPT.read_text().splitlines()
    options = [line for line in lines if line.startswith("#SBATCH ")]
    assert "#SBATCH --ntasks-per-node=1" in options and "#SBATCH --requeue" in options
    # Slurm reads options up to the first command only.
    first_command = next(n for n, line in enumerate(lines) if line and line[0] != "#")
    assert lines.index(options[-1]) < first_command


def test_each_node_starts_its_ranks(submit):
    settings = ("--config", "a config.yaml", "--dataset.data_path", "/data/my videos")
    code, errors, records = submit("out put", *settings)
    assert (code, errors) == (0, "")
    assert len(records) == 2
    for number, record in enumerate(records):
        assert record["arguments"] == [
            "--worker_num=16",
            "--local_worker_num=8",
            f"--node_rank={number}",
            "--master_addr=cluster7",
            "--master_port=8118",
            "--join=True",
            f"--log_dir=outputs/msrun/41/{number}",
            "scripts/train_vae.py",
            "--output_path",
            "out put",
            *settings,
        ]
        # No variables of a launcher: msrun sets those of each rank.
        assert record["variables"] == {**JOB, "SLURM_NODEID": str(number)}


def test_a_run_that_is_there_goes_on(submit, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("")
    code, _, records = submit("out", DEVICES_PER_NODE="4", MASTER_PORT="9000")
    assert code == 0
    for number, record in enumerate(records):
        assert record["arguments"][:5] == [
            "--worker_num=8",
            "--local_worker_num=4",
            f"--node_rank={number}",
            "--master_addr=cluster7",
            "--master_port=9000",
        ]
        assert record["arguments"][-3:] == ["--output_path", "out", "--resume=true"]


def test_failures_are_passed_on(submit):
    assert submit("out", MSRUN_CODE="3")[0] == 3
    code, errors, _ = submit()
    assert code != 0 and "give the output_path first" in errors
