"""A VAE and a denoiser that edits videos on its latents, as one model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms

from mg.cli import config_of_mapping
from mg.conditions.text.build import build_text_encoders
from mg.conditions.visual import ChannelConditions
from mg.latent_spec import LatentSpec
from mg.models.autoencoder import Autoencoder
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.denoiser import Denoiser
from mg.models.denoiser_config import DenoiserConfig, TextInput
from mg.models.reading import read_autoencoder
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_parts import GeneratorParts
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.training_scope import TrainingScope
from mg.pipelines.video_to_video import VideoToVideo
from mg.training.pretrained import find_start_weights
from mg.training.setting_checks import require
from mg.training.video_to_video.video_to_video_config import (
    NEEDED_TO_TRAIN,
    TrainVideoToVideoConfig,
)
from mg.vaes.video_vae import VideoVAE
from mg.weights.publishing import Publishable

__all__ = ["VideoToVideoDiffusion"]

FPS = 16.0  # of a generator whose videos do not tell
NOT_SET = dict.fromkeys(NEEDED_TO_TRAIN, "")  # of a model that is built alone


class VideoToVideoDiffusion(Publishable):
    """A VAE and a denoiser under texts and source videos.

    Attributes:
        config: settings of its training.
        vae: the autoencoder; another one may be set, whose latents the denoiser then takes.
        unet: the denoiser, of any family.
        conditions: the source video.
        text_encoders: of the prompts.
    """

    def __init__(
        self, config: TrainVideoToVideoConfig | Mapping[str, Any], load_pretrained: bool = False
    ) -> None:
        """Build the denoiser, with random weights, and read the VAE.

        Args:
            config: the settings, or a mapping as their YAML file has it; output_path and csv_path,
                which only training needs, may be left out of a mapping.
            load_pretrained: read the VAE that `config.pretrained` names; else set `vae`, which
                builds the denoiser.

        Raises:
            FileNotFoundError, ValueError: settings or weights that no model can be made of.
        """
        if isinstance(config, Mapping):
            config = config_of_mapping(TrainVideoToVideoConfig, {**NOT_SET, **config})
        self.config = config
        self.conditions = ChannelConditions(has_source=True)
        self.text_encoders = build_text_encoders(config.text.encoders)
        self.family = config.denoiser().family
        self._vae: Autoencoder | None = None
        self.unet: Denoiser | None = None
        if load_pretrained:
            self.vae = self._read_vae()

    @property
    def vae(self) -> Autoencoder:
        if self._vae is None:
            raise ValueError("this model has no VAE yet: load_pretrained=True, or set model.vae")
        return self._vae

    @vae.setter
    def vae(self, vae: Autoencoder | VideoVAE) -> None:
        network = vae.network if isinstance(vae, VideoVAE) else vae
        config = self._denoiser_config(network.spec)  # refuses a VAE that does not fit
        if self.unet is None or self.unet.config != config:
            ms.set_seed(self.config.seed)  # of the random initial weights
            every = self.config.denoiser().recompute_every
            self.unet = self.family.build(config, dtype=self.config.dtype, recompute_every=every)
        self._vae = network

    def _read_vae(self) -> Autoencoder:
        stated, dtype = self.config.pretrained.vae, self.config.dtype
        parts = read_autoencoder(
            find_start_weights(stated),
            method=stated.method,
            inflate_method=stated.inflate_method,
            key=stated.key,
        )
        return parts.build(encode_dtype=dtype, decode_dtype=dtype)

    def _denoiser_config(self, spec: LatentSpec) -> DenoiserConfig:
        """Return the denoiser's config for a VAE's latents; what does not fit is refused."""
        config, name = self.config, self.config.pretrained.vae.model_name
        for field, of_vae, what in (
            ("latent_dim", spec.channels, "the latents"),
            ("in_channels", spec.video_channels, "the videos"),
        ):
            given = config.model.get(field)
            require(
                given in (None, of_vae),
                f"model.{field}={given}, but {what} of the VAE ({name}) have {of_vae} channels; "
                f"set model.{field}={of_vae}, or leave it out",
            )
        num_frames = config.data.sample_n_frames
        valid = spec.valid_frames(num_frames)
        require(
            valid == num_frames,
            f"data.sample_n_frames={num_frames}: the VAE takes {spec.head} + {spec.step} k frames; "
            f"use {valid}",
        )
        model = config.denoiser().config(
            text_encoders=[TextInput(e.name, e.width, e.max_tokens) for e in self.text_encoders],
            latent_channels=spec.channels,
            condition_channels=self.conditions.num_channels(spec.channels),
        )
        try:
            shape = spec.latent_shape(num_frames, *config.data.height_width)
            model.token_grid((1, *shape))
        except ValueError as error:
            raise ValueError(f"data.resolution={config.data.resolution}: {error}") from error
        return model

    def defaults(self, fps: float = FPS) -> GeneratorDefaults:
        """Return how the generator samples by default.

        Args:
            fps: of the training videos.
        """
        config = self.config
        return GeneratorDefaults(
            num_frames=config.data.sample_n_frames,
            size=config.data.height_width,
            fps=fps,
            guidance=config.sampling.guidance,
            guidance_drops=config.sampling.guidance_drops,
            steps=config.sampling.steps,
        )

    def pipeline(self) -> VideoToVideo:
        """Return the model as one that is called with a source and a prompt.

        It has the denoiser itself, and a copy of the VAE.
        """
        parts = GeneratorParts(
            folder=Path(self.config.output_path),
            transformer_config=self.unet.config,
            transformer_tensors={},
            autoencoder=AutoencoderParts.of_network(self.vae),
            text_encoders=self.text_encoders,
            defaults=self.defaults(),
            sha256={},
            conditions=self.conditions,
            family=self.family,
        )
        return VideoToVideo(parts, transformer=self.unet)

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        *,
        defaults: GeneratorDefaults | None = None,
        scope: TrainingScope | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write the folder that `VideoToVideo.from_pretrained` opens.

        Args:
            folder: to write, all of it or nothing.
            defaults: for sampling; None takes those of the settings.
            scope: what it was trained on.
            overwrite: whether a generator that is there may be replaced.

        Raises:
            FileExistsError: the folder exists and `overwrite` is false.
        """
        save_generator(
            folder,
            transformer_tensors=self.unet.tensors(),
            transformer_config=self.unet.config,
            autoencoder=self.vae,
            text_encoders=self.text_encoders,
            defaults=defaults or self.defaults(),
            scope=scope,
            conditions=self.conditions,
            family=self.family,
            overwrite=overwrite,
        )
