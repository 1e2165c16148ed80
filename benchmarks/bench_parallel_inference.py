"""Throughput of encode and decode with one process per core against one process.

    python benchmarks/bench_parallel_inference.py --output_path outputs/bench_parallel.json

Two cases: several short videos, which are divided as files, and one long video, whose tiles
are. Each process is bound to a core of its own; MindSpore's CPU kernels run on one thread.
Reading and writing files counts, starting and compiling does not. Target: 1.7 times with two.
Beside the seconds stands the processor time of the busiest process: where other work keeps the
cores busy that is the one to compare, though it leaves out what a process waits for another.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mg.data.manifest import build_manifest
from mg.data.video_writer import write_video
from mg.device import DeviceConfig, setup_device
from mg.files import write_text
from mg.models.families import autoencoder_family
from mg.models.tae.config import TAE_CONFIG
from mg.parallel.launch import launch
from mg.parallel.ranks import ONE_RANK, Ranks, init_ranks
from mg.tiling.sizes import Tiling

CASES = ("files", "tiles")
TARGET = 1.7


def write_videos(folder: Path, num_tiles: int, num_frames: int, size: int) -> None:
    """Write the videos of each case, and one of a single tile to warm up with."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (num_tiles * num_frames, size, size, 3), np.uint8)
    write_video(folder / "tiles" / "long.mp4", frames, fps=25)
    for number in range(num_tiles):
        write_video(folder / "files" / f"{number:03d}.mp4", frames[:num_frames], fps=25)
    write_video(folder / "warm_up" / "short.mp4", frames[:num_frames], fps=25)


def run_rank(folder: Path, config: dict, num_frames: int, repeats: int) -> None:
    """Measure both cases on the ranks that were started; rank 0 keeps the seconds."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK_ID"]) % len(cores)]})
    setup_device(DeviceConfig(device="CPU"))
    ranks = init_ranks()
    import mindspore as ms

    ms.set_seed(0)  # equal weights on all ranks
    tiling = Tiling(frames=num_frames, overlap_frames=0, height=0, width=0)
    family = autoencoder_family("tae")
    tae = family.build(family.read_config(config), tiling=tiling, sample_deterministic=True)
    tae.set_train(False)
    round_trip(tae, folder, "warm_up", ONE_RANK, name=f"warm_up_{ranks.size}_{ranks.rank}")
    times = {case: [] for case in CASES}
    for case in CASES * repeats:
        ranks.barrier()
        began, busy_before = time.perf_counter(), time.process_time()
        name = f"{case}_{ranks.size}_{len(times[case])}"
        round_trip(tae, folder, case, ranks, name=name)
        busy = max(ranks.gather_json(time.process_time() - busy_before))  # all are done
        times[case].append({"seconds": time.perf_counter() - began, "busy_seconds": busy})
    if ranks.is_main:
        best = {
            case: {kind: min(each[kind] for each in measured) for kind in measured[0]}
            for case, measured in times.items()
        }
        (folder / f"seconds_{ranks.size}.json").write_text(json.dumps(best))


def round_trip(tae, folder: Path, case: str, ranks: Ranks, *, name: str) -> None:
    """Encode the videos of a case to latents and decode these."""
    from mg.pipelines.decode import decode_latent_files
    from mg.pipelines.encode import encode_videos

    output = folder / "output" / name
    manifest = build_manifest(video_folder=folder / case)
    encode_videos(tae, manifest, output / "latents", ranks=ranks)
    ranks.barrier()
    decode_latent_files(tae, output / "latents", output / "videos", ranks=ranks)


def table(results: list[dict]) -> str:
    """Return the results as lines of text."""
    lines = [
        f"{'case':<8}{'ranks':>7}{'s':>9}{'frames/s':>11}{'x one rank':>12}{'busy s':>9}"
        f"{'x one rank':>12}{'target':>9}"
    ]
    for r in results:
        target = f"{TARGET:.1f}" if r["ranks"] == 2 else "-"
        lines.append(
            f"{r['case']:<8}{r['ranks']:>7}{r['seconds']:>9.2f}{r['frames_per_second']:>11.2f}"
            f"{r['speed_up']:>12.2f}{r['busy_seconds']:>9.2f}{r['busy_speed_up']:>12.2f}"
            f"{target:>9}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--num_tiles", type=int, default=8, help="files, and tiles of one video")
    parser.add_argument("--num_frames", type=int, default=8, help="of a file, and of a tile")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--ch", type=int, default=TAE_CONFIG["ch"], help="base width")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output_path", default="outputs/bench_parallel.json")
    parser.add_argument("--in_process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        config = {**TAE_CONFIG, "ch": arguments.ch}
        run_rank(arguments.in_process, config, arguments.num_frames, arguments.repeats)
        return
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_videos(folder, arguments.num_tiles, arguments.num_frames, arguments.size)
        command = [sys.executable, __file__, *sys.argv[1:], "--in_process", name]
        for num_ranks in (1, arguments.ranks):
            if launch(num_ranks, command, folder / "logs"):
                sys.exit(f"the measurement on {num_ranks} ranks failed")
            measured[num_ranks] = json.loads((folder / f"seconds_{num_ranks}.json").read_text())
    num_frames = arguments.num_tiles * arguments.num_frames
    results = [
        {
            "case": case,
            "ranks": num_ranks,
            **measured[num_ranks][case],
            "frames_per_second": num_frames / measured[num_ranks][case]["seconds"],
            "speed_up": measured[1][case]["seconds"] / measured[num_ranks][case]["seconds"],
            "busy_speed_up": (
                measured[1][case]["busy_seconds"] / measured[num_ranks][case]["busy_seconds"]
            ),
        }
        for case in CASES
        for num_ranks in measured
    ]
    print(table(results))
    report = {
        "settings": {k: getattr(arguments, k) for k in ("num_tiles", "num_frames", "size", "ch")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "target": TARGET,
        "results": results,
    }
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)


if __name__ == "__main__":
    main()
