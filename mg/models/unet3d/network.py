"""A 3-D U-Net: the velocity of a noisy latent, given the time, text and what lies beside it.

Layouts
    latent   (B, C, T, H, W)
    x        (B*T, C, H, W)    frames folded into the batch, as in the autoencoders
    tokens   (B, T*H*W, C)     or (B*T, H*W, C) in a frame, (B*H*W, T, C) at a pixel
Source: Video Diffusion Models (arXiv 2204.03458) section 3. Convolutions see three frames and are
2-D ones over stacked frames; attention is apart in space and in time.
"""

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Zero, initializer
from mindspore.ops import constexpr

from mg.models.denoiser import Denoiser
from mg.models.layers.convolution3d import Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.normalisation import GroupNorm
from mg.models.layers.tokens import (
    AttentionMask,
    GeluFeedForward,
    LayerNorm,
    Linear,
    attend,
    has_flash_attention,
)
from mg.models.movie_gen.conditions import TextInputs, TimeEmbedding
from mg.models.unet3d.config import UNet3DConfig
from mg.parallel.sequence import SequenceParallel

__all__ = ["UNet3D"]

LONGEST_PERIOD = 10000.0


class UNet3D(Denoiser):
    """The U-Net; calling it gives the velocity. A new network predicts zero.

    Args:
        config: the network's config, as a `UNet3DConfig` or a mapping with its fields.
        dtype: precision of the computation, "float32", "float16" or "bfloat16".
        recompute_every: in training, compute the insides of every n-th residual block again in the
            backward pass; 0 is none.
        sequence: must be None: ranks cannot share the frames.

    Raises:
        ValueError: a config that no network can be built from, a precision that the device lacks,
            ranks that are to share the frames.
    """

    family = "unet"

    def __init__(
        self,
        config: Mapping | UNet3DConfig,
        *,
        dtype: str = "float32",
        recompute_every: int = 0,
        sequence: SequenceParallel | None = None,
    ) -> None:
        config = UNet3DConfig.from_mapping(config)
        super().__init__(config, dtype=dtype, recompute_every=recompute_every)
        if sequence is not None:
            config.tokens_per_rank(0, sequence.size)  # which refuses
        self.check_inputs = constexpr(config.check_inputs)
        widths = config.widths
        self.time_embedding = TimeEmbedding(config)
        self.text_inputs = TextInputs(config)
        self.conv_in = _conv(config.latent_channels, widths[0])
        self.has_condition = config.condition_channels > 0
        if self.has_condition:  # more channels of conv_in, that begin at zero
            self.condition_in = _zeroed(_conv(config.condition_channels, widths[0], has_bias=False))
        flash = has_flash_attention(self.dtype)
        down, up, skips, width = [], [], [], widths[0]
        for level, out_width in enumerate(widths):
            has_attention = level in config.attention_levels
            for _ in range(config.num_res_blocks):
                down.append(Block(config, width, out_width, has_attention, flash))
                skips.append(out_width)
                width = out_width
            down.append(Halve(width) if level + 1 < len(widths) else nn.Identity())
        self.down = nn.CellList(down)
        self.middle = Block(config, width, width, True, flash)
        for level in reversed(range(len(widths))):
            has_attention = level in config.attention_levels
            for _ in range(config.num_res_blocks):
                up.append(Block(config, width + skips.pop(), widths[level], has_attention, flash))
                width = widths[level]
            up.append(Double(width) if level else nn.Identity())
        self.up = nn.CellList(up)
        self.norm_out = GroupNorm(width, config.norm_groups)
        self.conv_out = _zeroed(_conv(width, config.latent_channels))
        self.silu = operations().SiLU()
        self.num_levels, self.num_blocks = len(widths), config.num_res_blocks
        blocks = [cell for cell in (*down, *up) if isinstance(cell, Block)]
        self.recompute_blocks(blocks)

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return the velocity (B, C, T, H, W) in fp32.

        Args:
            latent: noisy latent (B, C, T, H, W).
            t: time of each clip (B,), 0 (noise) to 1 (data).
            conditions: for each of `config.text_encoders`, in order, an embedding (B, L, width)
                and a mask (B, L) bool, true where a token counts; then, with
                `config.condition_channels`, what lies beside the latent, (B, C_c, T, H, W).
        """
        shapes = ()
        for tensor in conditions:
            shapes += (tensor.shape,)
        self.check_inputs(latent.shape, t.shape, *shapes)
        num_frames = latent.shape[2]
        x = self.conv_in(fold_frames(latent.astype(self.dtype)), num_frames)
        if self.has_condition:
            beside = fold_frames(conditions[-1].astype(self.dtype))
            x = x + self.condition_in(beside, num_frames)
            conditions = conditions[:-1]
        time = self.time_embedding(t)  # (B, D) fp32
        text, valid = self.text_inputs(self.dtype, *conditions)  # (B, L, D), (B, L)
        skips = ()
        for level in range(self.num_levels):
            first = level * (self.num_blocks + 1)
            for number in range(self.num_blocks):
                x = self.down[first + number](x, num_frames, time, text, valid)
                skips += (x,)
            x = self.down[first + self.num_blocks](x)
        x = self.middle(x, num_frames, time, text, valid)
        for level in range(self.num_levels):
            first = level * (self.num_blocks + 1)
            for number in range(self.num_blocks):
                x = ops.concat((x, skips[-1]), axis=1)
                skips = skips[:-1]
                x = self.up[first + number](x, num_frames, time, text, valid)
            x = self.up[first + self.num_blocks](x)
        y = self.conv_out(self.silu(self.norm_out(x, num_frames)), num_frames)
        return unfold_frames(y.astype(ms.float32), num_frames)


def _conv(in_channels: int, out_channels: int, *, has_bias: bool = True) -> Conv3d:
    """Return a convolution over 3 frames of 3x3 pixels that keeps the size."""
    return Conv3d(in_channels, out_channels, kernel_size=3, time_padding=(1, 1), has_bias=has_bias)


def _zeroed(conv: Conv3d) -> Conv3d:
    conv.weight = Parameter(initializer(Zero(), conv.weight.shape), name="weight")
    return conv


class Halve(nn.Cell):
    """Half the height and the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv3d(width, width, kernel_size=(1, 3), stride=(1, 2), space_padding=1)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Double(nn.Cell):
    """Twice the height and the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resize = operations().ResizeNearest()
        self.conv = Conv3d(width, width, kernel_size=(1, 3))

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(self.resize(x, 2))


class Block(nn.Cell):
    """A residual block that follows the time, and attention behind it, if any."""

    def __init__(
        self, config: UNet3DConfig, width: int, out_width: int, has_attention: bool, flash: bool
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(width, _groups(width, config.norm_groups))
        self.conv1 = _conv(width, out_width)
        self.time = Linear(config.dim, out_width)
        self.norm2 = GroupNorm(out_width, config.norm_groups)
        self.conv2 = _conv(out_width, out_width)
        self.is_same = width == out_width
        if not self.is_same:
            self.shortcut = Conv3d(width, out_width, kernel_size=1)
        self.silu = operations().SiLU()
        self.has_attention = has_attention
        if has_attention:
            self.transformer = FrameTransformer(config, out_width, flash)

    def construct(
        self, x: Tensor, num_frames: int, time: Tensor, text: Tensor, valid: Tensor
    ) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x, num_frames)), num_frames)
        total, width, _, _ = h.shape
        of_clip = self.time(time).reshape(-1, 1, width)  # (B, 1, C)
        of_frame = ops.broadcast_to(of_clip, (total // num_frames, num_frames, width))
        h = h + of_frame.reshape(total, width, 1, 1).astype(h.dtype)
        h = self.conv2(self.silu(self.norm2(h, num_frames)), num_frames)
        x = h + (x if self.is_same else self.shortcut(x))
        return self.transformer(x, num_frames, text, valid) if self.has_attention else x


def _groups(width: int, num_groups: int) -> int:
    """Return the most groups, up to so many, that divide a width: that of joined skips too."""
    return next(n for n in range(num_groups, 0, -1) if width % n == 0)


class FrameTransformer(nn.Cell):
    """Attention of pixels within a frame, of frames at a pixel, of all to text; feed-forward."""

    def __init__(self, config: UNet3DConfig, width: int, flash: bool) -> None:
        super().__init__()
        self.num_heads, self.flash = config.num_heads, flash
        self.spatial_norm = LayerNorm(width, config.norm_eps)
        self.spatial_attention = Attention(width, width, config.num_heads, flash)
        self.temporal_norm = LayerNorm(width, config.norm_eps)
        self.temporal_attention = Attention(width, width, config.num_heads, flash)
        self.text_norm = LayerNorm(width, config.norm_eps)
        self.text_attention = Attention(width, config.dim, config.num_heads, flash)
        self.ff_norm = LayerNorm(width, config.norm_eps)
        self.ff = GeluFeedForward(width, 4 * width)
        self.places = constexpr(_frame_waves)
        self.attention_mask = AttentionMask()

    def construct(self, x: Tensor, num_frames: int, text: Tensor, valid: Tensor) -> Tensor:
        total, width, rows, columns = x.shape
        batch, pixels = total // num_frames, rows * columns
        tokens = x.reshape(total, width, pixels).transpose(0, 2, 1)  # (B*T, H*W, C)
        h = self.spatial_norm(tokens)
        tokens = tokens + self.spatial_attention(h, h, None)
        # (B*T, H*W, C) -> (B*H*W, T, C)
        at_pixel = tokens.reshape(batch, num_frames, pixels, width).transpose(0, 2, 1, 3)
        at_pixel = at_pixel.reshape(batch * pixels, num_frames, width)
        h = self.temporal_norm(at_pixel) + self.places(num_frames, width).astype(x.dtype)
        at_pixel = at_pixel + self.temporal_attention(h, h, None)
        tokens = at_pixel.reshape(batch, pixels, num_frames, width).transpose(0, 2, 1, 3)
        tokens = tokens.reshape(batch, num_frames * pixels, width)
        mask = self.attention_mask(valid, tokens.shape[1], self.num_heads, self.flash)
        tokens = tokens + self.text_attention(self.text_norm(tokens), text, mask)
        tokens = tokens + self.ff(self.ff_norm(tokens))
        return tokens.reshape(total, pixels, width).transpose(0, 2, 1).reshape(x.shape)


def _frame_waves(num_frames: int, width: int) -> Tensor:
    """Return sine and cosine of the frames' numbers, (1, T, C), so that their order counts."""
    rates = LONGEST_PERIOD ** (-np.arange(width // 2) / (width / 2))
    angles = np.arange(num_frames)[:, np.newaxis] * rates
    waves = np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
    return Tensor(waves[np.newaxis].astype(np.float32))


class Attention(nn.Cell):
    """Multi-head attention of tokens to a context."""

    def __init__(self, width: int, context_width: int, num_heads: int, flash: bool) -> None:
        super().__init__()
        self.num_heads, self.flash = num_heads, flash
        self.to_q = Linear(width, width, has_bias=False)
        self.to_k = Linear(context_width, width, has_bias=False)
        self.to_v = Linear(context_width, width, has_bias=False)
        self.to_out = nn.CellList([Linear(width, width)])

    def construct(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Return (N, L, C) of tokens (N, L, C) and a context (N, Lk, C_k)."""
        query, key = self.heads(self.to_q(x)), self.heads(self.to_k(context))
        value = self.heads(self.to_v(context))
        return self.to_out[0](attend(query, key, value, mask, flash=self.flash))

    def heads(self, x: Tensor) -> Tensor:
        """Return (N, L, C) as (N, L, H, d)."""
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads)
