"""Speed of a forward pass of every denoiser of about 100 M parameters, as a ratio to a product.

    python benchmarks/bench_denoisers.py --output_path outputs/bench_denoisers.json

Each network runs in a process of its own, where it (compiled), a plain product of its tokens with
the first map of its feed-forward layer and, for the families that mindone has, mindone's network
with the stand-ins for operators that CPUs lack (line by line) are timed turn about; the best of
each counts. One clip of 2 latent frames of 32x32. FLOPs are those of the graph of the plain form of
the layers (`graph_flops.py`).
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench_dit import PRODUCTS_PER_RUN, best_times, markdown, product_run
from bench_tae import run_on_cores
from graph_flops import flops_of_graph
from mg.files import write_text
from mg.models.families import DENOISERS, denoiser_family
from own_process import measured_apart, print_result

SIZE = (2, 32, 32)  # latent frames, height, width
NUM_TOKENS = 2 * 16 * 16  # of patches of 1x2x2
# Width and inner width of the feed-forward layers; of the U-Net, of its widest level.
PRODUCTS = {
    "movie_gen": lambda config: (config.dim, config.ffn_dim),
    "cogvideox": lambda config: (config.dim, 4 * config.dim),
    "hunyuan": lambda config: (config.dim, 4 * config.dim),
    "unet": lambda config: (config.channels * config.channel_mult[-1],) * 2,
}
MINDONE = {"cogvideox": "CogVideoXTransformer3DModel", "hunyuan": "HunyuanVideoTransformer3DModel"}


def network_and_inputs(family: str) -> tuple[Any, list]:
    """Return the network with random weights, and a latent, times and texts of full length."""
    from mindspore import Tensor

    record = denoiser_family(family)
    config = record.read_config({"preset": "100m"})
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((1, config.latent_channels, *SIZE)).astype(np.float32)
    inputs = [latent, rng.random(1).astype(np.float32)]
    for encoder in config.text_encoders:
        shape = (1, encoder.max_tokens, encoder.width)
        inputs += [rng.standard_normal(shape).astype(np.float32), np.ones(shape[:2], bool)]
    network = record.build(config).set_train(False)
    return network, [Tensor(x) for x in inputs]


def mindone_run(family: str, network: Any, inputs: list) -> Callable[[], np.ndarray]:
    """Return what runs mindone's network of the same config once, line by line."""
    import mindone.diffusers
    from mindspore import Tensor

    from mg.cpu_stand_ins import install_stand_ins
    from mg.vaes.mindone_networks import pynative_mode

    fields = network.config.to_dict()
    install_stand_ins()
    with pynative_mode():
        other = getattr(mindone.diffusers, MINDONE[family]).from_config(fields).set_train(False)
    latent, t, text, mask, *rest = inputs
    times = Tensor((1000 * t.asnumpy()).astype(np.int64))
    if family == "cogvideox":
        given = {"hidden_states": latent.transpose(0, 2, 1, 3, 4), "encoder_hidden_states": text}
    else:
        given = {
            "hidden_states": latent,
            "encoder_hidden_states": text,
            "encoder_attention_mask": mask,
            "pooled_projections": rest[0][:, 0],
            "guidance": Tensor(np.full(1, 6000.0, np.float32)),
        }

    def run() -> np.ndarray:
        with pynative_mode():
            return other(timestep=times, return_dict=False, **given)[0].asnumpy()

    return run


def run_case(family: str, repeats: int) -> dict[str, Any]:
    """Return the measurements of a family, made in this process."""
    import mindspore as ms

    from mg.models import layers

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.runtime.launch_blocking()
    with layers.choose("Ascend"):
        plain, inputs = network_and_inputs(family)
    flops = flops_of_graph(plain, inputs)
    network, inputs = network_and_inputs(family)

    def forward() -> np.ndarray:
        ms.set_context(mode=ms.GRAPH_MODE)
        return network(*inputs).asnumpy()

    width, inner = PRODUCTS[family](network.config)
    runs = {"forward": forward, "product": product_run(NUM_TOKENS, width, inner)}
    if family in MINDONE:
        runs["mindone"] = mindone_run(family, network, inputs)
    times = {name: t["wall"] for name, t in best_times(runs, repeats).items()}
    product = PRODUCTS_PER_RUN * 2 * NUM_TOKENS * width * inner / times["product"] / 1e9
    rate = flops / times["forward"] / 1e9
    return {
        "parameters": sum(p.size for p in network.get_parameters()),
        "gflop": flops / 1e9,
        "seconds": times,
        "gflop_per_second": rate,
        "product_gflop_per_second": product,
        "ratio_to_product": rate / product,
        "times_mindone": times["mindone"] / times["forward"] if "mindone" in times else None,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    header = ["family", "parameters", "GFLOP", "s", "GFLOP/s", "product GFLOP/s", "ratio"]
    rows = [
        [
            family,
            f"{r['parameters'] / 1e6:.0f} M",
            f"{r['gflop']:.0f}",
            f"{r['seconds']['forward']:.3f}",
            f"{r['gflop_per_second']:.1f}",
            f"{r['product_gflop_per_second']:.1f}",
            f"{r['ratio_to_product']:.2f}",
            f"{r['times_mindone']:.2f}" if r["times_mindone"] else "",
        ]
        for family, r in results.items()
    ]
    return markdown([*header, "times mindone's speed"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=DENOISERS, default=list(DENOISERS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output_path", default="outputs/bench_denoisers.json")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--in_process", choices=DENOISERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        print_result(run_case(arguments.in_process, arguments.repeats))
        return
    cores = run_on_cores(arguments.cores)
    results = {
        family: measured_apart(__file__, family, "--repeats", str(arguments.repeats))[0]
        for family in arguments.families
    }
    report = {
        "machine": f"{platform.machine()}, {cores} of {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "repeats": arguments.repeats,
        "results": results,
    }
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)
    print(table(results))


if __name__ == "__main__":
    main()
