"""Speed and memory of the full-size TAE as ratios to a plain 3x3 convolution in the same process.

    python benchmarks/bench_tae.py --output_path outputs/bench_tae.json

Each case runs in its own process, so that peak memory is its own. As the machine's speed drifts,
what is compared is timed turn about there: the case, a round trip, and as many of the convolutions
as have a round trip's FLOPs. These are counted by the plain definition (2 per multiply-add of every
convolution, projection and attention product); work that the implementation saves is not taken off.

Runs on one core unless told otherwise: convolutions have buffers for each thread, so that more
cores take more memory as well as less time.
"""

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench_dit import best_times
from mg.files import write_text
from mg.models.families import autoencoder_family
from own_process import measured_apart, print_result

if TYPE_CHECKING:  # MindSpore takes seconds to import
    from mg.models.autoencoder import AutoencoderSettings

CASES = ("round_trip", "train", "train_recompute")
CONV_CHANNELS, CONV_FRAMES, CONV_SIZE = 128, 8, 64
CONV_FLOPS = 2 * 9 * CONV_CHANNELS**2 * CONV_FRAMES * CONV_SIZE**2


def conv2_5d_flops(c_in: int, c_out: int, pixels: int, kernel: int = 3) -> int:
    """FLOPs of a Conv2.5d: spatial k*k*c_in*c_out and temporal k*c_out*c_out per output pixel."""
    return 2 * pixels * (kernel * kernel * c_in * c_out + kernel * c_out * c_out)


def block_flops(c_in: int, c_out: int, pixels: int) -> int:
    shortcut = conv2_5d_flops(c_in, c_out, pixels, kernel=1) if c_in != c_out else 0
    return conv2_5d_flops(c_in, c_out, pixels) + conv2_5d_flops(c_out, c_out, pixels) + shortcut


def middle_flops(c: int, num_frames: int, area: int) -> int:
    pixels = num_frames * area
    projections = 2 * 4 * 2 * pixels * c * c  # q, k, v, out of both attentions
    products = 2 * 2 * pixels * c * (area + num_frames)
    return 2 * block_flops(c, c, pixels) + projections + products


def round_trip_flops(
    config: "AutoencoderSettings", num_frames: int, height: int, width: int
) -> int:
    """FLOPs of encode and decode of one clip, by the config of a TAE."""
    widths = [config.ch * m for m in config.ch_mult]
    last = config.num_levels - 1
    t, area = num_frames, height * width
    total = conv2_5d_flops(config.in_channels, config.ch, t * area)
    c = config.ch
    for level, width_out in enumerate(widths):
        for _ in range(config.num_res_blocks):
            total += block_flops(c, width_out, t * area)
            c = width_out
        if level < last:
            area //= 4
            total += 2 * 9 * c * c * t * area
        if level in config.temporal_downsample_level:
            t = -(-t // 2)
            total += 2 * 3 * c * c * t * area
    total += middle_flops(c, t, area)
    total += conv2_5d_flops(c, 2 * config.z_channels, t * area)
    total += conv2_5d_flops(config.z_channels, c, t * area) + middle_flops(c, t, area)
    for level in range(last, -1, -1):
        for _ in range(config.num_res_blocks + 1):
            total += block_flops(c, widths[level], t * area)
            c = widths[level]
        if level > 0:
            area *= 4
            total += 2 * 9 * c * c * t * area
        if level in config.temporal_upsample_level:
            t *= 2
            total += 2 * 3 * c * c * t * area
    return total + conv2_5d_flops(c, config.out_ch, t * area)


def run_on_cores(number: int) -> int:
    """Keep this process and its children on so many cores; return on how many they are."""
    if not hasattr(os, "sched_setaffinity"):  # not on every system
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))[-number:]
    os.sched_setaffinity(0, cores)
    return len(cores)


def plain_convolutions(calls: int):
    """Return a function that calls a plain 3x3 nn.Conv2d so often, CONV_FLOPS each."""
    import mindspore as ms
    from mindspore import nn

    shape = (CONV_FRAMES, CONV_CHANNELS, CONV_SIZE, CONV_SIZE)
    x = ms.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    conv = nn.Conv2d(CONV_CHANNELS, CONV_CHANNELS, 3, pad_mode="pad", padding=1)

    def convolve():
        for _ in range(calls):
            conv(x).asnumpy()

    return convolve


def run_case(case: str, shape: tuple[int, ...], repeats: int) -> dict:
    import mindspore as ms

    from mg.training.autoencoder.autoencoder_config import LossSettings, OptimSettings
    from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
    from mg.training.step import TrainStep

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    family = autoencoder_family("tae")
    tae = family.build(family.read_config({}), recompute=case == "train_recompute")
    rng = np.random.default_rng(0)
    video = ms.Tensor(rng.uniform(-1, 1, shape).astype(np.float32))

    def round_trip():
        return tae(video).asnumpy()

    if case != "round_trip":
        step = TrainStep(
            AutoencoderLoss(tae, LossSettings(perceptual_loss_weight=0)),
            OptimSettings(ema_decay=None),
        )
        step.set_train()
        latent = (shape[0], 16, -(-shape[2] // 8), shape[3] // 8, shape[4] // 8)
        noise = ms.Tensor(rng.standard_normal(latent).astype(np.float32))
        indices = ms.Tensor(np.zeros(1, np.int32))
        scalars = [ms.Tensor(value, ms.float32) for value in (1e-5, 1.0, 3e38)]

        def train():
            return step(*scalars, True, video, noise, indices)[0].asnumpy()

    run = round_trip if case == "round_trip" else train
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    run()  # before there is another graph
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    flops = shape[0] * round_trip_flops(tae.config, *shape[2:])
    conv_calls = max(1, round(flops / CONV_FLOPS))
    runs = {case: run, "round_trip": round_trip, "conv": plain_convolutions(conv_calls)}
    wall = {name: times["wall"] for name, times in best_times(runs, repeats).items()}
    seconds = wall[case]
    rate = conv_calls * CONV_FLOPS / wall["conv"] / 1e9
    return {
        "case": case,
        "seconds": seconds,
        "gflop_round_trip": flops / 1e9,
        "gflop_per_second": flops / seconds / 1e9,
        "conv3x3_gflop_per_second": rate,
        "ratio_to_conv3x3": flops / seconds / 1e9 / rate,
        "round_trips": seconds / wall["round_trip"],
        "peak_memory_gb": peak_memory,
        "compile_seconds": first - seconds,
    }


def table(results: list[dict]) -> str:
    lines = [
        f"{'case':<17}{'s':>8}{'GFLOP/s':>9}{'conv 3x3':>10}{'ratio':>7}"
        f"{'x round trip':>14}{'peak GB':>9}{'compile s':>11}"
    ]
    for r in results:
        is_round_trip = r["case"] == "round_trip"
        rate = f"{r['gflop_per_second']:.1f}" if is_round_trip else "-"
        ratio = f"{r['ratio_to_conv3x3']:.2f}" if is_round_trip else "-"
        lines.append(
            f"{r['case']:<17}{r['seconds']:>8.2f}{rate:>9}{r['conv3x3_gflop_per_second']:>10.1f}"
            f"{ratio:>7}{r['round_trips']:>14.2f}{r['peak_memory_gb']:>9.2f}"
            f"{r['compile_seconds']:>11.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--shape", nargs=5, type=int, default=[1, 3, 8, 64, 64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output_path", default="outputs/bench_tae.json")
    parser.add_argument("--cores", type=int, default=1, help="what to run on; default: one")
    parser.add_argument("--in_process", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        result = run_case(arguments.in_process, tuple(arguments.shape), arguments.repeats)
        print_result(result)
        return
    cores = run_on_cores(arguments.cores)
    results = []
    for case in arguments.cases:
        flags = ["--repeats", arguments.repeats, "--shape", *arguments.shape]
        results.append(measured_apart(__file__, case, *map(str, flags))[0])
        print(table(results), flush=True)
    report = {
        "shape": arguments.shape,
        "machine": f"{platform.machine()}, {cores} of {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "results": results,
    }
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)


if __name__ == "__main__":
    main()
