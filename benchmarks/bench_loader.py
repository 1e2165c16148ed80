"""Clips per second from mp4 and from prepared clips, and the share of its time that training waits.

    python benchmarks/bench_loader.py --output_path outputs/bench_loader.json

The sizes are those of configs/tae/train/demo.yaml. The training step is simulated by matrix
products, which keep one core busy for `--step_seconds` as a real step on CPU does; run it under
`taskset -c 0` to see training and its workers share a single core.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from pathlib import Path

# One thread, as MindSpore's kernels on CPU; to be set before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from mg.data.clips import ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import Manifest, build_manifest
from mg.data.prepare import open_prepared, prepare_clips
from mg.data.prepared_index import PrepareSettings
from mg.files import write_text

CLIPS = Path(__file__).parents[1] / "assets" / "clips" / "train"
SHORT_SIDE_RANGE = (80, 112)
CLIP_CONFIG = ClipConfig(
    sample_n_frames=16, size=64, short_side_range=SHORT_SIDE_RANGE, crop="random", flip=True
)
NUM_WARM_UP = 10  # batches, in which every worker looks at the files for the first time


def work(seconds: float) -> None:
    """Keep one core busy, without Python's lock, like a training step."""
    end = time.monotonic() + seconds
    matrix = np.ones((256, 256), np.float32)
    while time.monotonic() < end:
        matrix @ matrix


def run_case(source: str, manifest: Manifest, num_workers: int, flags: argparse.Namespace) -> dict:
    """Measure one source with one number of workers."""
    data = ClipDataset(manifest, CLIP_CONFIG)
    with ClipLoader(data, flags.batch_size, num_workers=num_workers) as loader:
        next(loader)
        first = loader.seconds_waited
        for _ in itertools.islice(loader, NUM_WARM_UP):
            pass
        began = time.monotonic()
        for _ in itertools.islice(loader, flags.num_batches):
            pass
        seconds = time.monotonic() - began
        next(loader)
        waited, began = [], time.monotonic()
        for _ in range(flags.num_steps):
            work(flags.step_seconds)
            next(loader)
            waited.append(loader.seconds_waited)
        share = sum(waited) / (time.monotonic() - began)
    return {
        "source": source,
        "num_workers": num_workers,
        "clips_per_second": flags.num_batches * flags.batch_size / seconds,
        "first_batch_seconds": first,
        "waiting_ms_per_step": 1e3 * sum(waited) / len(waited),
        "longest_wait_ms": 1e3 * max(waited),
        "waiting_share": share,
    }


def table(results: list[dict]) -> str:
    lines = [
        f"{'source':<10}{'workers':>8}{'clips/s':>9}{'first batch s':>15}{'wait ms/step':>14}"
        f"{'longest ms':>12}{'waiting':>9}"
    ]
    for r in results:
        lines.append(
            f"{r['source']:<10}{r['num_workers']:>8}{r['clips_per_second']:>9.1f}"
            f"{r['first_batch_seconds']:>15.2f}{r['waiting_ms_per_step']:>14.2f}"
            f"{r['longest_wait_ms']:>12.2f}{r['waiting_share']:>9.2%}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video_folder", default=str(CLIPS))
    parser.add_argument("--num_workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_batches", type=int, default=60, help="for clips per second")
    parser.add_argument("--num_steps", type=int, default=15, help="for the share of waiting")
    parser.add_argument("--step_seconds", type=float, default=1.0)
    parser.add_argument("--output_path", default="outputs/bench_loader.json")
    flags = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        sources = build_manifest(
            video_folder=flags.video_folder, min_frames=CLIP_CONFIG.num_source_frames
        )
        prepare_clips(sources, folder, settings=PrepareSettings(short_side=SHORT_SIDE_RANGE[1]))
        manifests = {"raw": sources, "prepared": open_prepared(folder)}
        for source, num_workers in itertools.product(manifests, flags.num_workers):
            results.append(run_case(source, manifests[source], num_workers, flags))
            print(table(results), flush=True)
    report = {
        "batch_size": flags.batch_size,
        "step_seconds": flags.step_seconds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "results": results,
    }
    write_text(Path(flags.output_path), json.dumps(report, indent=1), overwrite=True)


if __name__ == "__main__":
    main()
