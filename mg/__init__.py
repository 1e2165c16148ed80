"""Movie Gen's Temporal Autoencoder and video model on MindSpore.

Importing this package loads no MindSpore: the rooms that only need numpy (`mg.data`,
`mg.weights`, `mg.metrics`) stay quick to import.
"""

import os

__version__ = "0.1.0"

# MindSpore 2.10's oneDNN (3.10) picks its unoptimised reference convolution on x86 CPUs with
# AVX-512: 0.4 instead of 60 GFLOP/s (benchmarks/bench_cpu_isa.py). AVX2 kernels avoid that.
# The variable is read when the first kernel is built; a value that the user set wins.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


def __getattr__(name: str):
    """Return `VideoVAE`, which loads MindSpore, when it is asked for."""
    if name == "VideoVAE":
        from mg.vaes import VideoVAE

        return VideoVAE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
