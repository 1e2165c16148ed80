"""See whether a generator learns faster on latents of the local-correlation regulariser.

    python tools/make_sample_videos.py --output_folder outputs/shapes --num_videos 2000
    python tools/make_sample_videos.py --output_folder outputs/shapes_held_out --split held_out \
        --num_videos 96
    python benchmarks/bench_latent_regulariser.py --output_folder outputs/latent_regulariser

For each of three seeds: the TAE of configs/tae/train/shapes.yaml is trained without and with
`loss.lcr_weight`, both sets of clips are encoded, and a generator is trained on the latents for the
same steps. Written are results.json and table.md: the autoencoder's held-out PSNR, and the
generator's held-out flow loss at each validation. The generator sees latents of mean 0 and
standard deviation 1 in both arms, or losses could not be compared. What is finished is not run
again. About 40 minutes per run on one core, six runs.

    python tools/make_sample_videos.py --output_folder outputs/shapes_small --num_videos 320
    python tools/make_sample_videos.py --output_folder outputs/shapes_held_out --split held_out \
        --num_videos 96
    python benchmarks/bench_latent_regulariser.py --small --shapes outputs/shapes_small

takes smaller networks and fewer steps: about 5 minutes per run.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.data.latent_files import list_latent_files, read_latent
from mg.files import write_text
from mg.metrics.latents import LatentReport
from mg.training.run.run_log import read_log

ROOT = Path(__file__).resolve().parents[1]
# What differs from the shipped configs, by default and with --small.
LARGE = {"tae_steps": 300, "generator_steps": 1000, "interval": 100, "tae": (), "generator": ()}
SMALL = {
    "tae_steps": 100,
    "generator_steps": 300,
    "interval": 50,
    "tae": ("--batch_size=1", "--optim.warmup_steps=10"),
    "generator": (
        *("--batch_size=16", "--optim.warmup_steps=30", "--model.num_layers=3"),
        *("--model.dim=128", "--model.ffn_dim=256", "--optim.ema_decay=0.98"),
    ),
}
ARMS = {"without": 0.0, "with": 0.1}
SEEDS = (0, 1, 2)


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_folder", type=Path, default=Path("outputs/latent_regulariser"))
    parser.add_argument("--shapes", type=Path, default=Path("outputs/shapes"))
    parser.add_argument("--held_out", type=Path, default=Path("outputs/shapes_held_out"))
    parser.add_argument("--small", action="store_true", help="smaller networks, fewer steps")
    parser.add_argument("--tae_steps", type=int)
    parser.add_argument("--generator_steps", type=int)
    parser.add_argument("--interval", type=int, help="steps between validations")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    for name, value in (SMALL if options.small else LARGE).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    results = {}
    for seed in options.seeds:
        for arm in ARMS:
            folder = options.output_folder / f"{arm}_{seed}"
            train_autoencoder(folder, arm, seed, options)
            encode(folder, options)
            train_generator(folder, seed, options)
            results[f"{arm} {seed}"] = result_of(folder)
            text = json.dumps(results, indent=1)
            write_text(options.output_folder / "results.json", text, overwrite=True)
    table = table_of(results, options.seeds)
    write_text(options.output_folder / "table.md", table, overwrite=True)
    print(table)


def run(*command: object) -> None:
    """Run a script of the project; its failure ends the benchmark."""
    print("+", *command, flush=True)
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True)


def weights_of(folder: Path) -> Path:
    return folder.resolve() / "tae" / "tae.safetensors"


def train_autoencoder(folder: Path, arm: str, seed: int, options: argparse.Namespace) -> None:
    """Train the TAE of one arm, or go on with it."""
    if weights_of(folder).exists():
        return
    run(
        *("scripts/train_tae.py", "--config", "configs/tae/train/shapes.yaml"),
        f"--output_path={folder.resolve() / 'tae'}",
        f"--video_folder={options.shapes.resolve()}",
        f"--validation.video_folder={options.held_out.resolve()}",
        f"--validation.interval={options.tae_steps}",
        *(f"--steps={options.tae_steps}", f"--seed={seed}", f"--loss.lcr_weight={ARMS[arm]}"),
        f"--resume={'true' if (folder / 'tae' / 'checkpoints').exists() else 'false'}",
        *options.tae,
    )


def encode(folder: Path, options: argparse.Namespace) -> None:
    """Encode both sets of clips; clips that are encoded already are passed over."""
    for name, videos in (("latents", options.shapes), ("held_out", options.held_out)):
        run(
            *("scripts/encode.py", "--ckpt_path", weights_of(folder)),
            *("--input", videos.resolve(), "--output_path", folder.resolve() / name),
        )


def train_generator(folder: Path, seed: int, options: argparse.Namespace) -> None:
    """Train the generator on the latents of one arm, or go on with it."""
    output = folder.resolve() / "generator"
    if result_of(folder).get("steps", [0])[-1:] == [options.generator_steps]:
        return
    run(
        *("scripts/train.py", "--config", "configs/movie_gen/train/demo.yaml"),
        *(f"--output_path={output}", f"--tae={weights_of(folder)}", f"--seed={seed}"),
        f"--csv_path={options.shapes.resolve() / 'captions.csv'}",
        f"--latent_folder={folder.resolve() / 'latents'}",
        f"--validation.csv_path={options.held_out.resolve() / 'captions.csv'}",
        f"--validation.latent_folder={folder.resolve() / 'held_out'}",
        f"--validation.interval={options.interval}",
        *(f"--steps={options.generator_steps}", f"--samples.interval={options.generator_steps}"),
        "--max_minutes=null",
        *scaling_of(folder / "latents"),
        *options.generator,
        f"--resume={'true' if (output / 'checkpoints').exists() else 'false'}",
    )


def scaling_of(latents: Path) -> tuple[str, str]:
    """Return the flags that give the latents of a folder mean 0 and standard deviation 1."""
    report = LatentReport()
    for name, path in list_latent_files(latents).items():
        report.add(name, read_latent(path).mean)
    mean, std = (report.summary()["all"][name] for name in ("mean", "std"))
    return f"--data.scaling_factor={1 / std:.6f}", f"--data.shift_factor={-mean / std:.6f}"


def result_of(folder: Path) -> dict:
    """Return what the runs of one arm have found so far."""
    result = {}
    path = folder / "tae" / "validation.jsonl"
    if path.exists():
        result["psnr"] = read_log(path)[-1]["psnr"]
    path = folder / "generator" / "validation.jsonl"
    if path.exists():
        entries = read_log(path)
        result["steps"] = [entry["step"] for entry in entries]
        result["flow_loss"] = [entry["flow_loss"] for entry in entries]
    return result


def table_of(results: dict, seeds: list[int]) -> str:
    """Return a Markdown table: a line per run."""
    steps = results[f"without {seeds[0]}"]["steps"]
    lines = [f"| run | TAE PSNR | {' | '.join(f'flow loss, step {step}' for step in steps)} |"]
    lines.append("|---" * (2 + len(steps)) + "|")
    for name, result in sorted(results.items()):
        losses = " | ".join(f"{loss:.4f}" for loss in result["flow_loss"])
        lines.append(f"| {name} | {result['psnr']:.2f} | {losses} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
