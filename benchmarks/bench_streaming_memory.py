"""Peak memory of encoding a video to a latent file and back, against the video's length.

    python benchmarks/bench_streaming_memory.py --output_path outputs/bench_streaming_memory.json

Each length runs in its own process, so that the peak is its own. A small network with random
weights is used: what counts is that the peak does not grow with the number of frames.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.data.manifest import build_manifest
from mg.data.video_writer import VideoWriter
from mg.files import write_text
from mg.models.families import autoencoder_family
from mg.pipelines.memory import peak_memory_gb

CONFIG = {"ch": 32, "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1}


def make_video(path: Path, num_frames: int, size: int) -> None:
    """Write a moving pattern, one frame at a time."""
    rows, columns = np.mgrid[:size, :size]
    with VideoWriter(path, fps=25) as writer:
        for t in range(num_frames):
            waves = [
                np.sin((rows * a + columns * b + 3 * t) / 9) for a, b in ((1, 2), (2, 1), (1, 1))
            ]
            writer.write((127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8))


def run_length(num_frames: int, size: int) -> dict:
    """Return peak memory and time of encoding and decoding one video, in this process."""
    import mindspore as ms

    from mg.pipelines.decode import decode_latent_files
    from mg.pipelines.encode import encode_videos

    ms.set_context(mode=ms.GRAPH_MODE)
    family = autoencoder_family("tae")
    tae = family.build(family.read_config(CONFIG), sample_deterministic=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_video(folder / "video.mp4", num_frames, size)
        before = peak_memory_gb()
        start = time.perf_counter()
        encode_videos(tae, build_manifest(video_folder=folder / "video.mp4"), folder / "latents")
        after_encode = peak_memory_gb()
        decode_latent_files(tae, folder / "latents", folder / "videos")
        seconds = time.perf_counter() - start
    return {
        "num_frames": num_frames,
        "size": size,
        "start_gb": before,
        "encode_peak_gb": after_encode,
        "decode_peak_gb": peak_memory_gb(),
        "seconds": seconds,
    }


def table(results: list[dict]) -> str:
    """Return the results as text."""
    lines = ["frames  start GB  peak after encode GB  peak after decode GB  seconds"]
    lines += [
        f"{r['num_frames']:6d}  {r['start_gb']:8.2f}  {r['encode_peak_gb']:20.2f}  "
        f"{r['decode_peak_gb']:20.2f}  {r['seconds']:7.1f}"
        for r in results
    ]
    growth = results[-1]["decode_peak_gb"] / results[0]["decode_peak_gb"] - 1
    lines.append(
        f"from {results[0]['num_frames']} to {results[-1]['num_frames']} frames the peak changes "
        f"by {100 * growth:+.1f} %"
    )
    return "\n".join(lines)


def main() -> None:
    """Run each length in a process of its own; print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num_frames", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--output_path", default="outputs/bench_streaming_memory.json")
    parser.add_argument("--in_process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        print("RESULT " + json.dumps(run_length(arguments.num_frames[0], arguments.size)))
        return
    results = []
    for num_frames in arguments.num_frames:
        command = [sys.executable, __file__, "--in_process", "--size", str(arguments.size)]
        command += ["--num_frames", str(num_frames)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        line = next(line for line in output.splitlines() if line.startswith("RESULT "))
        results.append(json.loads(line.removeprefix("RESULT ")))
    print(table(results))
    report = {"config": CONFIG, "results": results}
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)


if __name__ == "__main__":
    main()
