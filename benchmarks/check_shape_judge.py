"""How often the judge of moving shapes is right about clips whose content is known.

    python benchmarks/check_shape_judge.py
    python benchmarks/check_shape_judge.py --split changing
    python benchmarks/check_shape_judge.py --tae tae.safetensors

With `--tae` it judges what an autoencoder makes of the held-out clips: PSNR, how evenly the shapes
move (R^2 of a straight line through their places) and how far, compared with the clips themselves.
No generator on its latents can be judged better. Exits with 1 if the judge is right about less than
99 % of an attribute in a case without autoencoder.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mg.data.transforms import from_model_range, to_model_range
from mg.data.video import VideoReader
from mg.data.video_writer import write_video
from mg.metrics.psnr import psnr
from mg.shapes.clips import ALL_COLOURS, COLOURS, SPLITS, synthetic_clip
from mg.shapes.judge import ATTRIBUTES, judge_clip

TARGET = 0.99
NUM_HELD_OUT = 48


def through_h264(frames: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Return frames as a player shows them: lossy, with colours at half the resolution."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, fps=16)
        with VideoReader(path) as reader:
            return reader.read(range(len(frames)))


def blurred(frames: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in frames])


def noisy(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0, 40, frames.shape)
    return np.clip(np.rint(frames + noise), 0, 255).astype(np.uint8)


CASES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "clean": lambda frames, _: frames,
    "through H.264": through_h264,
    "blurred by 3 pixels": blurred,
    "noise of 40 levels": noisy,
}


def accuracy(case: str, size: int, num_clips: int, split: str) -> dict[str, float]:
    """Return for each attribute the share of clips about which the judge is right."""
    right = np.zeros(len(ATTRIBUTES))
    colours = ALL_COLOURS if split.startswith("new_colour") else COLOURS
    for index in range(num_clips):
        wanted, frames = synthetic_clip(index, seed=11, split=split, size=size)
        seen = judge_clip(CASES[case](frames, np.random.default_rng(index)), colours)
        right += list(seen.agreement(wanted).values())
    return dict(zip(ATTRIBUTES, right / num_clips, strict=True))


def reconstructed(path: str) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return the same of a TAE's reconstructions of held-out clips, and what was measured of each.

    That is its mean PSNR (dB), the evenness of its motion, and its travel as a share of the clip's.
    """
    import mindspore as ms

    from mg.device import DeviceConfig, setup_device
    from mg.models.reading import read_autoencoder

    setup_device(DeviceConfig(device="CPU"))
    tae = read_autoencoder(path).build()
    right = np.zeros(len(ATTRIBUTES))
    measured = {"psnr": [], "evenness": [], "travel": []}
    for index in range(NUM_HELD_OUT):
        wanted, frames = synthetic_clip(index, split="held_out")
        video = ms.Tensor(to_model_range(frames)[np.newaxis])
        result = from_model_range(tae(video).asnumpy()[0])
        seen = judge_clip(result)
        right += list(seen.agreement(wanted).values())
        measured["psnr"].append(float(psnr(frames, result).mean()))
        measured["evenness"].append(seen.path.evenness)
        measured["travel"].append(seen.path.travel / judge_clip(frames).path.travel)
    return dict(zip(ATTRIBUTES, right / NUM_HELD_OUT, strict=True)), measured


def main() -> int:
    """Return the exit code: 0 if the judge is right often enough."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_clips", type=int, default=400, help="of each case")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96], help="side in pixels")
    parser.add_argument("--split", choices=SPLITS, default="both", help="which clips to judge")
    parser.add_argument("--tae", help="weights of a TAE whose reconstructions to judge instead")
    flags = parser.parse_args()
    if flags.tae is not None:
        shares, measured = reconstructed(flags.tae)
        print(_line("right", shares))
        for name, values in measured.items():
            low, high = min(values), max(values)
            print(f"{name}: mean {np.mean(values):.3f}, from {low:.3f} to {high:.3f}")
        return 0
    worst = 1.0
    for size in flags.sizes:
        for case in CASES:
            shares = accuracy(case, size, flags.num_clips, flags.split)
            worst = min(worst, *shares.values())
            print(_line(f"{case}, {size} pixels", shares), flush=True)
    return 0 if worst >= TARGET else 1


def _line(name: str, shares: dict[str, float]) -> str:
    return f"{name}: " + ", ".join(f"{key} {100 * share:.1f} %" for key, share in shares.items())


if __name__ == "__main__":
    sys.exit(main())
