"""Open-Sora's video VAE v1.2: a 2-D VAE on each frame, a temporal VAE on top.

Layouts
    video            (B, 3, T, H, W)         in [-1, 1], any T
    frame latents    (B, 4, T, H/8, W/8)     0.18215 * mean of the 2-D posterior
    latent           (B, 4, T', H/8, W/8)    posterior of the temporal VAE, chunk by chunk

Source: github.com/hpcaitech/Open-Sora, release v1.2. There the encoder draws a sample of the 2-D
posterior; here it takes its mean, so that a video has one posterior (the noise left out is small:
this posterior is narrow).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import constexpr

from mg.latent_spec import LatentSpec
from mg.models.autoencoder import Autoencoder
from mg.models.autoencoder_kl.network import AutoencoderKL
from mg.models.opensora_vae.chunks import chunk_lengths, latent_lengths
from mg.models.opensora_vae.config import OpenSoraVAEConfig, stored_spec
from mg.models.opensora_vae.layers import ResBlock as TemporalBlock
from mg.models.opensora_vae.temporal_vae import TemporalVAE

__all__ = ["OpenSoraNetwork"]

# Not SDXL's 0.13025, from which the 2-D weights come: the temporal weights were trained with this.
SPATIAL_SCALING = 0.18215
DTYPE_OPTIONS = ("encode_dtype", "decode_dtype")


class Named(nn.Cell):
    """A network under the name `module`, as published."""

    def __init__(self, module: nn.Cell) -> None:
        super().__init__()
        self.module = module


class OpenSoraNetwork(Autoencoder):
    """The 2-D and the temporal network, with the published names of all tensors.

    Args:
        config: the structure; None takes the published network's.
        options: as of `Autoencoder`.
    """

    family = "opensora"
    recomputed = (*AutoencoderKL.recomputed, TemporalBlock)
    # For scaled latents (z - shift) / scale; no layer has a use for them.
    constants = ("scale", "shift")

    def __init__(self, config: OpenSoraVAEConfig | None = None, **options: Any) -> None:
        config = OpenSoraVAEConfig.from_mapping({} if config is None else config)
        super().__init__(config, **options)
        dtypes = {name: options[name] for name in DTYPE_OPTIONS if name in options}
        self.spatial_vae = Named(AutoencoderKL(config.spatial, **dtypes))
        self.temporal_vae = TemporalVAE(config.temporal)
        self.compression = self.temporal_vae.compression
        self.micro_frame_size = config.micro_frame_size
        # Not as attributes: `scale` is what every autoencoder does to a latent.
        for name, value in config.stated_scaling().items():
            self._params[name] = Parameter(Tensor(value), name=name, requires_grad=False)

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Set all parameters; the latents' scale is the one that is stored among them."""
        super().load_tensors(tensors)
        self.spec = stored_spec(self.config, tensors)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, T', H', W') in fp32 of a video (B, 3, T, H, W)."""
        return self.moments_of_latents(self.spatial_vae.module.moments(video)[0])

    def frames_from(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32 of an unscaled latent, see `latents_from`."""
        return self.spatial_vae.module.frames_from(self.latents_from(z, num_frames))

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the 2-D decoder's last convolution takes, (B*T, C, H, W), and T."""
        return self.spatial_vae.module.features(self.latents_from(z, num_frames))

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last convolution's."""
        return self.spatial_vae.module.frames_of_features(features, num_frames, weight)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the 2-D decoder's last convolution, (3, C, 3, 3)."""
        return self.spatial_vae.module.last_weight

    def moments_of_latents(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments of what the 2-D VAE makes of each frame, (B, 4, T, H', W')."""
        lengths = _chunks(means.shape[2], self.micro_frame_size)
        latent_means, logvars = [], []
        for chunk in _cut((means * SPATIAL_SCALING).astype(self.encode_dtype), lengths):
            mean, logvar = self.temporal_vae.moments(chunk)
            latent_means.append(mean)
            logvars.append(logvar)
        return ops.concat(latent_means, 2), ops.concat(logvars, 2)

    def latents_from(self, latent: Tensor, num_frames: int | None = None) -> Tensor:
        """Return what the 2-D VAE decodes, (B, 4, T, H', W'), T at least `num_frames`.

        Videos of up to 4 different lengths have latents of the same T': the encoder completes the
        last chunk with zeros at its front, and `num_frames` says how many frames to drop there.
        Without it, or where T' is of a longer video, the longest video of that T' comes out.

        Args:
            latent: unscaled (B, 4, T', H', W').
            num_frames: frames of the video that was encoded.
        """
        lengths = _decoded(latent.shape[2], num_frames, self.compression, self.micro_frame_size)
        chunks = _cut(latent.astype(self.decode_dtype), _latents(lengths, self.compression))
        parts = []
        for i, chunk in enumerate(chunks):
            parts.append(self.temporal_vae.frames_from(chunk, lengths[i]))
        return ops.concat(parts, 2) / SPATIAL_SCALING


@constexpr
def _chunks(num_frames: int, micro_frame_size: int | None) -> tuple[int, ...]:
    return tuple(chunk_lengths(num_frames, micro_frame_size))


@constexpr
def _latents(lengths: tuple[int, ...], compression: int) -> tuple[int, ...]:
    return tuple(latent_lengths(list(lengths), compression))


@constexpr
def _decoded(
    num_latents: int, num_frames: int | None, compression: int, micro_frame_size: int | None
) -> tuple[int, ...]:
    """Return the lengths of the chunks that a latent of `num_latents` frames decodes to."""
    rule = LatentSpec(1, t=compression, h=1, w=1, chunk=micro_frame_size)
    if num_frames is None or rule.latent_frames(num_frames) != num_latents:
        num_frames = rule.decoded_frames(num_latents)
    return tuple(chunk_lengths(num_frames, micro_frame_size))


def _cut(clip: Tensor, lengths: tuple[int, ...]) -> list[Tensor]:
    """Return the pieces of (B, C, T, H, W) that have these lengths in time, in order."""
    pieces, start = [], 0
    for length in lengths:
        pieces.append(clip[:, :, start : start + length])
        start = start + length
    return pieces
