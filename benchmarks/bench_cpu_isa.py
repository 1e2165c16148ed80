"""Rate of a 3x3 convolution by the instruction set that oneDNN may use.

python benchmarks/bench_cpu_isa.py
"""

import os
import subprocess
import sys
import time

SETTINGS = ("SSE41", "AVX2", "AVX512_CORE", "ALL")
CHANNELS, SIZE = 128, 64


def gflop_per_second() -> float:
    import mindspore as ms
    import numpy as np
    from mindspore import nn

    ms.set_device("CPU")
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, pad_mode="pad", padding=1)
    x = ms.Tensor(np.zeros((1, CHANNELS, SIZE, SIZE), np.float32))
    times = []
    for _ in range(4):
        began = time.perf_counter()
        conv(x).asnumpy()
        times.append(time.perf_counter() - began)
    return 2 * 9 * CHANNELS**2 * SIZE**2 / min(times) / 1e9


def main() -> None:
    if sys.argv[1:] == ["--in_process"]:
        print(f"RATE {gflop_per_second()}")
        return
    print(f"{'ONEDNN_MAX_CPU_ISA':<20}{'GFLOP/s':>8}")
    for setting in SETTINGS:
        done = subprocess.run(
            [sys.executable, __file__, "--in_process"],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": setting, "GLOG_v": "3"},
            capture_output=True,
            text=True,
            check=True,
        )
        rate = next(line for line in done.stdout.splitlines() if line.startswith("RATE"))
        print(f"{setting:<20}{float(rate.split()[1]):>8.1f}")


if __name__ == "__main__":
    main()
