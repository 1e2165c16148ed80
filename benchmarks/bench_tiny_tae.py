"""PSNR and SSIM of TAE weights on held-out clips against a baseline that needs no network.

    python benchmarks/bench_tiny_tae.py --output_path outputs/bench_tiny_tae.json
    python benchmarks/bench_tiny_tae.py --videos outputs/footage/held_out/hello_ccbysa4.mp4

Baseline with the same 8x8x8 reduction: the mean of 8 frames, scaled down by 8 over areas and up
again by bicubic interpolation (3 numbers per 8x8x8 block; the TAE's latent has 16).
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

from mg.cli import run_main
from mg.data.transforms import from_model_range, resize_and_crop, to_model_range
from mg.data.video import VideoReader
from mg.files import write_text
from mg.metrics.lpips import load_lpips, lpips
from mg.metrics.report import QualityReport

CLIPS = Path("assets/clips/test")


def mean_and_bicubic(frames: np.ndarray, factor: int = 8) -> np.ndarray:
    """Return what is left of uint8 (T, H, W, 3) after the baseline's reduction; same shape."""
    height, width = frames.shape[1:3]
    parts = []
    for start in range(0, len(frames), factor):
        group = frames[start : start + factor]
        mean = group.astype(np.float32).mean(axis=0)  # (H, W, 3)
        small = cv2.resize(mean, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        parts.append(np.repeat(large[None], len(group), axis=0))
    return np.clip(np.concatenate(parts).round(), 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt_path", default="assets/tae_tiny/tae_tiny.safetensors")
    parser.add_argument(
        "--videos",
        nargs="+",
        default=[str(CLIPS / "city_b_cc0.mp4"), str(CLIPS / "dog_ccbysa4.mp4")],
    )
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--num_frames", type=int, default=32)
    parser.add_argument(
        "--lpips", action="store_true", help="LPIPS (VGG16) too; tools/fetch_lpips.py fetches it"
    )
    parser.add_argument("--output_path", default="outputs/bench_tiny_tae.json")
    arguments = parser.parse_args()

    import mindspore as ms

    from mg.device import DeviceConfig, setup_device
    from mg.models.reading import read_autoencoder

    setup_device(DeviceConfig(device="CPU"))
    tae = read_autoencoder(arguments.ckpt_path).build()
    network = load_lpips("vgg") if arguments.lpips else None
    reports = {"TAE": QualityReport(), "baseline": QualityReport()}
    for path in arguments.videos:
        with VideoReader(path) as reader:
            num_frames = min(arguments.num_frames, reader.info.num_frames)
            frames = reader.read(range(num_frames))
        frames = resize_and_crop(frames, size=(arguments.image_size, arguments.image_size))
        video = ms.Tensor(to_model_range(frames)[None])
        results = {"TAE": from_model_range(tae(video).asnumpy()[0])}
        results["baseline"] = mean_and_bicubic(frames)
        for name, result in results.items():
            distances = None if network is None else lpips(frames, result, network=network)
            reports[name].add(path, frames, result, lpips=distances)
    summaries = {name: report.summary() for name, report in reports.items()}
    print(f"{'clip':<48}{'frames':>7}{'baseline dB':>13}{'TAE dB':>8}{'gain':>7}{'TAE SSIM':>10}")
    for ours, base in zip(summaries["TAE"]["clips"], summaries["baseline"]["clips"], strict=True):
        print(
            f"{ours['name']:<48}{ours['num_frames']:>7}{base['psnr']:>13.2f}{ours['psnr']:>8.2f}"
            f"{ours['psnr'] - base['psnr']:>7.2f}{ours['ssim']:>10.4f}"
            + (f"   LPIPS {ours['lpips']:.3f} (baseline {base['lpips']:.3f})" if network else "")
        )
    report = {
        "weights": arguments.ckpt_path,
        "image_size": arguments.image_size,
        "date": time.strftime("%Y-%m-%d"),
        **summaries,
    }
    write_text(Path(arguments.output_path), json.dumps(report, indent=1), overwrite=True)


if __name__ == "__main__":
    run_main(main)
