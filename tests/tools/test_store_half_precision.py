"""Weights stored in float16 load with their config and differ by float16's rounding only."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from mg.weights.load import load_tae_tensors

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "assets" / "tae_tiny" / "tae_tiny.safetensors"


def store(target, *flags):
    command = [sys.executable, "tools/store_half_precision.py", "--src", SOURCE, "--target", target]
    return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)


def test_values_and_config_survive(tmp_path):
    target = tmp_path / "half.safetensors"
    assert store(target).returncode == 0
    tensors, config = load_tae_tensors(SOURCE)
    halved, halved_config = load_tae_tensors(target)
    assert halved_config == config
    for name, array in tensors.items():
        np.testing.assert_allclose(halved[name], array, rtol=2**-11, atol=2**-25)


def test_existing_files_are_kept(tmp_path):
    target = tmp_path / "half.safetensors"
    target.write_bytes(b"mine")
    refused = store(target)
    assert refused.returncode == 1 and "exists already" in refused.stderr
    assert target.read_bytes() == b"mine"
