"""Rates of a 3x3 convolution and of a product of matrices by the instruction set oneDNN may use.

python benchmarks/bench_cpu_isa.py
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SETTINGS = ("SSE41", "AVX2", "AVX512_CORE", "ALL")
CHANNELS, SIZE = 128, 64  # of the convolution
ROWS, WIDTH, COLUMNS = 512, 1024, 4096  # of the product


def gflop_per_second(run: Callable, flops: float) -> float:
    """Return the best rate of four runs."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return flops / min(times) / 1e9


def rates() -> list[float]:
    """Return the rates of convolution and product in this process."""
    import mindspore as ms
    from mindspore import nn, ops

    ms.set_device("CPU")
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, pad_mode="pad", padding=1)
    image = ms.Tensor(np.zeros((1, CHANNELS, SIZE, SIZE), np.float32))
    product = ops.MatMul()
    x = ms.Tensor(np.ones((ROWS, WIDTH), np.float32))
    weight = ms.Tensor(np.ones((WIDTH, COLUMNS), np.float32))
    return [
        gflop_per_second(lambda: conv(image).asnumpy(), 2 * 9 * CHANNELS**2 * SIZE**2),
        gflop_per_second(lambda: product(x, weight).asnumpy(), 2 * ROWS * WIDTH * COLUMNS),
    ]


def main() -> None:
    if sys.argv[1:] == ["--in_process"]:
        print("RATES", *rates())
        return
    print("| setting | convolution, GFLOP/s | product, GFLOP/s |\n|---|---|---|")
    for setting in SETTINGS:
        done = subprocess.run(
            [sys.executable, __file__, "--in_process"],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": setting, "GLOG_v": "3"},
            capture_output=True,
            text=True,
            check=True,
        )
        line = next(line for line in done.stdout.splitlines() if line.startswith("RATES"))
        convolution, product = map(float, line.split()[1:])
        print(f"| {setting} | {convolution:.1f} | {product:.1f} |", flush=True)


if __name__ == "__main__":
    main()
