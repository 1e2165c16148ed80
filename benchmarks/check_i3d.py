"""Look at what the fetched I3D weights make of a bundled clip, and how fast.

    python tools/fetch_i3d.py
    python benchmarks/check_i3d.py

The dog clip, 16 frames of 256x256 from its centre, is class 145 of Kinetics-400 with 0.98.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.data.video import VideoReader
from mg.device import DeviceConfig, setup_device
from mg.metrics.i3d import i3d_features, load_i3d
from mg.metrics.preparation import prepare_frames
from mg.metrics.protocol import SizeSettings

CLIP = Path(__file__).resolve().parents[1] / "assets" / "clips" / "test" / "dog_ccbysa4.mp4"
NUM_TIMED = 5


def main() -> None:
    """Print the likeliest class of two pieces of the clip, and seconds per piece."""
    setup_device(DeviceConfig())
    network = load_i3d()
    with VideoReader(CLIP) as reader:
        frames = prepare_frames(reader.read(range(32)), SizeSettings())
    for start in (0, 16):
        logits = i3d_features(frames[start : start + 16], network)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        print(f"frames {start} to {start + 15}: class {shares.argmax()} with {shares.max():.3f}")
    times = []
    for _ in range(NUM_TIMED):
        begin = time.perf_counter()
        i3d_features(frames[:16], network)
        times.append(time.perf_counter() - begin)
    print(f"{np.median(times):.2f} s per 16 frames, median of {NUM_TIMED}")


if __name__ == "__main__":
    main()
