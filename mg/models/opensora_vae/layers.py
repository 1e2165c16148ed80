"""The parts of Open-Sora's temporal VAE: causal convolution, residual block, time resampling.

Layouts
    clip     (B, C, T, H, W)   at public borders
    folded   (B*T, C, H, W)    everywhere in here: frames of a clip follow each other
Every cell takes a folded tensor `x` and the number `num_frames` (T) of frames per clip. Each
computes in the dtype of `x` and casts its fp32 weights to it; statistics of normalisation are fp32.

Source: github.com/hpcaitech/Open-Sora, release v1.2.
"""

from mindspore import Tensor, nn

from mg.models.layers.convolution3d import Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.normalisation import GroupNorm
from mg.models.opensora_vae.config import TemporalVAEConfig

__all__ = ["CausalConv3d", "ResBlock", "double_time", "make_blocks", "make_norm"]

NORM_EPSILON = 1e-5


class CausalConv3d(nn.Cell):
    """Causal convolution that pads all axes with zeros, time at the front.

    By k - 1 frames, by k - 2 at stride 2: output frame t ends its window at input frame
    stride * t + stride - 1.

    Args:
        in_channels, out_channels: channels.
        kernel_size: along all three axes, odd.
        stride: along time.
        has_bias: whether a bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        has_bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv3d(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=(stride, 1),
            time_padding=(kernel_size - stride, 0),
            pad_time_with="zeros",
            has_bias=has_bias,
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.conv(x, num_frames)


def make_norm(channels: int, config: TemporalVAEConfig) -> GroupNorm:
    """Return GroupNorm over (C/G, T, H, W) of each clip, with the epsilon of this network."""
    return GroupNorm(channels, config.num_groups, epsilon=NORM_EPSILON)


class ResBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1x1 on x if the channels change."""

    def __init__(self, in_channels: int, out_channels: int, config: TemporalVAEConfig) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, config)
        self.conv1 = CausalConv3d(in_channels, out_channels, has_bias=False)
        self.norm2 = make_norm(out_channels, config)
        self.conv2 = CausalConv3d(out_channels, out_channels, has_bias=False)
        self.silu = operations().SiLU()
        self.conv3 = (
            CausalConv3d(in_channels, out_channels, kernel_size=1, has_bias=False)
            if in_channels != out_channels
            else None
        )

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x, num_frames)), num_frames)
        h = self.conv2(self.silu(self.norm2(h, num_frames)), num_frames)
        if self.conv3 is not None:
            x = self.conv3(x, num_frames)
        return x + h


def make_blocks(in_channels: int, out_channels: int, config: TemporalVAEConfig) -> nn.CellList:
    """Return `num_res_blocks` residual blocks; the first changes the number of channels."""
    widths = [in_channels] + [out_channels] * config.num_res_blocks
    return nn.CellList(
        [ResBlock(widths[i], widths[i + 1], config) for i in range(config.num_res_blocks)]
    )


def double_time(x: Tensor) -> Tensor:
    """Return (B*T, 2C, H, W) as (B*2T, C, H, W): channel 2c + s becomes c of the s-th new frame."""
    total, channels, height, width = x.shape
    x = x.reshape(total, channels // 2, 2, height, width)
    return x.transpose(0, 2, 1, 3, 4).reshape(2 * total, channels // 2, height, width)
