"""Training of an autoencoder: networks, losses, noise, held-out clips."""

import dataclasses
import functools
import logging
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mg.data.bucketed_clips import BucketedClipDataset
from mg.data.clips import ClipBatch, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest, check_sources
from mg.latent_spec import LatentSpec
from mg.losses.perceptual import PerceptualLoss
from mg.models.autoencoder import AutoencoderSettings
from mg.models.discriminator import Discriminator
from mg.models.tae.linear_path import linear_path_tensors, principal_components
from mg.parallel.ranks import Ranks
from mg.training.autoencoder.autoencoder_config import TrainAutoencoderConfig
from mg.training.autoencoder.autoencoder_loss import LOSS_TERMS, AutoencoderLoss
from mg.training.autoencoder.autoencoder_weights import (
    check_start,
    export_autoencoder,
    exported_path,
    load_start_weights,
    load_teacher,
    metadata_of,
    name_aliases,
)
from mg.training.autoencoder.discriminator_loss import DISCRIMINATOR_TERMS, DiscriminatorLoss
from mg.training.autoencoder.perceptual import compared_frames, load_perceptual
from mg.training.autoencoder.validation import Validation, naming_validation
from mg.training.optimizers.optimizer import averaged_weights
from mg.training.optimizers.schedule import learning_rate
from mg.training.parameter_groups import has_match, matching_names
from mg.training.phases import phase_step, trained_in
from mg.training.pretrained import PretrainedSettings, apply_pretrained
from mg.training.run.guards import NO_LIMIT
from mg.training.stages import Stage, plan_stages
from mg.training.step import TrainStep
from mg.training.task import Controls, Task

__all__ = ["AutoencoderTask"]

logger = logging.getLogger("mg")

NOISE_STREAM = 3  # random streams 0..2 belong to the data


class AutoencoderTask(Task):
    """An autoencoder with its losses and, if asked for, a discriminator.

    Args:
        config: every setting.
        ranks: this process among those that train together.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
    """

    def __init__(self, config: TrainAutoencoderConfig, ranks: Ranks) -> None:
        self.ranks = ranks
        self.config = config
        # What is quickly found missing comes before all videos are probed.
        self._check_sources()
        self.perceptual = self._load_perceptual()
        check_start(config)
        start = load_start_weights(config)
        self.family = config.model_to_train().family
        self._check_patterns(start[1])
        self._check_all_clips(start[1].spec)
        self.dataset = _build_dataset(config, ranks)
        num_batches = self.dataset.num_batches_per_epoch(config.batch_size)
        steps_per_epoch = math.ceil(num_batches / config.optim.accumulation_steps)
        config = apply_pretrained(config, config.target(), steps_per_epoch=steps_per_epoch)
        self.config = config
        self.family = config.model_to_train().family
        self.aliases = name_aliases(self.family)
        adversarial = config.adversarial
        self.stages = plan_stages(
            config, discriminator_start=adversarial.start_step if adversarial else None
        )
        held_out = config.validation.csv_path or config.validation.video_folder
        self.validation = None
        if held_out and ranks.is_main:
            self.validation = Validation(config.validation, config.reading)
            trained_on = {clip.path.resolve() for clip in self.dataset.manifest.clips}
            self.validation.warn_of_clips_trained_on(trained_on)
        self._build_networks(*start)
        self.running_means = {"real": 0.0, "fake": 0.0} if adversarial else {}
        self.terms = LOSS_TERMS
        self.steps = {}
        for stage in self.stages:  # so that wrong patterns show before the first step
            trained_in(stage.phase, self.autoencoder, config, aliases=self.aliases)

    def _check_sources(self) -> None:
        """Raise FileNotFoundError if there are no videos where the settings say."""
        config = self.config
        check_sources(config.csv_path, config.video_folder)
        held_out = config.validation.csv_path, config.validation.video_folder
        if any(held_out):
            with naming_validation():
                check_sources(*held_out)

    def _check_patterns(self, network_config: AutoencoderSettings) -> None:
        """Raise ValueError if a pattern of parameters that train or stay stands for none."""
        config, family = self.config, self.config.model_to_train().family
        section = config.pretrained
        asked = {"train": config.train or [], "freeze": config.freeze}
        for phase in config.phases:
            asked["phases.train"] = [*asked.get("phases.train", []), *(phase.train or [])]
            asked["phases.freeze"] = [*asked.get("phases.freeze", []), *phase.freeze]
        if isinstance(section, PretrainedSettings) and section.is_used:
            setting, num_epochs = section.frozen_epochs
            first = config.target().trained_first if num_epochs else ()
            asked[f"pretrained.{setting}={num_epochs}"] = list(first)
        if not any(asked.values()):
            return
        names = list(family.shapes(network_config))
        for setting, patterns in asked.items():
            for pattern in patterns:
                if pattern == "temporal" and not has_match(names, family.temporal):
                    raise ValueError(
                        f"{setting}: 'temporal' stands for layers that work along time alone, and "
                        f"this network of the family {family.name!r} has none; name parts to train "
                        "or to freeze, such as decoder (train, freeze or phases)"
                    )
                try:
                    matching_names(names, pattern, aliases=name_aliases(family))
                except ValueError as error:
                    raise ValueError(f"{setting}: {error}") from error

    def _build_networks(
        self, tensors: dict[str, np.ndarray] | None, network_config: AutoencoderSettings
    ) -> None:
        config = self.config
        ms.set_seed(config.seed)  # of the random initial weights
        self.autoencoder = self.family.build(
            network_config,
            recompute=config.recompute,
            encode_dtype=config.dtype,
            decode_dtype=config.dtype,
        )
        if tensors is not None:
            start = config.start_weights()
            others = {} if start.parts is None else self.autoencoder.tensors()
            try:
                self.autoencoder.load_tensors({**others, **tensors})
            except ValueError as error:
                raise ValueError(f"{start.model_name}: {error}") from error
        if not self.autoencoder.has_posterior and config.loss.kl_loss_weight > 0:
            logger.info("The family %s has no posterior: there is no KL loss.", self.family.name)
        losses = [config.loss, *map(config.loss_of_phase, config.phases)]
        has_teacher = any(loss.feature_weight > 0 for loss in losses)
        self.teacher = load_teacher(config) if has_teacher else None
        # Under the name that checkpoints have: that of the family.
        self.networks = {self.family.name: self.autoencoder}
        self.discriminator = None
        if config.adversarial is not None:
            self.discriminator = Discriminator(config.adversarial.network)
            self.networks["discriminator"] = self.discriminator

    def _check_all_clips(self, spec: LatentSpec) -> None:
        """Raise ValueError unless the network takes the clips of training and validation."""
        config = self.config
        only_images = config.data.clip_config().mixed_strategy == "image_only"
        for size in config.clip_sizes():
            num_frames = 1 if only_images else size.num_frames
            self._check_clips(spec, "data", num_frames, (size.height, size.width))
        if config.validation.csv_path or config.validation.video_folder:
            settings = config.validation
            self._check_clips(spec, "validation", settings.num_frames, settings.height_width)

    def _check_clips(
        self, spec: LatentSpec, section: str, num_frames: int, size: tuple[int, int]
    ) -> None:
        """Raise ValueError unless the network takes clips of such frames as they are."""
        settings = getattr(self.config, section)
        is_bucket = section == "data" and settings.bucket_config is not None
        sides = "x".join(map(str, size))
        name = f"{section}.bucket_config, {num_frames}x{sides}"
        try:
            spec.check_video((1, spec.video_channels, 1, *size))
        except ValueError as error:
            given = name if is_bucket else f"{section}.size={settings.size}"
            raise ValueError(f"{given}: {error}") from error
        valid = spec.valid_frames(num_frames)
        if valid != num_frames:
            below = spec.head + (num_frames - spec.head) // spec.step * spec.step
            field = "sample_n_frames" if section == "data" else "num_frames"
            given = name if is_bucket else f"{section}.{field}={num_frames}"
            raise ValueError(
                f"{given}: the family {self.family.name!r} takes clips of "
                f"{spec.head} + {spec.step} k frames; use {max(below, spec.head)} or {valid}"
            )

    def _load_perceptual(self) -> PerceptualLoss | None:
        losses = [self.config.loss, *map(self.config.loss_of_phase, self.config.phases)]
        if all(loss.perceptual_loss_weight == 0 for loss in losses):
            return None
        return load_perceptual(
            self.config.loss, [(size.height, size.width) for size in self.config.clip_sizes()]
        )

    # -- stages ----------------------------------------------------------------------------------

    def initialise(self) -> None:
        network_config = self.autoencoder.config
        if not getattr(network_config, "linear_path", False) or self.config.start_weights():
            return
        # All ranks look at the same clips, and so get the same numbers.
        clips = dataclasses.replace(self.dataset, rank=0, num_ranks=1)
        batch_size, data = self.config.batch_size, self.config.data
        with ClipLoader(clips, batch_size, num_workers=data.num_workers) as loader:
            components = principal_components((b.frames for b in loader), network_config)
        tensors = linear_path_tensors(components, network_config)
        self.autoencoder.load_tensors({**self.autoencoder.tensors(), **tensors})

    def enter(self, stage: Stage) -> None:
        loss_settings = self.config.loss_of_phase(stage.phase)
        has_perceptual = loss_settings.perceptual_loss_weight > 0
        loss = AutoencoderLoss(
            self.autoencoder,
            loss_settings,
            perceptual=self.perceptual if has_perceptual else None,
            adversarial=self.config.adversarial,
            discriminator=self.discriminator if stage.has_discriminator else None,
            teacher=self.teacher if loss_settings.feature_weight > 0 else None,
            ranks=self.ranks,
        )
        self.steps = {
            self.family.name: phase_step(
                stage, self.autoencoder, loss, self.config, aliases=self.aliases, ranks=self.ranks
            )
        }
        self.terms = LOSS_TERMS
        if stage.has_discriminator:
            self.steps["discriminator"] = self._discriminator_step
            self.terms += ("disc_loss", *DISCRIMINATOR_TERMS)
        for step in self.steps.values():
            step.set_train()

    @functools.cached_property  # the same in every stage, so compiled once
    def _discriminator_step(self) -> TrainStep:
        adversarial = self.config.adversarial
        settings = adversarial.optim_settings(
            accumulation_steps=self.config.optim.accumulation_steps
        )
        return TrainStep(
            DiscriminatorLoss(self.discriminator, adversarial), settings, ranks=self.ranks
        )

    # -- one batch -------------------------------------------------------------------------------

    def run_batch(
        self, number: int, batch: ClipBatch, controls: Controls, *, is_last: bool
    ) -> dict[str, float]:
        video, noise, frame_indices = self.inputs(number, batch)
        loss, terms, norm, frames = self.steps[self.family.name](
            Tensor(controls.lr, ms.float32),
            Tensor(controls.loss_scale, ms.float32),
            Tensor(controls.max_norm, ms.float32),
            is_last,
            video,
            noise,
            frame_indices,
        )
        numbers = {"loss": _number(loss), "grad_norm": _number(norm)}
        numbers.update(zip(LOSS_TERMS, map(_number, terms), strict=True))
        if "discriminator" in self.steps:
            numbers.update(self._update_discriminator(video, frames, controls.step, is_last))
        return numbers

    def _update_discriminator(
        self, video: Tensor, frames: Tensor, step: int, is_last: bool
    ) -> dict[str, float]:
        adversarial = self.config.adversarial
        settings = adversarial.optim_settings(accumulation_steps=1)
        lr = learning_rate(step - adversarial.start_step, self.config.steps, settings)
        means = self.running_means
        loss, terms, norm, _ = self.steps["discriminator"](
            Tensor(lr, ms.float32),
            Tensor(1.0, ms.float32),
            Tensor(NO_LIMIT, ms.float32),
            is_last,
            video,
            frames,
            Tensor(means["real"], ms.float32),
            Tensor(means["fake"], ms.float32),
        )
        numbers = {"disc_loss": _number(loss), "disc_grad_norm": _number(norm)}
        numbers.update(zip(DISCRIMINATOR_TERMS, map(_number, terms), strict=True))
        # A hinge is finite where its logits are not.
        if all(math.isfinite(numbers[key]) for key in ("disc_loss", "logits_real", "logits_fake")):
            decay = adversarial.lecam_decay
            for name in means:
                means[name] = decay * means[name] + (1 - decay) * numbers[f"logits_{name}"]
        return numbers

    def inputs(self, number: int, batch: ClipBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (video, noise, frame indices) of a batch.

        The noise of a clip is keyed by (seed, number of the batch, place of the clip among those
        of all ranks), so that it does not depend on how many ranks share the batch.
        """
        size, _, num_frames, height, width = batch.frames.shape
        shape = self.autoencoder.spec.latent_shape(num_frames, height, width)
        seed, first = self.config.seed, self.ranks.rank * size
        noise = [
            np.random.default_rng((NOISE_STREAM, seed, number, place)).standard_normal(
                shape, np.float32
            )
            for place in range(first, first + size)
        ]
        indices = compared_frames(self.config.loss, num_frames, seed=seed, step=number)
        return Tensor(batch.frames), Tensor(np.stack(noise)), Tensor(indices)

    # -- results ---------------------------------------------------------------------------------

    def validate(
        self, video_path: Path, *, should_stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        if self.validation is None:
            return None
        with averaged_weights(self.steps[self.family.name].average):
            report = self.validation.run(
                self.autoencoder, video_path=video_path, should_stop=should_stop
            )
        if report is None:
            return None
        summary = report.summary()
        clips = summary["clips"]
        return {
            "protocol": self.validation.protocol.label(),
            "psnr": summary["psnr"],
            "ssim": summary["ssim"],
            "psnr_per_clip": {clip["name"]: clip["psnr"] for clip in clips},
            "ssim_per_clip": {clip["name"]: clip["ssim"] for clip in clips},
        }

    def export(self, folder: Path) -> Path:
        path = exported_path(folder, self.family)
        if self.ranks.is_main:
            with averaged_weights(self.steps[self.family.name].average):
                export_autoencoder(path, self.autoencoder)
        return path

    def metadata(self) -> dict[str, dict[str, str]]:
        return {self.family.name: metadata_of(self.autoencoder)}

    def next_command(self, weights: Path) -> str:
        validation = self.config.validation
        is_validated = validation.csv_path or validation.video_folder
        size = validation.size if is_validated else self.config.data.size
        size = str(size).replace("(", "[").replace(")", "]")
        return (
            f"mg reconstruct --ckpt_path {weights} "
            f"--video_folder FOLDER_OF_YOUR_VIDEOS --image_size {shlex.quote(size)}"
        )


def _number(tensor: Tensor) -> float:
    return float(tensor.asnumpy())


def _build_dataset(
    config: TrainAutoencoderConfig, ranks: Ranks
) -> ClipDataset | BucketedClipDataset:
    clip_config, buckets = config.data.clip_config(), config.clip_buckets()
    lengths = [bucket.size.num_frames for bucket in buckets] or [clip_config.sample_n_frames]
    if clip_config.mixed_strategy == "image_only":
        lengths = [1]
    shortest = dataclasses.replace(clip_config, sample_n_frames=min(lengths))
    manifest = build_manifest(
        csv_path=config.csv_path,
        video_folder=config.video_folder,
        min_frames=shortest.num_source_frames,
        keep_images=shortest.uses_images,
        reading=config.reading,
    )
    shared = {
        "seed": config.seed,
        "rank": ranks.rank,
        "num_ranks": ranks.size,
        "max_bad_share": config.guards.max_bad_share,
    }
    dataset = (
        BucketedClipDataset(manifest, clip_config, buckets, **shared)
        if buckets
        else ClipDataset(manifest, clip_config, **shared)
    )
    table = dataset.manifest.table()
    logger.info(
        "Training clips:\n%s", table if len(manifest.clips) < 50 else table.splitlines()[-1]
    )
    if buckets:
        logger.info("Buckets:\n%s", dataset.table())
    return dataset
