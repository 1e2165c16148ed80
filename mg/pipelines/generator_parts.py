"""What a generator is made of: read from a folder, or put together by training. No MindSpore."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mg.conditions.text.encoder import TextEncoder
from mg.conditions.visual import NO_CHANNELS, ChannelConditions
from mg.console import one_line
from mg.latent_spec import LatentSpec
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.denoiser_config import DenoiserConfig
from mg.models.families import DenoiserFamily, denoiser_family
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.training_scope import TrainingScope

__all__ = ["DEFAULT_FAMILY", "GeneratorParts", "GeneratorWeights", "check_fit"]

DEFAULT_FAMILY = denoiser_family("movie_gen")


class GeneratorWeights(NamedTuple):
    """The weights of a generator.

    Attributes:
        transformer_tensors: of the network, read as it is used.
        autoencoder: whose latents it samples.
        sha256: of the weight files, by their path inside the folder.
    """

    transformer_tensors: Mapping[str, np.ndarray]
    autoencoder: AutoencoderParts
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class GeneratorParts:
    """What a generator is made of, before its networks are built.

    Attributes:
        folder: where it is.
        transformer_config, transformer_tensors: of the network, read as it is used. In a folder
            that is only opened there are no tensors yet, nor in the autoencoder, nor `sha256`.
        autoencoder: whose latents it samples.
        text_encoders: ready to encode; none where the folder has none, and texts must come
            embedded.
        defaults: for sampling.
        sha256: of the weight files, by their path inside the folder.
        scope: what the generator was trained on; None where the folder does not say.
        conditions: what the network is conditioned on besides text.
        family: of the network.
        scheduler: the fields of the scheduler_config.json that it was published with, if it was.
        read_weights: reads the weights of a folder that is only opened.
    """

    folder: Path
    transformer_config: DenoiserConfig
    transformer_tensors: Mapping[str, np.ndarray]
    autoencoder: AutoencoderParts
    text_encoders: list[TextEncoder]
    defaults: GeneratorDefaults
    sha256: Mapping[str, str]
    scope: TrainingScope | None = None
    conditions: ChannelConditions = NO_CHANNELS
    family: DenoiserFamily = DEFAULT_FAMILY
    scheduler: Mapping[str, Any] | None = None
    read_weights: Callable[[], GeneratorWeights] | None = None

    def with_weights(self) -> "GeneratorParts":
        """Return the parts of a folder that is only opened with its weights, read and hashed.

        Raises:
            FileNotFoundError, ValueError: missing or damaged files, weights other than those that
                were written, or of another size than the config says.
        """
        if self.read_weights is None:
            return self
        return dataclasses.replace(self, **self.read_weights()._asdict(), read_weights=None)

    def with_text_dtype(self, dtype: str) -> "GeneratorParts":
        """Return the parts with the text encoders in another precision, those that have several.

        Args:
            dtype: float32, float16 or bfloat16.

        Raises:
            ValueError: an unknown one, or one that no text encoder here has.
        """
        if dtype != "float32" and not any(e.has_precisions for e in self.text_encoders):
            raise ValueError(
                f"text_dtype={one_line(repr(dtype))} has no effect: of the text encoders only "
                "llama runs in other precisions than float32; leave it out"
            )
        encoders = [e.in_precision(dtype) if e.has_precisions else e for e in self.text_encoders]
        return dataclasses.replace(self, text_encoders=encoders)


def check_fit(
    config: DenoiserConfig,
    spec: LatentSpec,
    encoders: Sequence[TextEncoder],
    conditions: ChannelConditions,
) -> None:
    """Raise ValueError if parts do not belong together.

    Args:
        config: of the denoiser.
        spec: of the autoencoder's latents.
        encoders: of the texts; none will do, see `GeneratorParts`.
        conditions: besides text.
    """
    if spec.channels != config.latent_channels:
        raise ValueError(
            f"the autoencoder's latents have {spec.channels} channels, the transformer takes "
            f"{config.latent_channels}; they do not belong together"
        )
    beside = conditions.num_channels(spec.channels)
    if beside != config.condition_channels:
        raise ValueError(
            f"the transformer takes {config.condition_channels} channels beside the latent, and "
            f"its conditions, {' and '.join(conditions.names) or 'none'}, have {beside}"
        )
    given = [(encoder.width, encoder.max_tokens) for encoder in encoders]
    expected = [(encoder.width, encoder.max_tokens) for encoder in config.text_encoders]
    if given and given != expected:
        raise ValueError(
            f"the text encoders {[encoder.spec for encoder in encoders]} give (width, tokens) "
            f"{given}; the transformer takes {expected} of "
            f"{[encoder.name for encoder in config.text_encoders]}"
        )
