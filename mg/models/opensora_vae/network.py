"""Open-Sora's video VAE v1.2: a 2-D VAE on each frame, a temporal VAE on top.

Layouts
    video            (B, 3, T, H, W)         in [-1, 1], any T
    frame latents    (B, 4, T, H/8, W/8)     0.18215 * mean of the 2-D posterior
    latent           (B, 4, T', H/8, W/8)    posterior of the temporal VAE, chunk by chunk

Source: github.com/hpcaitech/Open-Sora, release v1.2. There the encoder draws a sample of the 2-D
posterior; here it takes its mean, so that a video has one posterior (the noise left out is small:
this posterior is narrow).
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import constexpr

from mg.latent_spec import LatentSpec
from mg.models.autoencoder_kl.network import AutoencoderKL
from mg.models.opensora_vae.chunks import chunk_lengths, latent_lengths
from mg.models.opensora_vae.temporal_vae import TemporalVAE

__all__ = ["OpenSoraNetwork"]

# Not SDXL's 0.13025, from which the 2-D weights come: the temporal weights were trained with this.
SPATIAL_SCALING = 0.18215


class Named(nn.Cell):
    """A network under the name `module`, as published."""

    def __init__(self, module: nn.Cell) -> None:
        super().__init__()
        self.module = module


class OpenSoraNetwork(nn.Cell):
    """The 2-D and the temporal network, with the published names of all tensors.

    Args:
        spatial: the 2-D VAE.
        temporal: the temporal VAE.
        micro_frame_size: frames of video that are coded together; None codes all together.
        shift, scale: for scaled latents (z - shift) / scale; no layer has a use for them.
    """

    def __init__(
        self,
        spatial: AutoencoderKL,
        temporal: TemporalVAE,
        *,
        micro_frame_size: int | None,
        shift: np.ndarray,
        scale: np.ndarray,
    ) -> None:
        super().__init__()
        self.spatial_vae = Named(spatial)
        self.temporal_vae = temporal
        self.compression = temporal.compression
        self.micro_frame_size = micro_frame_size
        self.scale, self.shift = (
            Parameter(Tensor(np.asarray(array, np.float32)), requires_grad=False)
            for array in (scale, shift)
        )

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, T', H', W') in fp32 of a video (B, 3, T, H, W)."""
        return self.moments_of_latents(self.spatial_vae.module.moments(video)[0])

    def frames_from(self, latent: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32 of an unscaled latent, see `latents_from`."""
        return self.spatial_vae.module.frames_from(self.latents_from(latent, num_frames))

    def moments_of_latents(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments of what the 2-D VAE makes of each frame, (B, 4, T, H', W')."""
        lengths = _chunks(means.shape[2], self.micro_frame_size)
        latent_means, logvars = [], []
        for chunk in _cut(means * SPATIAL_SCALING, lengths):
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
        chunks = _cut(latent, _latents(lengths, self.compression))
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
