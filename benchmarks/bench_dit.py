"""Speed and memory of Movie Gen transformers as ratios to a plain product in the same process.

    python benchmarks/bench_dit.py --output_path outputs/bench_dit.json

Each case runs in its own process, so that peak memory is its own. The product is that of all tokens
with the first map of the feed-forward layer; it and the case are timed in turn, and the best of
each counts. Seconds are those of the processor, which other work on the machine hardly changes: the
kernels run on one thread, so on an idle machine the wall clock shows the same (it is in the JSON).
FLOPs are those of `mg.models.movie_gen.costs`.
"""

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mg.files import write_text
from mg.models.denoiser_config import DenoiserConfig
from mg.models.families import denoiser_family
from mg.models.movie_gen.config import PRESETS
from mg.models.movie_gen.costs import activation_bytes, forward_flops
from mg.models.movie_gen.parameter_shapes import num_parameters
from own_process import measured_apart, print_result

# Clips, latent frames, height, width: the demo's batch; 16 frames of 256x256 pixels.
SIZES = {"tiny": (32, 2, 8, 8), "100m": (1, 2, 32, 32)}
KINDS = ("forward", "train", "train_recompute", "sampling")
CASES = tuple(f"{kind}:{preset}" for preset in SIZES for kind in KINDS)
PRODUCTS_PER_RUN = 8
SAMPLING_STEPS = 2


def best_times(runs: Mapping[str, Callable], repeats: int) -> dict[str, dict[str, float]]:
    """Return the best processor and wall seconds of each run, made in turn after a warm-up.

    A run starts on a warm machine and with the others' memory taken; the first round, in which
    graphs are compiled, does not count.
    """
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, busy = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.process_time() - busy, time.perf_counter() - wall))
    return {
        name: {"seconds": min(busy for busy, _ in pairs), "wall": min(wall for _, wall in pairs)}
        for name, pairs in times.items()
    }


def num_tokens(size: tuple[int, int, int, int]) -> int:
    """Return the tokens of one clip; all presets here have patches of 1x2x2."""
    return size[1] * size[2] * size[3] // 4


def random_inputs(config: DenoiserConfig, size: tuple[int, int, int, int]) -> list[np.ndarray]:
    """Return a latent, times and texts of full length."""
    rng = np.random.default_rng(0)
    batch_size, *rest = size
    latent = rng.standard_normal((batch_size, config.latent_channels, *rest)).astype(np.float32)
    inputs = [latent, rng.random(batch_size).astype(np.float32)]
    for encoder in config.text_encoders:
        shape = (batch_size, encoder.max_tokens, encoder.width)
        inputs += [rng.standard_normal(shape).astype(np.float32), np.ones(shape[:2], bool)]
    return inputs


def product_run(rows: int, width: int, columns: int) -> Callable[[], None]:
    """Return what computes X W^T some times, X (rows, width), W (columns, width)."""
    from mindspore import Tensor, nn, ops

    class Product(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.matmul = ops.MatMul(transpose_b=True)

        def construct(self, x: Tensor, weight: Tensor) -> Tensor:
            return self.matmul(x, weight)

    rng = np.random.default_rng(0)
    x, weight = (
        Tensor(rng.standard_normal((n, width)).astype(np.float32)) for n in (rows, columns)
    )
    product = Product()

    def run() -> None:
        for _ in range(PRODUCTS_PER_RUN):
            product(x, weight).asnumpy()

    return run


def attention_run(config: DenoiserConfig, size: tuple[int, int, int, int]) -> Callable[[], None]:
    """Return what attends as one layer does, to the video and to the text."""
    from mindspore import Tensor, nn

    from mg.models.layers.tokens import AttentionMask, attend

    class Attend(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.attention_mask = AttentionMask()

        def construct(self, query: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
            mask = self.attention_mask(valid, query.shape[1], query.shape[2], False)
            to_video = attend(query, query, query, None, flash=False)
            return to_video, attend(query, text, text, mask, flash=False)

    rng = np.random.default_rng(0)
    text_length = sum(encoder.max_tokens for encoder in config.text_encoders)
    heads = (config.num_heads, config.head_dim)
    query, text = (
        Tensor(rng.standard_normal((size[0], n, *heads)).astype(np.float32))
        for n in (num_tokens(size), text_length)
    )
    valid, cell = Tensor(np.ones((size[0], text_length), bool)), Attend()
    return lambda: [result.asnumpy() for result in cell(query, text, valid)]


def train_run(network, inputs: list[np.ndarray]) -> Callable[[], None]:
    """Return what takes one training step, averaged weights included."""
    import mindspore as ms
    from mindspore import Tensor

    from mg.training.denoiser.flow_loss import FlowLoss
    from mg.training.settings import OptimSettings
    from mg.training.step import TrainStep

    step = TrainStep(FlowLoss(network), OptimSettings(ema_decay=0.999)).set_train()
    latent, t, *text = inputs
    batch = [Tensor(x) for x in (latent, np.ones_like(latent), latent, latent, t, *text)]
    scalars = [Tensor(value, ms.float32) for value in (1e-5, 1.0, 3e38)]  # rate, scale, norm
    return lambda: step(*scalars, True, *batch)[0].asnumpy()


def sampling_runs(network, inputs: list[np.ndarray]) -> dict[str, Callable[[], None]]:
    """Return what samples without guidance, with it in two passes, and in one batch."""
    from mindspore import Tensor

    from mg.flow.guidance import guided_velocity
    from mg.flow.sampler import sample
    from mg.flow.schedules import linear_schedule

    latent, _, *text = (Tensor(x) for x in inputs)

    def run_of(scale: float, one_batch: bool) -> Callable[[], None]:
        velocity = guided_velocity(network, text, text, scale=scale, one_batch=one_batch)
        return lambda: sample(velocity, latent, linear_schedule(SAMPLING_STEPS)).asnumpy()

    return {
        "no guidance": run_of(1.0, True),
        "two passes": run_of(7.5, False),
        "one batch": run_of(7.5, True),
    }


def run_case(kind: str, preset: str, repeats: int) -> dict:
    """Return the measurements of one case, made in this process."""
    import mindspore as ms

    from mg.pipelines.memory import peak_memory_gb

    config, size = PRESETS[preset], SIZES[preset]
    recompute = kind == "train_recompute"
    network = denoiser_family("movie_gen").build(config, recompute_every=int(recompute))
    inputs = random_inputs(config, size)
    rows = size[0] * num_tokens(size)
    runs = {"product": product_run(rows, config.dim, config.ffn_dim)}
    if kind == "sampling":
        network.set_train(False)
        runs |= sampling_runs(network, inputs)
    elif kind == "forward":
        tensors = [ms.Tensor(x) for x in inputs]
        runs |= {"forward": lambda: network(*tensors).asnumpy()}
    else:
        runs |= {kind: train_run(network, inputs)}
    if kind == "forward":
        runs["attention"] = attention_run(config, size)
    times = best_times(runs, repeats)
    product_flops = PRODUCTS_PER_RUN * 2 * rows * config.dim * config.ffn_dim
    return {
        "kind": kind,
        "preset": preset,
        "size": list(size),
        "times": times,
        "product_gflop_per_second": product_flops / times["product"]["seconds"] / 1e9,
        "peak_memory_gb": peak_memory_gb(),
    }


def counted_pool_gb(kind: str, preset: str) -> float | None:
    """Return what MindSpore's pool should hold at the peak of a training step, as counted.

    With recomputation, which leaves little to free, the gradients of all parameters come on top of
    the activations; without it these are freed as fast as gradients come.
    """
    if not kind.startswith("train"):
        return None
    config, size = PRESETS[preset], SIZES[preset]
    recompute = kind == "train_recompute"
    kept = activation_bytes(
        config, num_tokens(size), batch_size=size[0], half=False, flash=False
    ).peak(recompute=recompute)
    gradients = 4 * num_parameters(config)
    return (kept + gradients * recompute) / 1e9


def with_ratios(result: dict, pool_gb: float | None) -> dict:
    """Return a case's measurements with what follows from them.

    Args:
        result: of `run_case`.
        pool_gb: peak of MindSpore's memory pool; None where it is not known.
    """
    kind, preset, times = result["kind"], result["preset"], result["times"]
    config, size = PRESETS[preset], SIZES[preset]
    flops = forward_flops(config, num_tokens(size), batch_size=size[0])
    derived = {"pool_gb": pool_gb, "counted_pool_gb": counted_pool_gb(kind, preset)}
    if kind == "sampling":
        one_pass = times["no guidance"]["seconds"]
        derived["x_one_pass"] = {
            name: times[name]["seconds"] / one_pass for name in times if name != "product"
        }
        return {**result, **derived}
    # The backward pass has two products for each of the forward pass.
    passes = {"forward": 1, "train": 3, "train_recompute": 4}[kind]
    rate = passes * flops.total / times[kind]["seconds"] / 1e9
    derived["gflop"] = passes * flops.total / 1e9
    derived["gflop_per_second"] = rate
    derived["ratio_to_product"] = rate / result["product_gflop_per_second"]
    if "attention" in times:
        attention = config.num_layers * times["attention"]["seconds"]
        derived["attention_share"] = attention / times[kind]["seconds"]
        derived["attention_share_of_flops"] = flops.attention_share
    return {**result, **derived}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def tables(results: list[dict]) -> str:
    """Return the results as two tables."""
    single = [
        [
            r["preset"],
            r["kind"].replace("_", ", "),
            number(r["gflop"], 0),
            number(r["times"][r["kind"]]["seconds"], 3),
            number(r["times"][r["kind"]]["wall"], 3),
            number(r["gflop_per_second"], 1),
            number(r["product_gflop_per_second"], 1),
            number(r["ratio_to_product"], 2),
            number(r.get("attention_share"), 2),
            number(r["pool_gb"], 2),
            number(r["counted_pool_gb"], 2),
            number(r["peak_memory_gb"], 2),
        ]
        for r in results
        if r["kind"] != "sampling"
    ]
    header = ["preset", "case", "GFLOP", "s", "wall s", "GFLOP/s", "product GFLOP/s", "ratio"]
    header += ["attention's share", "pool GB", "as counted", "process GB"]
    sampled = [
        [
            r["preset"],
            name,
            *(number(r["times"][name][clock] / SAMPLING_STEPS, 3) for clock in ("seconds", "wall")),
            number(ratio, 2),
        ]
        for r in results
        if r["kind"] == "sampling"
        for name, ratio in r["x_one_pass"].items()
    ]
    sampling_header = ["preset", "sampling", "s per Euler step", "wall s", "x no guidance"]
    return markdown(header, single) + "\n\n" + markdown(sampling_header, sampled)


def measured(case: str, repeats: int) -> dict:
    """Return the measurements of a case, made in a process of its own."""
    statistics = {"MS_DEV_RUNTIME_CONF": "memory_statistics:True"}
    result, output = measured_apart(
        __file__, case, "--repeats", str(repeats), environment=statistics
    )
    # MindSpore prints it when the process ends, in MiB.
    peaks = re.findall(r"mem pool info:.*?peak used mem:(\d+)M", output)
    pool_gb = max(map(int, peaks)) * 2**20 / 1e9 if peaks else None
    return with_ratios(result, pool_gb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output_path", default="outputs/bench_dit.json")
    parser.add_argument("--in_process", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        import mindspore as ms

        ms.set_device("CPU")
        ms.set_context(mode=ms.GRAPH_MODE)
        kind, preset = arguments.in_process.split(":")
        print_result(run_case(kind, preset, arguments.repeats))
        return
    began, results = time.perf_counter(), []
    for case in arguments.cases:
        results.append(measured(case, arguments.repeats))
        print(f"{case} measured, {time.perf_counter() - began:.0f} s so far", flush=True)
    report = {
        "sizes": SIZES,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "results": results,
    }
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)
    print("\n" + tables(results))


if __name__ == "__main__":
    main()
