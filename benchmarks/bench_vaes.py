"""Speed and memory of full-size VAEs: against plain convolutions, and against mindone's networks.

    python benchmarks/bench_vaes.py --output_path outputs/bench_vaes.json

Each measurement runs in a process of its own; as the machine's speed drifts, what is compared is
timed turn about there:

- coding: encoding and decoding (compiled), plain 3x3 convolutions and, for the families that
  mindone has, the same by its networks with the stand-ins for operators that CPUs lack (line by
  line, which is how all of them run);
- training: a step of the autoencoder's training (L1 and KL, AdamW), and a round trip;
- lengths: encoding and decoding 17 and 33 frames, piece by piece, for the families that can.

"share" is the rate of FLOPs as a part of the plain convolution's. FLOPs are counted in the graph of
the plain form of the layers (`graph_flops.py`); PyTorch's counter gives as many for diffusers'
networks (HunyuanVideo 347 and 666 GFLOP), but for CogVideoX's decoder (341 and 696, here 685). Work
that the form for CPUs saves is not taken off. Peak memory is of a process with one network and its
weights alone.
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_dit import best_times
from bench_tae import CONV_FLOPS, plain_convolutions, run_on_cores
from graph_flops import flops_of_graph
from mg.files import write_text
from own_process import measured_apart, print_result

if TYPE_CHECKING:
    from mg.models.autoencoder import Autoencoder


@dataclasses.dataclass(frozen=True)
class Subject:
    """A published network, and the video that it codes here.

    Attributes:
        family: of `mg.models.families`.
        fields: of its config, where they differ from the family's defaults.
        video: frames and side of the square video; one clip of it takes seconds.
        mindone: class of mindone that has the same network.
    """

    family: str
    video: tuple[int, int]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mindone: str | None = None


SUBJECTS = {
    "sd3.5": Subject(
        "sd",
        (4, 64),
        {
            "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2,
            "latent_channels": 16,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
    ),
    "opensora-1.2": Subject("opensora", (9, 64)),
    "cogvideox": Subject(
        "cogvideox",
        (9, 64),
        {"block_out_channels": [128, 256, 256, 512], "latent_channels": 16},
        "AutoencoderKLCogVideoX",
    ),
    "hunyuan": Subject(
        "hunyuan",
        (9, 64),
        {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16},
        "AutoencoderKLHunyuanVideo",
    ),
    "wan-2.1": Subject("wan", (9, 64)),
    "wan-2.2": Subject(
        "wan",
        (9, 64),
        {
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "latents_mean": [0.0] * 48,
            "latents_std": [1.0] * 48,
        },
    ),
    "causal-vae": Subject("causal_vae", (9, 64)),
    "dc-ae": Subject("dc_ae", (8, 64)),
}
CONV_CALLS = 16  # plain convolutions that are timed together: 155 GFLOP
KINDS = ("flops", "coding", "memory", "training", "lengths")


def plain_graphs_flops(name: str) -> dict[str, int]:
    """Return the FLOPs of encoding and decoding."""
    from mindspore import Tensor, nn

    from mg.models import layers

    class Encode(nn.Cell):
        def __init__(self, network: nn.Cell) -> None:
            super().__init__(auto_prefix=False)
            self.network = network

        def construct(self, video: Tensor) -> Tensor:
            return self.network.moments(video)[0]

    class Decode(nn.Cell):
        def __init__(self, network: nn.Cell) -> None:
            super().__init__(auto_prefix=False)
            self.network = network

        def construct(self, latent: Tensor) -> Tensor:
            return self.network.frames_from(latent)

    with layers.choose("Ascend"):
        network = network_of(name, has_values=False)
    video, latent = inputs(name, network)
    return {
        "encode": flops_of_graph(Encode(network), [video]),
        "decode": flops_of_graph(Decode(network), [latent]),
    }


def network_of(name: str, **options: Any) -> "Autoencoder":
    """Return a subject's network for inference, with random weights."""
    from mg.models.families import autoencoder_family

    subject = SUBJECTS[name]
    record = autoencoder_family(subject.family)
    return record.build(record.read_config(subject.fields), **options).set_train(False)


def inputs(name: str, network: "Autoencoder", num_frames: int | None = None) -> tuple:
    """Return a video and a latent of its shape, random."""
    from mindspore import Tensor

    frames, side = SUBJECTS[name].video
    frames = num_frames or frames
    rng = np.random.default_rng(0)
    video = rng.uniform(-1, 1, (1, 3, frames, side, side)).astype(np.float32)
    latent = rng.standard_normal((1, *network.spec.latent_shape(frames, side, side)))
    return Tensor(video), Tensor(latent.astype(np.float32))


def own_runs(name: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return functions that encode and decode with this project's network, compiled."""
    import mindspore as ms

    network = network_of(name)
    video, latent = inputs(name, network)

    def encode():
        ms.set_context(mode=ms.GRAPH_MODE)
        return network.moments(video)[0].asnumpy()

    def decode():
        ms.set_context(mode=ms.GRAPH_MODE)
        return network.frames_from(latent).asnumpy()

    return {"encode": encode, "decode": decode}


def mindone_runs(name: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return functions that encode and decode with mindone's network, line by line."""
    from mg.vaes.mindone_networks import build_network, pynative_mode

    subject = SUBJECTS[name]
    video, latent = inputs(name, network_of(name, has_values=False))
    with pynative_mode():
        network = build_network(subject.mindone, subject.fields)

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


def coding(name: str, repeats: int) -> dict[str, Any]:
    """Return seconds, compile time and memory of encoding and decoding, and the yardsticks."""
    own = own_runs(name)
    first, peak_memory = warmed_up(own)
    runs = dict(own)
    if SUBJECTS[name].mindone:
        other = mindone_runs(name)
        warmed_up(other)
        runs |= {f"mindone_{task}": run for task, run in other.items()}
    times = best_times({**runs, "conv": plain_convolutions(CONV_CALLS)}, repeats)
    seconds = {run: value["wall"] for run, value in times.items()}
    return {
        "seconds": seconds,
        "peak_memory_gb": peak_memory,
        "compile_seconds": {task: first[task] - seconds[task] for task in own},
    }


def training(name: str, repeats: int) -> dict[str, float]:
    """Return how many round trips a training step takes, its compile time and its memory."""
    import mindspore as ms

    from mg.training.autoencoder.autoencoder_config import LossSettings, OptimSettings
    from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
    from mg.training.step import TrainStep

    network = network_of(name)
    video, noise = inputs(name, network)
    loss = AutoencoderLoss(network, LossSettings(perceptual_loss_weight=0))
    step = TrainStep(loss, OptimSettings(ema_decay=None)).set_train()
    scalars = [ms.Tensor(value, ms.float32) for value in (1e-5, 1.0, 3e38)]
    indices = ms.Tensor(np.zeros(1, np.int32))

    def train():
        return step(*scalars, True, video, noise, indices)[0].asnumpy()

    def round_trip():
        return network(video).asnumpy()

    first, peak_memory = warmed_up({"step": train})
    times = best_times({"step": train, "round_trip": round_trip}, repeats)
    seconds = times["step"]["wall"]
    return {
        "step_seconds": seconds,
        "round_trips": seconds / times["round_trip"]["wall"],
        "peak_memory_gb": peak_memory,
        "compile_seconds": first["step"] - seconds,
    }


def lengths(name: str, repeats: int) -> dict[str, float] | None:
    """Return the seconds per frame of 33 frames as a multiple of those of 17, by pieces."""
    from mg.tiling.sizes import Tiling

    network = network_of(name, use_tile=True)
    if network.piece_frames is None:
        return None
    side = SUBJECTS[name].video[1]
    network.tiling = Tiling(height=side, width=side, overlap_pixels=0)

    def run_of(num_frames: int) -> Callable[[], np.ndarray]:
        video, _ = inputs(name, network, num_frames)
        return lambda: network.decode(network.posterior(video)[0]).asnumpy()

    times = best_times({str(n): run_of(n) for n in (17, 33)}, repeats)
    per_frame = {n: times[str(n)]["wall"] / n for n in (17, 33)}
    return {"per_frame_33_over_17": per_frame[33] / per_frame[17]}


def run_case(kind: str, name: str, repeats: int) -> dict[str, Any] | None:
    """Return one measurement, made in this process."""
    import mindspore as ms

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.runtime.launch_blocking()
    if kind == "flops":
        return plain_graphs_flops(name)
    if kind == "memory":
        return {"peak_memory_gb": warmed_up(mindone_runs(name))[1]}
    return {"coding": coding, "training": training, "lengths": lengths}[kind](name, repeats)


def with_ratios(result: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements of a subject with what follows from them."""
    seconds, flops = result["coding"]["seconds"], result["flops"]
    rate = CONV_CALLS * CONV_FLOPS / seconds["conv"] / 1e9
    both = seconds["encode"] + seconds["decode"]
    derived = {
        "conv3x3_gflop_per_second": rate,
        "share": {task: flops[task] / 1e9 / seconds[task] / rate for task in flops}
        | {"both": sum(flops.values()) / 1e9 / both / rate},
    }
    if "mindone_encode" in seconds:
        other = seconds["mindone_encode"] + seconds["mindone_decode"]
        derived["times_mindone"] = other / both
    return {**result, **derived}


def table(results: dict[str, dict]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| network | video | GFLOP (encode, decode) | encode s | decode s | share encode | "
        "decode | both | peak GB | compile s (encode, decode) | step, round trips | its peak GB | "
        "its compile s | 33 frames against 17, per frame | times mindone's speed | "
        "mindone's peak GB |",
        "|---" * 16 + "|",
    ]
    for name, r in results.items():
        frames, side = SUBJECTS[name].video
        case, share, flops = r["coding"], r["share"], r["flops"]
        seconds, compiled, train = case["seconds"], case["compile_seconds"], r["training"]
        cells = [
            name,
            f"{frames}x{side}x{side}",
            f"{flops['encode'] / 1e9:.0f}, {flops['decode'] / 1e9:.0f}",
            f"{seconds['encode']:.2f}",
            f"{seconds['decode']:.2f}",
            *(f"{share[task]:.2f}" for task in ("encode", "decode", "both")),
            f"{case['peak_memory_gb']:.2f}",
            f"{compiled['encode']:.0f}, {compiled['decode']:.0f}",
            f"{train['round_trips']:.2f}",
            f"{train['peak_memory_gb']:.2f}",
            f"{train['compile_seconds']:.0f}",
            f"{r['lengths']['per_frame_33_over_17']:.2f}" if r["lengths"] else "",
            f"{r['times_mindone']:.2f}" if "times_mindone" in r else "",
            f"{r['memory']['peak_memory_gb']:.2f}" if r["memory"] else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(name: str, repeats: int) -> dict[str, Any]:
    """Return the measurements of a subject, each made in a process of its own."""
    result = {}
    for kind in KINDS:
        if kind == "memory" and SUBJECTS[name].mindone is None:
            result[kind] = None
        else:
            result[kind], _ = measured_apart(__file__, f"{kind}:{name}", "--repeats", str(repeats))
    return with_ratios(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output_path", default="outputs/bench_vaes.json")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--in_process", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        kind, name = arguments.in_process.split(":")
        print_result(run_case(kind, name, arguments.repeats))
        return
    cores = run_on_cores(arguments.cores)
    results = {}
    for name in arguments.networks:
        results[name] = measured(name, arguments.repeats)
        report = {
            "machine": f"{platform.machine()}, {cores} of {os.cpu_count()} cores",
            "date": time.strftime("%Y-%m-%d"),
            "repeats": arguments.repeats,
            "results": results,
        }
        write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
