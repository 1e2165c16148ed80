"""Measure how fast metrics are, on one core: processor time, so that other work counts little.

    python tools/fetch_lpips.py --net all
    python tools/fetch_i3d.py
    python benchmarks/bench_metrics.py

Prints a Markdown table: processor seconds for a pair of clips (median of the repetitions, after one
to warm up) and frames per second. Clips are random colours that move, with noise, 256x256. VMAF and
XPSNR are left out: another program computes them.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.device import DeviceConfig, setup_device
from mg.metrics.measures import Measures
from mg.metrics.protocol import read_protocol

PROTOCOL = Path(__file__).resolve().parents[1] / "protocols" / "mg.yaml"
SIDE = 256
# Names of metrics, measured together, and frames of the clips.
ROWS = (
    (("psnr", "ssim"), 100),
    (("ms_ssim",), 100),
    (("temporal",), 100),
    (("lpips_alex",), 16),
    (("lpips_vgg",), 16),
    (("flolpips_dis",), 16),
    (("i3d",), 16),
)


def main() -> None:
    """Measure each row, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    setup_device(DeviceConfig())
    settings = read_protocol(PROTOCOL).metrics
    print("| metrics | frames | processor seconds | frames per second |\n|---|---|---|---|")
    for names, num_frames in ROWS:
        seconds = seconds_of(Measures(names, settings), num_frames, options.repetitions)
        rate = num_frames / seconds
        print(f"| {' + '.join(names)} | {num_frames} | {seconds:.2f} | {rate:.1f} |", flush=True)


def seconds_of(measures: Measures, num_frames: int, repetitions: int) -> float:
    """Return the median of the processor seconds that a pair of clips takes."""
    reference, generated = moving_colours(num_frames)
    measures(reference, generated)
    found = []
    for _ in range(repetitions):
        began = time.process_time()
        measures(reference, generated)
        found.append(time.process_time() - began)
    return statistics.median(found)


def moving_colours(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an original and a noisy copy, uint8 (T, 256, 256, 3)."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
    image = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    reference = np.stack([np.roll(image, 2 * number, axis=1) for number in range(num_frames)])
    noise = generator.integers(-8, 9, reference.shape)
    return reference, np.clip(reference + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
