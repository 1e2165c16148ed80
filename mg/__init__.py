"""Video autoencoders and video generation on MindSpore.

    from mg import TemporalAutoencoder, TextToVideo, VideoVAE, export_to_video, load_video

Importing this package loads no MindSpore, and each of these names is imported when it is asked
for: the rooms that only need numpy (`mg.data`, `mg.weights`, `mg.metrics`) stay quick to import.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mg.models.tae.tae import TemporalAutoencoder
    from mg.pipelines.text_to_video import TextToVideo
    from mg.pipelines.video_to_video import VideoToVideo
    from mg.training.video_to_video.video_to_video_model import VideoToVideoDiffusion
    from mg.vaes import VideoVAE
    from mg.video_files import export_to_video, load_video

__all__ = [
    "TemporalAutoencoder",
    "TextToVideo",
    "VideoToVideo",
    "VideoToVideoDiffusion",
    "VideoVAE",
    "__version__",
    "export_to_video",
    "load_video",
]

__version__ = "0.1.0"

# MindSpore 2.10's oneDNN (3.10) picks its unoptimised reference convolution on x86 CPUs with
# AVX-512: 0.4 instead of 60 GFLOP/s (benchmarks/bench_cpu_isa.py). AVX2 kernels avoid that.
# The variable is read when the first kernel is built; a value that the user set wins.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


PLACES = {
    "TemporalAutoencoder": "mg.models.tae.tae",
    "TextToVideo": "mg.pipelines.text_to_video",
    "VideoToVideo": "mg.pipelines.video_to_video",
    "VideoToVideoDiffusion": "mg.training.video_to_video.video_to_video_model",
    "VideoVAE": "mg.vaes",
    "export_to_video": "mg.video_files",
    "load_video": "mg.video_files",
}


def __getattr__(name: str) -> Any:
    """Return one of `__all__`, imported when it is asked for."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
