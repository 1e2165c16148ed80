"""Training of a denoiser that edits videos, and of the VAE under it: two losses, kept apart.

The denoiser learns on latents that the VAE, as it stands, makes of each batch. They are numbers to
its step: nothing goes back through the encoder, which could make that loss small by making all
latents alike. Where the VAE trains too, it does so on the reconstruction of the same clips.
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.data.edit_pairs import EditBatch, EditPairDataset, find_edit_pairs
from mg.flow.noise import keyed_noise
from mg.flow.times import draw_times
from mg.flow.velocity_network import velocity_network
from mg.latent_spec import LOGVAR_MAX, LOGVAR_MIN
from mg.models.autoencoder import Autoencoder
from mg.parallel.ranks import Ranks
from mg.pipelines.training_scope import scope_of_captions
from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
from mg.training.autoencoder.autoencoder_weights import metadata_of
from mg.training.autoencoder.perceptual import compared_frames, load_perceptual
from mg.training.denoiser.denoiser_data import text_sources
from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.metric import FLOW_LOSS
from mg.training.optimizers.optimizer import averaged_weights
from mg.training.parameter_groups import (
    autoencoder_halves,
    group_table,
    learning_rate_multipliers,
    trainable_names,
)
from mg.training.pretrained import apply_pretrained
from mg.training.stages import Stage, plan_stages
from mg.training.step import TrainStep
from mg.training.task import Controls, Task
from mg.training.video_to_video.pair_validation import PairValidation
from mg.training.video_to_video.video_to_video_config import TARGET, TrainVideoToVideoConfig
from mg.training.video_to_video.video_to_video_model import VideoToVideoDiffusion

__all__ = ["VideoToVideoTask"]

logger = logging.getLogger("mg")

ALIASES = autoencoder_halves("vae.")


class VideoToVideoTask(Task):
    """A denoiser on the latents of a VAE, and the VAE, each with its own loss.

    Args:
        config: every setting.
        ranks: this process among those that train together.

    Raises:
        ValueError, FileNotFoundError: settings, data or weights that no run can start from.
    """

    metric = FLOW_LOSS
    terms = ()

    def __init__(self, config: TrainVideoToVideoConfig, ranks: Ranks) -> None:
        self.ranks = ranks
        pairs = find_edit_pairs(config.csv_path, video_folder=config.video_folder)
        logger.info("%d pairs of videos", len(pairs.manifest.clips))
        self.dataset = EditPairDataset(
            pairs,
            config.data.clip_config(),
            text_dropout=config.text.dropout,
            source_dropout=config.source_dropout,
            seed=config.seed,
            rank=ranks.rank,
            num_ranks=ranks.size,
            max_bad_share=config.guards.max_bad_share,
        )
        num_batches = self.dataset.num_batches_per_epoch(config.batch_size)
        steps_per_epoch = math.ceil(num_batches / config.optim.accumulation_steps)
        config = apply_pretrained(config, TARGET, steps_per_epoch=steps_per_epoch)
        self.config = config
        self.model = VideoToVideoDiffusion(config, load_pretrained=True)
        self.vae, self.unet = self.model.vae, self.model.unet
        self.texts = text_sources(self.model.text_encoders, config.text)
        for source in self.texts:
            source.check(["", *sorted(set(pairs.captions.values()))])
        self.networks = {"unet": self.unet, "vae": self.vae}
        self.encoder = _Moments(self.vae)
        self.velocity = velocity_network(self.unet, self.model.family.prediction)
        self.perceptual = None
        if config.loss.perceptual_loss_weight > 0:
            self.perceptual = load_perceptual(config.loss, [config.data.height_width])
        self.validation = None
        if config.validation.csv_path is not None and ranks.is_main:
            self.validation = PairValidation(
                config.validation, config.data.clip_config(), batch_size=config.batch_size
            )
        self.running_means = {}
        self.steps = {}
        self._built: dict[tuple, TrainStep] = {}
        self.stages = plan_stages(config)
        for stage in self.stages:  # so that wrong patterns show before the first step
            self._trained(stage)

    # -- stages ----------------------------------------------------------------------------------

    def enter(self, stage: Stage) -> None:
        trained, factors = self._trained(stage)
        self.steps = {}
        for name, network in self.networks.items():
            parameters = _named(name, network)
            for full, parameter in parameters.items():
                parameter.requires_grad = full in trained
            chosen = tuple((full, factors[full]) for full in parameters if full in trained)
            if chosen:
                # What trains as before goes on with the step that is compiled.
                key = name, chosen
                if key not in self._built:
                    self._built[key] = self._step(name, chosen).set_train()
                self.steps[name] = self._built[key]
        self.terms = ("vae_loss",) if "vae" in self.steps else ()

    def _step(self, name: str, chosen: tuple[tuple[str, float], ...]) -> TrainStep:
        """Return the step of one network.

        Args:
            name: of the network.
            chosen: names of the parameters that train, and factors on their learning rates.
        """
        if name == "unet":
            loss = FlowLoss(self.velocity)
        else:
            loss = AutoencoderLoss(
                self.vae, self.config.loss, perceptual=self.perceptual, ranks=self.ranks
            )
        parameters = _named(name, self.networks[name])
        return TrainStep(
            loss,
            self.config.optim,
            parameters=[parameters[full] for full, _ in chosen],
            lr_multipliers=[factor for _, factor in chosen],
            ranks=self.ranks,
            zero_stage=self.config.zero_stage,
        )

    def _trained(self, stage: Stage) -> tuple[set[str], dict[str, float]]:
        """Return the names of the parameters that train, and factors on their learning rates.

        Raises:
            ValueError: a pattern matches nothing, or nothing of the denoiser is left to train.
        """
        config, phase = self.config, stage.phase
        parameters = {}
        for name, network in self.networks.items():
            parameters |= _named(name, network)
        names = list(parameters)
        train = config.train if phase.train is None else phase.train
        freeze = [*config.freeze, *phase.freeze]
        trained = trainable_names(names, train, freeze, aliases=ALIASES)
        if not any(name.startswith("unet.") for name in trained):
            raise ValueError("train and freeze leave nothing of the denoiser (unet) to train")
        factors = learning_rate_multipliers(names, config.lr_multipliers, aliases=ALIASES)
        sizes = {name: parameter.size for name, parameter in parameters.items()}
        logger.info("Phase %d:\n%s", stage.phase_number, group_table(sizes, trained, factors))
        return set(trained), {name: f * phase.lr_multiplier for name, f in factors.items()}

    # -- one batch -------------------------------------------------------------------------------

    def run_batch(
        self, number: int, batch: EditBatch, controls: Controls, *, is_last: bool
    ) -> dict[str, float]:
        inputs = self.inputs(number, batch)  # with the VAE as it is before the update
        loss, norm = self._update("unet", controls, is_last, inputs)
        numbers = {"loss": loss, "grad_norm": norm}
        if "vae" in self.steps:
            indices = compared_frames(
                self.config.loss, batch.num_frames, seed=self.config.seed, step=number
            )
            of_vae = (batch.frames, inputs[2], indices)
            numbers["vae_loss"], numbers["vae_grad_norm"] = self._update(
                "vae", controls, is_last, of_vae
            )
            if not math.isfinite(numbers["vae_loss"] + numbers["vae_grad_norm"]):
                numbers["grad_norm"] = math.inf  # so that the run's guard counts the step as bad
        return numbers

    def _update(
        self, name: str, controls: Controls, is_last: bool, inputs: tuple[np.ndarray, ...]
    ) -> tuple[float, float]:
        """Return the loss and the norm of the gradient of one network's step."""
        loss, _, norm, _ = self.steps[name](
            Tensor(controls.lr, ms.float32),
            Tensor(controls.loss_scale, ms.float32),
            Tensor(controls.max_norm, ms.float32),
            is_last,
            *map(Tensor, inputs),
        )
        return float(loss.asnumpy()), float(norm.asnumpy())

    def inputs(self, number: int, batch: EditBatch) -> tuple[np.ndarray, ...]:
        """Return what the flow loss takes of a batch: mean, std, two noises, times, conditions.

        All that is random is keyed by (seed, number of the batch, place of the clip among those of
        all ranks).
        """
        mean, std, conditions = self.encoded(batch)
        size, *shape = mean.shape
        keys = {"seed": self.config.seed, "step": number, "first_place": self.ranks.rank * size}
        return (
            mean,
            std,
            keyed_noise(shape, size, kind="posterior", **keys),
            keyed_noise(shape, size, kind="path", **keys),
            draw_times(size, **keys).astype(np.float32, copy=False),
            *conditions,
        )

    def encoded(self, batch: EditBatch) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return mean and std of the edits' latents, scaled, and the conditions, of a batch."""
        size = len(batch.names)
        videos = np.concatenate([batch.frames, batch.sources])  # (2 B, 3, T, H, W)
        mean, logvar = (part.asnumpy() for part in self.encoder(Tensor(videos)))
        spec = self.vae.spec
        std = spec.scale_std(np.exp(np.clip(logvar, LOGVAR_MIN, LOGVAR_MAX) / 2))
        mean = spec.scale(mean).astype(np.float32, copy=False)
        given = [
            {"source": latent} if kept else {}
            for latent, kept in zip(mean[size:], batch.has_source, strict=True)
        ]
        texts = [array for source in self.texts for array in source.embed(batch.captions)]
        conditions = [*texts, *self.model.conditions.batch(given, mean.shape[1:])]
        return mean[:size], std[:size].astype(np.float32, copy=False), conditions

    # -- results ---------------------------------------------------------------------------------

    def validate(
        self, video_path: Path, *, should_stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        if self.validation is None:
            return None
        with self._averaged():
            return self.validation.run(
                self.encoded, self.velocity, self.vae, should_stop=should_stop
            )

    def export(self, folder: Path) -> Path:
        path, clips = folder / "generator", self.dataset.manifest.clips
        if self.ranks.is_main:
            data = self.config.data
            rates = [clip.fps for clip in clips if clip.fps > 0]
            with self._averaged():
                self.model.save_pretrained(
                    path,
                    defaults=self.model.defaults(*map(float, [np.median(rates)] if rates else [])),
                    scope=scope_of_captions(
                        list(self.dataset.pairs.captions.values()),
                        [data.sample_n_frames],
                        [data.height_width],
                    ),
                    overwrite=True,
                )
        return path

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights of all that trains in place for the time of the block."""
        with contextlib.ExitStack() as stack:
            for step in self.steps.values():
                stack.enter_context(averaged_weights(step.average))
            yield

    def metadata(self) -> dict[str, dict[str, str]]:
        config = json.dumps(self.unet.config.to_dict())
        return {"unet": {"transformer_config": config}, "vae": metadata_of(self.vae)}

    def next_command(self, weights: Path) -> str:
        caption = next(iter(self.dataset.pairs.captions.values()))
        return (
            f'mg generate --checkpoint {weights} --source VIDEO --prompt "{caption}" '
            "--output video.mp4"
        )


class _Moments(nn.Cell):
    """Mean and logvar of videos, compiled; no gradient leaves it."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__(auto_prefix=False)
        self.autoencoder = autoencoder

    def construct(self, video: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = self.autoencoder.moments(video)
        return ops.stop_gradient(mean), ops.stop_gradient(logvar)


def _named(name: str, network: nn.Cell) -> dict[str, ms.Parameter]:
    """Return a network's parameters that can train, with the network's name in front of theirs."""
    constants = getattr(network, "constants", ())
    return {
        f"{name}.{key}": parameter
        for key, parameter in network.parameters_and_names()
        if key not in constants
    }
