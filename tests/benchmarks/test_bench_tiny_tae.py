"""The weights that ship beat the baseline on held-out clips, as docs/tae_tiny.md promises."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_small_weights_beat_the_baseline_by_four_decibels(tmp_path):
    output = tmp_path / "bench.json"
    command = [sys.executable, "benchmarks/bench_tiny_tae.py", "--output_path", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    report = json.loads(output.read_text())
    ours, baseline = report["TAE"]["clips"], report["baseline"]["clips"]
    assert [clip["num_frames"] for clip in ours] == [32, 32]
    for clip, base in zip(ours, baseline, strict=True):
        assert clip["psnr"] > base["psnr"] + 4.0, clip["name"]
    # the figures in docs/tae_tiny.md, to 0.05 dB
    assert abs(ours[0]["psnr"] - 23.98) < 0.05 and abs(baseline[0]["psnr"] - 17.91) < 0.05
    assert abs(ours[1]["psnr"] - 32.48) < 0.05 and abs(baseline[1]["psnr"] - 22.92) < 0.05
