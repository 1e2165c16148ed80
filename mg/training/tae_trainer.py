"""The training run of the TAE: data in, steps, checkpoints, validation, final weights."""

import dataclasses
import fnmatch
import logging
import math
import time
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mg.cli import save_config
from mg.data.clips import Batch, ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest
from mg.losses.perceptual import PerceptualLoss, draw_frame_indices
from mg.metrics.lpips import load_lpips
from mg.models.tae.tae import TemporalAutoencoder
from mg.training.checkpoint import (
    Progress,
    load_newest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    save_final_weights,
)
from mg.training.config import DataSettings, TrainTAEConfig
from mg.training.run_log import RunLog, read_log, save_curves
from mg.training.schedule import learning_rate
from mg.training.step import TrainStep
from mg.training.tae_loss import LOSS_TERMS, TAELoss
from mg.training.validation import Validation, averaged_weights

__all__ = ["TAETrainer"]

logger = logging.getLogger("mg")

NOISE_STREAM = 3  # random streams 0..2 belong to the data
MAX_BAD_STEPS = 20  # in a row, before the run gives up
LOSS_SCALE_GROWTH_STEPS = 2000  # good steps after which the loss scale doubles


class TAETrainer:
    """One training run; `run()` does all of it.

    Args:
        config: every setting.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
        FileExistsError: `output_path` holds another run.
    """

    def __init__(self, config: TrainTAEConfig) -> None:
        self.config = config
        self.output = Path(config.output_path)
        self._refuse_other_run()
        self.dataset = _build_dataset(config)
        has_validation = config.validation.csv_path or config.validation.video_folder
        self.validation = Validation(config.validation) if has_validation else None
        self.step_cell = self._build_step()
        self.progress = Progress(step=0, loss_scale=self._first_loss_scale())
        if config.resume:
            self.progress = load_newest_checkpoint(
                self.output / "checkpoints", self.tae, self.step_cell.state()
            )
            logger.info("Resuming after step %d.", self.progress.step)
        self.num_skipped = 0
        self.num_bad_in_row = 0
        self.validations = [
            entry
            for entry in read_log(self.output / "validation.jsonl")
            if config.resume and entry["step"] < self.progress.step
        ]

    def _refuse_other_run(self) -> None:
        holds_run = (self.output / "config.yaml").exists()
        if holds_run and not (self.config.resume or self.config.overwrite):
            raise FileExistsError(
                f"{self.output} holds a run already; choose another --output_path, go on with it "
                "(--resume=true), or replace it (--overwrite=true)"
            )

    def _first_loss_scale(self) -> float:
        return self.config.loss_scale if self.config.dtype == "float16" else 1.0

    def _build_step(self) -> TrainStep:
        config = self.config
        ms.set_seed(config.seed)  # of the random initial weights
        self.tae = TemporalAutoencoder(
            config.model,
            config.pretrained,
            encode_dtype=config.dtype,
            decode_dtype=config.dtype,
            recompute=config.recompute,
        )
        self._check_size("data.size", config.data.size)
        if self.validation is not None:
            self._check_size("validation.size", config.validation.size)
        _freeze(self.tae, config.freeze)
        perceptual = None
        if config.loss.perceptual_loss_weight > 0:
            lpips = load_lpips("vgg", config.loss.lpips_path)
            _require_lpips_size(lpips.min_size, config.data.size)
            perceptual = PerceptualLoss(lpips)
        step_cell = TrainStep(TAELoss(self.tae, config.loss, perceptual=perceptual), config.optim)
        step_cell.set_train()
        trained = sum(p.size for p in step_cell.parameters)
        total = sum(p.size for p in self.tae.get_parameters())
        logger.info("Training %s of %s parameters.", f"{trained:,}", f"{total:,}")
        return step_cell

    def _check_size(self, name: str, size: int) -> None:
        try:
            self.tae.check_video_shape((1, self.tae.config.in_channels, 1, size, size))
        except ValueError as error:
            raise ValueError(f"{name}={size}: {error}") from error

    def run(self) -> Path:
        """Train, validate and save; return the path of the final weights.

        Raises:
            FloatingPointError: too many steps in a row had no finite gradient.
            OSError: something could not be written; what was saved before is intact.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        if not self.config.resume:
            remove_checkpoints(self.output / "checkpoints")
        save_config(self.output / "config.yaml", self.config)
        if self.progress.step == 0:
            self.validate(0)
        log = RunLog(
            self.output / "log.jsonl",
            first_step=self.progress.step,
            tensorboard_folder=self.output / "tensorboard" if self.config.tensorboard else None,
        )
        try:
            with logging_redirect_tqdm([logging.root]):
                self._train(log)
        finally:
            log.close()
        return self._finish()

    def _train(self, log: RunLog) -> None:
        config, accumulation = self.config, self.config.optim.accumulation_steps
        started = time.monotonic()
        first = self.progress.step
        loader = ClipLoader(
            self.dataset,
            config.batch_size,
            start_step=first * accumulation,
            num_steps=(config.steps - first) * accumulation,
            num_workers=config.data.num_workers,
        )
        bar = tqdm(total=config.steps, initial=first, desc="training", unit="step", disable=None)
        with loader as batches, bar:
            batches = iter(batches)
            for step in range(first, config.steps):
                entry = self._update(step, [next(batches) for _ in range(accumulation)])
                log.write(entry)
                self.progress = dataclasses.replace(
                    self.progress, step=step + 1, loss_scale=entry["loss_scale"]
                )
                bar.set_postfix_str(_one_line(entry))
                bar.update()
                if (step + 1) % config.log_interval == 0:
                    logger.info("step %d: %s", step + 1, _one_line(entry))
                late = (
                    config.max_minutes is not None
                    and time.monotonic() - started > 60 * config.max_minutes
                )
                if late:
                    logger.info("Stopping at step %d: max_minutes is over.", step + 1)
                    break
                if step + 1 < config.steps:
                    self._at_intervals(step + 1)

    def _at_intervals(self, step: int) -> None:
        if step % self.config.checkpoint_interval == 0:
            self.save()
        if step % self.config.validation.interval == 0:
            self.validate(step)

    def _update(self, step: int, batches: list[Batch]) -> dict:
        """Run one update on its batches; return its log entry."""
        began = time.monotonic()
        lr = learning_rate(step, self.config.steps, self.config.optim)
        scale = self.progress.loss_scale
        losses, terms = [], []
        for i, batch in enumerate(batches):
            loss, parts, norm = self.step_cell(
                Tensor(lr, ms.float32),
                Tensor(scale, ms.float32),
                i == len(batches) - 1,
                *self._inputs(step * len(batches) + i, batch),
            )
            losses.append(float(loss.asnumpy()))
            terms.append([float(part.asnumpy()) for part in parts])
        norm = float(norm.asnumpy())
        return {
            "step": step,
            "loss": float(np.mean(losses)),
            **dict(zip(LOSS_TERMS, np.mean(terms, axis=0).tolist(), strict=True)),
            "lr": lr,
            "grad_norm": norm,
            "num_frames": batches[0].frames.shape[2],
            "seconds": round(time.monotonic() - began, 4),
            "loss_scale": self._judge(step, norm, batches),
        }

    def _inputs(self, batch_number: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (video, noise, frame indices) of a batch; randomness is keyed by its number."""
        config = self.tae.config
        size, _, num_frames, height, width = batch.frames.shape
        factor = config.spatial_compression
        shape = (
            size,
            config.z_channels,
            math.ceil(num_frames / config.temporal_compression),
            height // factor,
            width // factor,
        )
        rng = np.random.default_rng((NOISE_STREAM, self.config.seed, batch_number))
        noise = rng.standard_normal(shape, np.float32)
        num_compared = min(self.config.loss.lpips_num_frames or num_frames, num_frames)
        indices = draw_frame_indices(
            num_frames, num_compared, seed=self.config.seed, step=batch_number
        )
        return Tensor(batch.frames), Tensor(noise), Tensor(indices)

    def _judge(self, step: int, norm: float, batches: list[Batch]) -> float:
        """Count good and bad steps; return the loss scale of the next one."""
        scale, is_fp16 = self.progress.loss_scale, self.config.dtype == "float16"
        if math.isfinite(norm):
            self.num_bad_in_row = 0
            num_good = self.progress.num_good_steps + 1
            grows = is_fp16 and num_good == LOSS_SCALE_GROWTH_STEPS
            self.progress = dataclasses.replace(
                self.progress, num_good_steps=0 if grows else num_good
            )
            return scale * 2 if grows else scale
        self.num_skipped += 1
        self.num_bad_in_row += 1
        self.progress = dataclasses.replace(self.progress, num_good_steps=0)
        names = [name for batch in batches for name in batch.names]
        logger.warning("step %d: gradient is not finite, update skipped; clips: %s", step, names)
        if self.num_bad_in_row >= MAX_BAD_STEPS:
            raise FloatingPointError(
                f"{MAX_BAD_STEPS} steps in a row had no finite gradient; the last batch was "
                f"{names}. Lower optim.lr, or train in float32"
            )
        return max(1.0, scale / 2) if is_fp16 else scale

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        path = save_checkpoint(
            self.output / "checkpoints",
            self.tae,
            self.step_cell.state(),
            self.progress,
            keep=self.config.keep_checkpoints,
        )
        logger.info("Saved %s.", path)

    def validate(self, step: int) -> None:
        """Measure the held-out clips, log the numbers, redraw the curves."""
        if self.validation is None:
            return
        video_path = self.output / "validation" / f"step_{step:08d}.mp4"
        with averaged_weights(self.step_cell.average):
            summary = self.validation.run(self.tae, video_path=video_path).summary()
        entry = {
            "step": step,
            "psnr": summary["psnr"],
            "ssim": summary["ssim"],
            "psnr_per_clip": {clip["name"]: clip["psnr"] for clip in summary["clips"]},
            "ssim_per_clip": {clip["name"]: clip["ssim"] for clip in summary["clips"]},
        }
        self.validations.append(entry)
        log = RunLog(self.output / "validation.jsonl", first_step=step)
        log.write(entry)
        log.close()
        clips = ", ".join(f"{name} {value:.2f}" for name, value in entry["psnr_per_clip"].items())
        logger.info("Held-out PSNR after step %d: %.2f dB (%s)", step, entry["psnr"], clips)
        save_curves(
            self.output / "curves.png", read_log(self.output / "log.jsonl"), self.validations
        )

    def _finish(self) -> Path:
        """Save and measure the end of the run, say what there is; return the final weights."""
        self.save()
        self.validate(self.progress.step)
        final = self.output / "tae.safetensors"
        with averaged_weights(self.step_cell.average):
            save_final_weights(final, self.tae.tensors(), self.tae.config.to_dict())
        if self.dataset.bad:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in self.dataset.bad.items())
            logger.warning("%d clips could not be read:\n%s", len(self.dataset.bad), listed)
        logger.info("%s", self._report(final))
        return final

    def _report(self, final: Path) -> str:
        entries = read_log(self.output / "log.jsonl")
        lines = [f"Done: {self.progress.step} steps, {self.num_skipped} skipped."]
        if entries:
            tenth = max(1, len(entries) // 10)
            first = np.mean([entry["loss"] for entry in entries[:tenth]])
            last = np.mean([entry["loss"] for entry in entries[-tenth:]])
            lines.append(f"Training loss (mean of a tenth): {first:.4f} -> {last:.4f}")
        if self.validations:
            lines.append("Held-out PSNR (dB) before -> after:")
            before, after = self.validations[0], self.validations[-1]
            for name, value in after["psnr_per_clip"].items():
                start = before["psnr_per_clip"].get(name, math.nan)  # held out later than it began
                lines.append(f"  {name}: {start:.2f} -> {value:.2f}")
            lines.append(f"Curves: {self.output / 'curves.png'}")
            videos = self.output / "validation"
            lines.append(f"Original | reconstruction: {videos}/step_{self.progress.step:08d}.mp4")
        lines.append(f"Weights: {final}")
        lines.append(
            "Next: python scripts/inference_vae.py "
            f"--ckpt_path {final} --video_folder FOLDER_OF_YOUR_VIDEOS "
            f"--image_size {self.config.validation.size}"
        )
        return "\n".join(lines)


def _build_dataset(config: TrainTAEConfig) -> ClipDataset:
    values = {
        field.name: getattr(config.data, field.name)
        for field in dataclasses.fields(DataSettings)
        if field.name != "num_workers"
    }
    clip_config = ClipConfig(**values)
    is_image = clip_config.mixed_strategy == "image_only"
    manifest = build_manifest(
        csv_path=config.csv_path,
        video_folder=config.video_folder,
        min_frames=1 if is_image else clip_config.num_source_frames,
        keep_images=clip_config.uses_images,
    )
    table = manifest.table()
    logger.info(
        "Training clips:\n%s", table if len(manifest.clips) < 50 else table.splitlines()[-1]
    )
    return ClipDataset(manifest, clip_config, seed=config.seed)


def _require_lpips_size(min_size: int, size: int) -> None:
    if size < min_size:
        raise ValueError(
            f"data.size={size} is too small for LPIPS, which needs {min_size} pixels; use larger "
            "crops or loss.perceptual_loss_weight=0"
        )


def _freeze(tae: TemporalAutoencoder, patterns: list[str]) -> None:
    """Exclude parameters from training by shell-style patterns of their names."""
    names = [name for name, _ in tae.parameters_and_names()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"freeze: no parameter matches {pattern!r}; names are like {names[0]}")
    for name, parameter in tae.parameters_and_names():
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            parameter.requires_grad = False
    if not tae.trainable_params():
        raise ValueError(f"freeze={patterns} leaves no parameter to train")


def _one_line(entry: dict) -> str:
    parts = [f"{name} {entry[name]:.4g}" for name in LOSS_TERMS if entry[name]]
    return (
        f"loss {entry['loss']:.4f} ({', '.join(parts)}) lr {entry['lr']:.2e} "
        f"grad {entry['grad_norm']:.3g} {entry['seconds']:.2f} s/step"
    )
