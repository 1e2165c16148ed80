"""Open-Sora's temporal VAE: a clip of spatial latents to a latent shorter in time, and back.

Layouts
    clip     (B, 4, T, H, W)        latents of a 2-D VAE frame by frame, any T >= 1
    latent   (B, 4, T', H, W)       T' = ceil(T/4)
Source: github.com/hpcaitech/Open-Sora, release v1.2, after MAGVIT-v2 (arXiv 2310.05737).
"""

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mg.models.opensora_vae.chunks import num_padding_frames
from mg.models.opensora_vae.config import TemporalVAEConfig, temporal_vae_shapes
from mg.models.opensora_vae.layers import CausalConv3d, double_time, make_blocks, make_norm
from mg.models.tae.config import LOGVAR_MAX, LOGVAR_MIN
from mg.models.tae.layers import fold_frames, unfold_frames
from mg.parameters import set_values
from mg.weights.tae_names import check_tensors

__all__ = ["TemporalVAE"]


class Encoder(nn.Cell):
    """Clip (B, 4, T, H, W), T a multiple of the compression -> features (B, 8, T', H, W)."""

    def __init__(self, config: TemporalVAEConfig) -> None:
        super().__init__()
        widths = config.widths
        inputs = [config.filters, *widths]
        self.halves_time = (*config.temporal_downsample, False)
        self.conv_in = CausalConv3d(config.in_out_channels, config.filters, has_bias=False)
        self.block_res_blocks = nn.CellList(
            [make_blocks(inputs[level], widths[level], config) for level in range(len(widths))]
        )
        self.conv_blocks = nn.CellList(
            [
                CausalConv3d(width, width, stride=2) if halves else nn.Identity()
                for width, halves in zip(widths, config.temporal_downsample, strict=False)
            ]
        )
        self.res_blocks = make_blocks(widths[-1], widths[-1], config)
        self.norm1 = make_norm(widths[-1], config)
        self.conv2 = CausalConv3d(widths[-1], 2 * config.latent_embed_dim, kernel_size=1)

    def construct(self, clip: Tensor) -> Tensor:
        num_frames = clip.shape[2]
        x = self.conv_in(fold_frames(clip), num_frames)
        for level, halves in enumerate(self.halves_time):
            for block in self.block_res_blocks[level]:
                x = block(x, num_frames)
            if halves:
                x = self.conv_blocks[level](x, num_frames)
                num_frames = num_frames // 2
        for block in self.res_blocks:
            x = block(x, num_frames)
        x = self.conv2(ops.silu(self.norm1(x, num_frames)), num_frames)
        return unfold_frames(x, num_frames)


class Decoder(nn.Cell):
    """Features (B, 4, T', H, W) -> clip (B, 4, T, H, W), all its frames.

    Levels are numbered as in the encoder and run from the last to the first.
    """

    def __init__(self, config: TemporalVAEConfig) -> None:
        super().__init__()
        widths = config.widths
        inputs = [*widths[1:], widths[-1]]
        self.doubles_time = (False, *config.temporal_downsample)
        self.conv1 = CausalConv3d(config.latent_embed_dim, widths[-1])
        self.res_blocks = make_blocks(widths[-1], widths[-1], config)
        self.block_res_blocks = nn.CellList(
            [make_blocks(inputs[level], widths[level], config) for level in range(len(widths))]
        )
        self.conv_blocks = nn.CellList(
            [
                CausalConv3d(width, 2 * width) if doubles else nn.Identity()
                for width, doubles in zip(widths[1:], config.temporal_downsample, strict=True)
            ]
        )
        self.norm1 = make_norm(widths[0], config)
        self.conv_out = CausalConv3d(widths[0], config.in_out_channels)

    def construct(self, features: Tensor) -> Tensor:
        num_frames = features.shape[2]
        x = self.conv1(fold_frames(features), num_frames)
        for block in self.res_blocks:
            x = block(x, num_frames)
        for level in range(len(self.doubles_time) - 1, -1, -1):
            for block in self.block_res_blocks[level]:
                x = block(x, num_frames)
            if self.doubles_time[level]:
                x = double_time(self.conv_blocks[level - 1](x, num_frames))
                num_frames = num_frames * 2
        x = self.conv_out(ops.silu(self.norm1(x, num_frames)), num_frames)
        return unfold_frames(x, num_frames)


class TemporalVAE(nn.Cell):
    """The temporal VAE: `moments` of a clip's latent, `frames_from` a latent.

    Both work on one chunk; see `mg.models.opensora_vae.chunks` for longer videos.

    Args:
        config: the structure.
    """

    def __init__(self, config: TemporalVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = TemporalVAEConfig() if config is None else config
        self.compression = config.temporal_compression
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv3d(
            2 * config.latent_embed_dim, 2 * config.embed_dim, kernel_size=1
        )
        self.post_quant_conv = CausalConv3d(
            config.embed_dim, config.latent_embed_dim, kernel_size=1
        )
        self.decoder = Decoder(config)

    def moments(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, embed_dim, T', H, W) in fp32 of a clip (B, C, T, H, W)."""
        batch, channels, num_frames, height, width = clip.shape
        num_padding = num_padding_frames(num_frames, self.compression)
        if num_padding:
            zeros = ops.zeros((batch, channels, num_padding, height, width), clip.dtype)
            clip = ops.concat((zeros, clip), 2)
        h = self.encoder(clip)
        h = unfold_frames(self.quant_conv(fold_frames(h), h.shape[2]), h.shape[2])
        mean, logvar = ops.chunk(h.astype(ms.float32), 2, axis=1)
        return mean, ops.clamp(logvar, LOGVAR_MIN, LOGVAR_MAX)

    def frames_from(self, latent: Tensor, num_frames: int) -> Tensor:
        """Return the clip (B, C, num_frames, H, W) in fp32 of a latent (B, embed_dim, T', H, W).

        Args:
            latent: the latent of one chunk.
            num_frames: frames of the clip that was encoded, with ceil(num_frames / 4) = T'; the
                zeros that completed it at the front are dropped again.
        """
        h = self.post_quant_conv(fold_frames(latent), latent.shape[2])
        x = self.decoder(unfold_frames(h, latent.shape[2])).astype(ms.float32)
        num_padding = num_padding_frames(num_frames, self.compression)
        return x[:, :, num_padding:] if num_padding else x

    def construct(self, clip: Tensor) -> Tensor:
        """Return the reconstruction of a clip from the mean of its posterior."""
        mean, _ = self.moments(clip)
        return self.frames_from(mean.astype(clip.dtype), clip.shape[2])

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Set all parameters from arrays under their official names.

        Raises:
            ValueError: a tensor is missing, left over or has another shape, by name.
        """
        check_tensors(tensors, temporal_vae_shapes(self.config))
        for name, parameter in self.parameters_and_names():
            set_values(parameter, tensors[_official_name(name)])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all parameters under their official names."""
        return {
            _official_name(name): parameter.asnumpy().copy()
            for name, parameter in self.parameters_and_names()
        }


def _official_name(name: str) -> str:
    """Return a parameter's name in the published checkpoint, where norms have weight and bias."""
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")
