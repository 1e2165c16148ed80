"""Hours to train an autoencoder and a generator on 10, 1,000 and 100,000 clips, estimated.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/bench_own_videos.py --sizes 64

A few steps of each kind are run on the bundled clips, on one core, and their processor time is
counted, which other work on the machine changes less than the time on the clock. Then

    hours = clips x passes over them x core-seconds per clip / 3600

Sizes of `--scale_to` are not measured: their core-seconds are those of the largest size that is,
times the ratio of pixels, which attention makes more in truth. The passes are a choice (`PASSES`),
not a rule: few clips are seen often, many of them seldom. Clips have 16 frames; decoding them is
included, compiling, validating and checkpoints are not.
"""

import argparse
import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from mg.cli import config_of_mapping, run_main
from mg.data.buckets import Bucket
from mg.data.manifest import build_manifest
from mg.files import write_text
from mg.yaml_file import read_yaml

CLIPS, CAPTIONS = "assets/clips", "assets/clips/train.csv"
TAE = "assets/tae_tiny/tae_tiny.safetensors"
TAE_CONFIG = "configs/tae/train/demo.yaml"
GENERATOR_CONFIG = "configs/movie_gen/train/own_clips.yaml"
NUM_FRAMES = 16
NUM_WARM = 2
# Over so many clips: passes of the autoencoder, and of the generator.
PASSES = {10: (300, 800), 1_000: (20, 40), 100_000: (1, 4)}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Core-seconds per clip of one size: a step of the autoencoder, encoding, a generator's."""

    size: int
    autoencoder: float
    encoding: float
    generator: float

    def scaled(self, size: int) -> "Cost":
        """Return the same for another size, by its pixels."""
        ratio = (size / self.size) ** 2
        numbers = (self.autoencoder, self.encoding, self.generator)
        return Cost(size, *(ratio * number for number in numbers))

    def hours(self, num_clips: int) -> tuple[float, float, float]:
        """Return the hours of one core that so many clips take, of each of the three."""
        autoencoder, generator = PASSES[num_clips]
        seconds = self.autoencoder * autoencoder, self.encoding, self.generator * generator
        return tuple(num_clips * each / 3600 for each in seconds)


def table(costs: Sequence[Cost]) -> str:
    """Return the hours as Markdown."""
    lines = [
        "| clips | size | passes | autoencoder h | encoding h | generator h |",
        "|---|---|---|---|---|---|",
    ]
    for num_clips, passes in PASSES.items():
        for cost in costs:
            hours = " | ".join(rounded(each) for each in cost.hours(num_clips))
            size = f"16x{cost.size}x{cost.size}"
            lines.append(f"| {num_clips:,} | {size} | {passes[0]}, {passes[1]} | {hours} |")
    return "\n".join(lines)


def rounded(hours: float) -> str:
    """Return hours with two digits that count."""
    return f"{hours:.2g}" if hours < 99.5 else f"{float(f'{hours:.2g}'):,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--steps", type=int, default=4, help="that are timed, of each kind")
    parser.add_argument(
        "--scale_to", type=int, nargs="*", default=[128, 256], help="sizes that are computed"
    )
    parser.add_argument("--output_path", default="outputs/bench_own_videos.json")
    parser.add_argument(
        "--core_seconds",
        type=float,
        nargs=3,
        metavar=("AUTOENCODER", "ENCODING", "GENERATOR"),
        help="per clip of the first size, from logs of your own; nothing is measured then",
    )
    options = parser.parse_args()
    if options.core_seconds is not None:
        costs = [Cost(options.sizes[0], *options.core_seconds)]
    else:
        costs = write_measured(options)
    costs += [costs[-1].scaled(size) for size in options.scale_to if size > costs[-1].size]
    print(f"\n{table(costs)}")


def write_measured(options: argparse.Namespace) -> list[Cost]:
    """Return what the sizes cost, measured; it is written too."""
    import mindspore as ms

    from mg.device import DeviceConfig, setup_device

    setup_device(DeviceConfig(device="CPU"))
    costs = []
    for size in sorted(options.sizes):
        with tempfile.TemporaryDirectory() as folder:
            costs.append(measure(size, options.steps, Path(folder)))
    about = {
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "mindspore": ms.__version__,
        "date": date.today().isoformat(),
        "core_seconds_per_clip": [dataclasses.asdict(cost) for cost in costs],
    }
    write_text(options.output_path, json.dumps(about, indent=2) + "\n", overwrite=True)
    return costs


def measure(size: int, num_steps: int, folder: Path) -> Cost:
    """Return the core-seconds per clip of a size, a few steps of each kind measured."""
    from mg.parallel.ranks import ONE_RANK
    from mg.pipelines.autoencoder import AutoencoderConfig, load_autoencoder
    from mg.pipelines.encode import encode_videos
    from mg.training.autoencoder.autoencoder_config import TrainVAEConfig
    from mg.training.autoencoder.autoencoder_task import AutoencoderTask
    from mg.training.denoiser.denoiser_config import TrainDenoiserConfig
    from mg.training.denoiser.denoiser_task import DenoiserTask

    settings = read_yaml(TAE_CONFIG)
    settings["data"] |= {"size": size, "short_side_range": [size, size], "num_workers": 0}
    settings |= {"validation": {}, "device": "CPU", "output_path": str(folder / "tae")}
    settings["model"] = {"family": "tae"}
    tae_config = config_of_mapping(TrainVAEConfig, settings)
    of_autoencoder = seconds_per_clip(AutoencoderTask(tae_config, ONE_RANK), tae_config, num_steps)

    tae = load_autoencoder(AutoencoderConfig(ckpt_path=TAE))
    bucket = [Bucket(NUM_FRAMES, size, size)]
    manifest = build_manifest(csv_path=CAPTIONS, video_folder=CLIPS)

    def encode(name: str) -> None:
        encode_videos(tae, manifest, folder / name, buckets=bucket)

    encode("warm")
    of_encoding = core_seconds(lambda: encode("latents")) / len(manifest.clips)
    print(f"{size} px: autoencoder {of_autoencoder:.3f}, encoding {of_encoding:.3f}", flush=True)

    settings = read_yaml(GENERATOR_CONFIG) | {
        "csv_path": CAPTIONS,
        "latent_folder": str(folder / "latents"),
        "tae": TAE,
        "device": "CPU",
        "output_path": str(folder / "generator"),
    }
    config = config_of_mapping(TrainDenoiserConfig, settings)
    of_generator = seconds_per_clip(DenoiserTask(config, ONE_RANK), config, num_steps)
    print(f"{size} px: generator {of_generator:.4f} core-seconds per clip", flush=True)
    return Cost(size, of_autoencoder, of_encoding, of_generator)


def seconds_per_clip(task, config, num_steps: int) -> float:
    """Return the core-seconds of a training step over its clips, after some that compile."""
    from mg.training.task import Controls

    task.enter(task.stages[0])

    def run(steps: range) -> None:
        for step in steps:
            batch = task.dataset.batch(step, config.batch_size)
            task.run_batch(step, batch, Controls(step, 1e-5, 1.0, 1.0), is_last=True)

    run(range(NUM_WARM))
    return core_seconds(lambda: run(range(NUM_WARM, NUM_WARM + num_steps))) / (
        num_steps * config.batch_size
    )


def core_seconds(function: Callable[[], None]) -> float:
    """Return the processor time of this process that a call takes."""
    began = time.process_time()
    function()
    return time.process_time() - began


if __name__ == "__main__":
    run_main(main)
