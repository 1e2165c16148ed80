"""Speed and memory of the full-size CogVideoX and HunyuanVideo VAEs, against mindone's networks.

    python benchmarks/bench_vaes.py --output_path outputs/bench_vaes.json

Encodes and decodes 1x3x9x64x64 on all cores. Each family runs in a process of its own; as the
machine's speed drifts, what is compared is timed turn about there: encoding and decoding by the
networks of this project (compiled), the same by mindone's networks with the stand-ins for operators
that CPUs lack (line by line, which is how all of them run), and plain 3x3 convolutions.

"share" is the rate of FLOPs as a part of the plain convolution's. FLOPs are those that PyTorch's
counter gives for the networks of diffusers; work that an implementation saves is not taken off.
Peak memory is of a process with one of the networks and its weights alone.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench_dit import best_times
from bench_tae import CONV_FLOPS, plain_convolutions, run_on_cores

from mg.files import write_text

SHAPE = (1, 3, 9, 64, 64)
LATENT_SHAPE = (1, 16, 3, 8, 8)
# Class in diffusers, config where it differs from the class's defaults, GFLOP of encode and decode.
FAMILIES = {
    "cogvideox": (
        "AutoencoderKLCogVideoX",
        {"block_out_channels": [128, 256, 256, 512], "latent_channels": 16},
        (341, 696),
    ),
    "hunyuan": (
        "AutoencoderKLHunyuanVideo",
        {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16},
        (347, 666),
    ),
}
CONV_CALLS = 16  # plain convolutions that are timed together: 155 GFLOP


def inputs() -> tuple:
    """Return a video and a latent, random."""
    from mindspore import Tensor

    rng = np.random.default_rng(0)
    video = rng.uniform(-1, 1, SHAPE).astype(np.float32)
    return Tensor(video), Tensor(rng.standard_normal(LATENT_SHAPE).astype(np.float32))


def own_runs(family: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return functions that encode and decode with this project's network, compiled."""
    import mindspore as ms

    from mg.models.families import autoencoder_family

    record = autoencoder_family(family)
    network = record.build(record.read_config(FAMILIES[family][1]))
    network.set_train(False)
    video, latent = inputs()

    def encode():
        ms.set_context(mode=ms.GRAPH_MODE)
        return network.moments(video)[0].asnumpy()

    def decode():
        ms.set_context(mode=ms.GRAPH_MODE)
        return network.frames_from(latent).asnumpy()

    return {"encode": encode, "decode": decode}


def mindone_runs(family: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return functions that encode and decode with mindone's network, line by line."""
    from mg.vaes.mindone_networks import build_network, pynative_mode

    class_name, config, _ = FAMILIES[family]
    video, latent = inputs()
    with pynative_mode():
        network = build_network(class_name, config)

    def encode():
        with pynative_mode():
            return network.encode(video)[0].asnumpy()

    def decode():
        with pynative_mode():
            return network.decode(latent)[0].asnumpy()

    return {"encode": encode, "decode": decode}


def warmed_up(runs: dict[str, Callable]) -> tuple[dict[str, float], float]:
    """Return the seconds of each first run, and the peak memory in GB after a second one."""
    first = {}
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        first[name] = time.perf_counter() - began
    for run in runs.values():
        run()
    return first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def run_case(case: str, repeats: int) -> dict:
    """Return the figures of a family, or the peak memory of mindone's network alone."""
    import mindspore as ms

    ms.set_device("CPU")
    ms.runtime.launch_blocking()
    family, _, only_memory = case.partition("-")
    if only_memory:
        return {"peak_memory_gb": warmed_up(mindone_runs(family))[1]}
    own = own_runs(family)
    first, peak_memory = warmed_up(own)
    other = mindone_runs(family)
    warmed_up(other)
    runs = {**own, **{f"mindone_{name}": run for name, run in other.items()}}
    times = best_times({**runs, "conv": plain_convolutions(CONV_CALLS)}, repeats)
    seconds = {name: value["wall"] for name, value in times.items()}
    rate = CONV_CALLS * CONV_FLOPS / seconds["conv"] / 1e9
    flops = dict(zip(("encode", "decode"), FAMILIES[family][2], strict=True))
    both = seconds["encode"] + seconds["decode"]
    return {
        "seconds": seconds,
        "conv3x3_gflop_per_second": rate,
        "share": {n: flop / seconds[n] / rate for n, flop in flops.items()}
        | {"both": sum(flops.values()) / both / rate},
        "times_mindone": (seconds["mindone_encode"] + seconds["mindone_decode"]) / both,
        "peak_memory_gb": peak_memory,
        "compile_seconds": {n: first[n] - seconds[n] for n in flops},
    }


def table(results: dict[str, dict]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| family | encode s | decode s | conv 3x3 GFLOP/s | share encode | decode | both | "
        "times mindone's speed | peak GB | mindone's peak GB | compile s (encode, decode) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family, r in results.items():
        share, seconds, compiled = r["share"], r["seconds"], r["compile_seconds"]
        cells = [
            family,
            f"{seconds['encode']:.2f}",
            f"{seconds['decode']:.2f}",
            f"{r['conv3x3_gflop_per_second']:.0f}",
            *(f"{share[name]:.2f}" for name in ("encode", "decode", "both")),
            f"{r['times_mindone']:.2f}",
            f"{r['peak_memory_gb']:.2f}",
            f"{r['mindone_peak_memory_gb']:.2f}",
            f"{compiled['encode']:.0f}, {compiled['decode']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(families: list[str], repeats: int) -> Iterator[dict[str, dict]]:
    """Yield the results so far, each case run in a process of its own."""
    results = {}
    for family in families:
        result = _in_process(family, repeats)
        result["mindone_peak_memory_gb"] = _in_process(f"{family}-memory", repeats)[
            "peak_memory_gb"
        ]
        results[family] = result
        yield results


def _in_process(case: str, repeats: int) -> dict:
    command = [sys.executable, __file__, "--in_process", case, "--repeats", str(repeats)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "GLOG_v": "3"}
    )
    line = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    if not line:
        sys.exit(f"case {case} failed:\n{done.stderr[-2000:]}")
    return json.loads(line[0].removeprefix("RESULT "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output_path", default="outputs/bench_vaes.json")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--in_process", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        print("RESULT " + json.dumps(run_case(arguments.in_process, arguments.repeats)))
        return
    cores = run_on_cores(arguments.cores)
    results = {}
    for results in measured(arguments.families, arguments.repeats):
        print(table(results), flush=True)
    report = {
        "shape": SHAPE,
        "machine": f"{platform.machine()}, {cores} of {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "results": results,
    }
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)


if __name__ == "__main__":
    main()
