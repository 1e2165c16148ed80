"""Training of a denoiser on latents that an autoencoder has made: flow matching, or diffusion."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mg.conditions.text.build import build_text_encoders
from mg.conditions.text.sources import TextSource
from mg.data.latent_dataset import LatentBatch
from mg.flow.noise import keyed_noise
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.denoiser_config import DenoiserConfig, TextInput
from mg.models.lora import DEFAULT_TARGETS, add_lora, lora_maps
from mg.models.reading import read_autoencoder
from mg.parallel.ranks import Ranks
from mg.parallel.sequence import SequenceParallel, data_ranks
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_parts import GeneratorParts, check_fit
from mg.pipelines.generator_writer import save_generator
from mg.training.denoiser.denoiser_config import LoraSettings, TrainDenoiserConfig
from mg.training.denoiser.denoiser_data import (
    build_datasets,
    generator_defaults,
    sample_sizes,
    text_sources,
    training_scope,
)
from mg.training.denoiser.flow_validation import FlowValidation, metric_of
from mg.training.denoiser.objective import TrainingObjective
from mg.training.denoiser.sample_videos import EncoderOfSource, SampleVideos, check_samples
from mg.training.optimizers.optimizer import averaged_weights
from mg.training.optimizers.plateau import Plateau
from mg.training.optimizers.sharded_linear import shard_linear_maps
from mg.training.phases import phase_step, trained_in
from mg.training.stages import Stage, plan_stages
from mg.training.task import Controls, Task
from mg.weights.lora_file import LORA_FILE, LORA_PARAMETERS, write_lora

__all__ = ["DenoiserTask"]

logger = logging.getLogger("mg")


class DenoiserTask(Task):
    """A denoiser of any family, with the flow-matching loss (Movie Gen 3.1.2) or a diffusion's.

    Args:
        config: every setting.
        ranks: this process among those that train together.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
    """

    terms = ()  # of which the loss is the sum: it has one only

    def __init__(self, config: TrainDenoiserConfig, ranks: Ranks) -> None:
        if config.lora is not None:
            config = dataclasses.replace(config, train=list(LORA_PARAMETERS))
        self.config = config
        self.ranks = ranks
        self.family = config.denoiser().family
        self.text_encoders = build_text_encoders(config.text.encoders)
        sources = text_sources(self.text_encoders, config.text)
        self.dataset, held_out = build_datasets(config, sources, self.data_ranks)
        self.conditions = config.conditions.visual_draws().conditions
        start = self._start()
        self.model = self._model(start)
        self.learned = self._learned(start)
        self.metric = metric_of(self.learned.objective)
        samples = None
        if config.samples is not None:
            samples = self._checked_samples(sources)
        self.validation = None
        if held_out is not None and (ranks.is_main or self.needs_all_ranks):
            self.validation = FlowValidation(held_out, config.validation, self.learned.objective)
        self.plateau = Plateau(config.plateau) if config.plateau is not None else None
        self.stages = plan_stages(config)
        self._build_network(start)
        self.samples = None
        if samples is not None and (ranks.is_main or self.needs_all_ranks):
            self.samples = SampleVideos(self.network, *samples)
        self.running_means = {}
        self.steps = {}
        for stage in self.stages:  # so that wrong patterns show before the first step
            trained_in(stage.phase, self.network, config, aliases={})

    @property
    def data_ranks(self) -> Ranks:
        """Which group of ranks, of those that have a batch each, this one is in."""
        return data_ranks(self.ranks, self.config.sequence_parallel)

    @property
    def needs_all_ranks(self) -> bool:
        """Whether the network runs only when all ranks run it together."""
        return self.config.sequence_parallel > 1 or self.config.zero_stage == 3

    def _start(self) -> GeneratorParts | None:
        """Return the generator that the run starts from, if there is one."""
        if self.config.pretrained is None:
            return None
        start = load_generator(self.config.pretrained)
        try:
            self._check_start(start)
        except ValueError as error:
            raise ValueError(f"pretrained={self.config.pretrained}: {error}") from error
        return start

    def _model(self, start: GeneratorParts | None) -> DenoiserConfig:
        """Return the network's config, which must take all latents and the texts."""
        manifest = self.dataset.manifest
        sizes = sample_sizes(manifest)
        if start is not None:  # positions follow from the sizes, so they stay as they were
            stored = start.transformer_config.to_dict()
            sizes = {name: stored[name] for name in sizes if name in stored}
        model = self.config.denoiser().config(
            text_encoders=[TextInput(e.name, e.width, e.max_tokens) for e in self.text_encoders],
            latent_channels=manifest.spec.channels,
            condition_channels=self.conditions.num_channels(manifest.spec.channels),
            sizes=sizes,
        )
        check_fit(model, manifest.spec, self.text_encoders, self.conditions)
        for bucket in manifest.buckets():
            try:
                size = bucket.num_frames, bucket.height, bucket.width
                grid = model.token_grid((1, model.latent_channels, *size))
                model.tokens_per_rank(math.prod(grid), self.config.sequence_parallel)
            except ValueError as error:
                raise ValueError(f"latents of {bucket}: {error}") from error
        return model

    def _learned(self, start: GeneratorParts | None) -> TrainingObjective:
        """Return what the network learns; of a generator that it starts from, on its clock."""
        config, stored, place = self.config, None, ""
        if start is not None:
            stored, place = start.scheduler, f"pretrained={config.pretrained}: "
        try:
            learned = TrainingObjective.of(
                config.objective, self.family.prediction, is_start=start is not None, stored=stored
            )
            if config.lora is not None:
                learned.check_lora(stored)
        except ValueError as error:
            raise ValueError(f"{place}{error}") from error
        try:
            learned.check_steps(config.sampling.steps)
        except ValueError as error:
            raise ValueError(f"sampling.steps: {error}") from error
        return learned

    def _defaults(self) -> GeneratorDefaults:
        """Return the defaults of the generator; one with a scheduler samples with that."""
        schedule = "linear_quadratic" if self.learned.scheduler is None else "published"
        return generator_defaults(self.config, self.dataset.manifest, schedule=schedule)

    def _checked_samples(self, sources: list[TextSource]) -> tuple:
        """Return what `SampleVideos` takes besides the network; on all ranks, as all must fail."""
        config = self.config
        parts = GeneratorParts(
            folder=Path(config.output_path),
            transformer_config=self.model,
            transformer_tensors={},
            autoencoder=self._autoencoder(),
            text_encoders=list(map(EncoderOfSource, self.text_encoders, sources)),
            defaults=self._defaults(),
            sha256={},
            conditions=self.conditions,
            family=self.family,
            scheduler=self.learned.scheduler,
        )
        settings = check_samples(parts, config.samples, truncate=config.text.truncate)
        return parts, config.samples, settings

    def _build_network(self, start: GeneratorParts | None) -> None:
        config = self.config
        tensors = None if start is None else self._start_tensors(start)
        ms.set_seed(config.seed)  # of the random initial weights
        size = config.sequence_parallel
        self.network = self.family.build(
            self.model,
            dtype=config.dtype,
            recompute_every=config.denoiser().recompute_every,
            sequence=SequenceParallel(self.ranks, size) if size > 1 else None,
        )
        if tensors is not None:
            self.network.load_tensors(tensors)
        if config.lora is not None:
            self._add_lora(config.lora)
        if config.zero_stage == 3:
            shard_linear_maps(self.network, self.ranks)
        self.predictor = self.learned.predictor(self.network)
        self.networks = {"transformer": self.network}
        count = self.family.num_parameters(self.model)
        logger.info("A %s of %s parameters.", self.family.class_name, f"{count:,}")

    def _add_lora(self, lora: LoraSettings) -> None:
        try:
            names = add_lora(
                self.network,
                rank=lora.rank,
                alpha=lora.alpha or lora.rank,
                targets=lora.targets or DEFAULT_TARGETS,
            )
        except ValueError as error:
            raise ValueError(f"lora.targets: {error}") from error
        logger.info("A LoRA of rank %d beside %d linear maps.", lora.rank, len(names))

    def _start_tensors(self, start: GeneratorParts) -> dict[str, np.ndarray]:
        """Return the weights of an earlier stage's generator, grown to this network."""
        try:
            return self.family.grow(start.transformer_tensors, start.transformer_config, self.model)
        except ValueError as error:
            raise ValueError(f"pretrained={self.config.pretrained}: {error}") from error

    def _check_start(self, parts: GeneratorParts) -> None:
        """Refuse weights of another family, or of other conditions beside the latent."""
        if parts.family.name != self.family.name:
            raise ValueError(
                f"it is a generator of the family {parts.family.name!r}, and model.family is "
                f"{self.family.name!r}"
            )
        if parts.conditions and parts.conditions.names != self.conditions.names:
            raise ValueError(
                f"it was trained with {' and '.join(parts.conditions.names)} beside the latent; "
                f"here are {' and '.join(self.conditions.names) or 'none'}"
            )

    def enter(self, stage: Stage) -> None:
        # The dataset has scaled the latents.
        loss = self.learned.loss(self.predictor, self.config.loss)
        step = phase_step(stage, self.network, loss, self.config, aliases={}, ranks=self.ranks)
        step.set_train()
        self.steps = {"transformer": step}

    # -- one batch -------------------------------------------------------------------------------

    def run_batch(
        self, number: int, batch: LatentBatch, controls: Controls, *, is_last: bool
    ) -> dict[str, float]:
        if self.config.sequence_parallel > 1:
            self._check_same_batch(batch)
        loss, _, norm, _ = self.steps["transformer"](
            Tensor(controls.lr, ms.float32),
            Tensor(controls.loss_scale, ms.float32),
            Tensor(controls.max_norm, ms.float32),
            is_last,
            *map(Tensor, self.inputs(number, batch)),
        )
        return {"loss": float(loss.asnumpy()), "grad_norm": float(norm.asnumpy())}

    def _check_same_batch(self, batch: LatentBatch) -> None:
        """Refuse to mix clips: a file that one rank alone cannot read has another in its place."""
        names = self.ranks.gather_json([self.data_ranks.rank, batch.names])
        for place, of_rank in names:
            if place == self.data_ranks.rank and tuple(of_rank) != tuple(batch.names):
                raise RuntimeError(
                    f"ranks that share a batch have read different latents, {of_rank} and "
                    f"{list(batch.names)}: one could not read a file that another could; start "
                    "again with --resume"
                )

    def inputs(self, number: int, batch: LatentBatch) -> tuple[np.ndarray, ...]:
        """Return what the loss takes of a batch: mean, std, two noises, times, conditions.

        All that is random is keyed by (seed, number of the batch, place of the clip among those of
        all ranks), so that it does not depend on how many ranks share the work.
        """
        size, *shape = batch.mean.shape
        keys = {
            "seed": self.config.seed,
            "step": number,
            "first_place": self.data_ranks.rank * size,
        }
        return (
            batch.mean,
            batch.std,
            keyed_noise(shape, size, kind="posterior", **keys),
            keyed_noise(shape, size, kind="path", **keys),
            self.learned.objective.draw_times(size, **keys),
            *batch.conditions,
        )

    # -- results ---------------------------------------------------------------------------------

    def validate(
        self, video_path: Path, *, should_stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        if self.validation is None:
            return None
        if self.needs_all_ranks:
            should_stop = self._on_any_rank(should_stop)
        with averaged_weights(self.steps["transformer"].average):
            measured = self.validation.run(self.predictor, should_stop=should_stop)
        return measured if self.ranks.is_main else None

    def _on_any_rank(self, flag: Callable[[], bool]) -> Callable[[], bool]:
        """Return a flag that all ranks must ask for together, and that all see alike."""
        return lambda: self.ranks.any(flag())

    def sample(self, path: Path, *, should_stop: Callable[[], bool]) -> Path | None:
        if self.samples is None:
            return None
        if self.needs_all_ranks:
            should_stop = self._on_any_rank(should_stop)
        with averaged_weights(self.steps["transformer"].average):
            frames = self.samples.frames(should_stop=should_stop)
        if frames is None or not self.ranks.is_main:
            return None
        return self.samples.write(path, frames)

    def export(self, folder: Path) -> Path:
        if self.config.lora is not None:
            return self._export_lora(folder)
        path, manifest = folder / "generator", self.dataset.manifest
        with averaged_weights(self.steps["transformer"].average):
            tensors = self.network.tensors()
        if self.ranks.is_main:
            save_generator(
                path,
                transformer_tensors=tensors,
                transformer_config=self.model,
                autoencoder=self._autoencoder(),
                text_encoders=self.text_encoders,
                defaults=self._defaults(),
                scope=training_scope(manifest),
                conditions=self.conditions,
                family=self.family,
                scheduler=self.learned.scheduler,
                overwrite=True,
            )
        return path

    def _autoencoder(self) -> AutoencoderParts:
        """Return the autoencoder with the scaling that the transformer is trained with."""
        return read_autoencoder(self.config.tae).scaled_by(self.dataset.manifest.spec)

    def _export_lora(self, folder: Path) -> Path:
        path = folder / "lora" / LORA_FILE
        with averaged_weights(self.steps["transformer"].average):
            maps = lora_maps(self.network)
        if self.ranks.is_main:
            write_lora(path, maps, overwrite=True)
        return path

    def metadata(self) -> dict[str, dict[str, str]]:
        return {"transformer": {"transformer_config": json.dumps(self.model.to_dict())}}

    def next_command(self, weights: Path) -> str:
        caption = self.dataset.manifest.clips[0].captions[0]
        checkpoint, more = str(weights), ""
        if self.config.lora is not None:
            checkpoint, more = str(self.config.pretrained), f"--lora {weights} "
        if "source" in self.conditions.names:
            more += "--source VIDEO "
        return (
            f'mg generate --checkpoint {checkpoint} {more}--prompt "{caption}" --output video.mp4'
        )
