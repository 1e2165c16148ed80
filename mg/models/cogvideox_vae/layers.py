"""The parts of CogVideoX's autoencoder: causal convolution, norms, residual block."""

from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.cogvideox_vae.config import CogVideoXVAEConfig
from mg.models.layers.convolution3d import CausalConv3d, Conv3d
from mg.models.layers.devices import operations
from mg.models.layers.frames import fold_frames, take_frames
from mg.models.layers.normalisation import GroupNorm

__all__ = ["CausalConv", "Past", "PlainNorm", "ResnetBlock", "SpatialNorm"]

Past = tuple[Tensor, ...]  # the frames that convolutions hand on, in their order; () at the start


class CausalConv(nn.Cell):
    """Causal convolution: in time the first frame is repeated, in space zeros are added."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = CausalConv3d(in_channels, out_channels, kernel_size=kernel_size)

    def construct(
        self,
        x: Tensor,
        num_frames: int,
        past: Past,
        keeps_past: bool,
        weight: Tensor | None = None,
    ):
        """Return the convolution, and the frames of x to hand on, as a tuple of one or none.

        Args:
            x: (B*T, C, H, W).
            num_frames: T.
            past: what the chunk before handed on; () for the first.
            keeps_past: whether anything is handed on.
            weight: in place of the cell's own.
        """
        kept = ()
        if keeps_past:
            ends = (num_frames - 2 if num_frames > 1 else 0, num_frames - 1)
            kept = (take_frames(x, num_frames, ends),)
        before = past[0] if len(past) > 0 else None
        weight = self.conv.weight if weight is None else weight
        return self.conv.with_bias(self.conv.with_weight(x, num_frames, weight, before)), kept


class PlainNorm(GroupNorm):
    """The encoder's normalisation, over groups of channels of a chunk."""

    def construct(self, x: Tensor, num_frames: int, latent: Tensor | None) -> Tensor:
        return self.with_weights(x, num_frames, self.weight, self.bias)


class PointwiseConv(nn.Cell):
    """1x1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, kernel_size=1)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)


class SpatialNorm(nn.Cell):
    """The decoder's: scale and shift come from the latent, stretched to the size of the features.

        y = norm(x) * scale(z) + shift(z)

    (arXiv 2209.09002). scale and shift are 1x1x1 convolutions, so they act before z is stretched.
    """

    def __init__(self, channels: int, config: CogVideoXVAEConfig) -> None:
        super().__init__()
        self.norm_layer = GroupNorm(channels, config.norm_num_groups)
        self.conv_y = PointwiseConv(config.latent_channels, channels)
        self.conv_b = PointwiseConv(config.latent_channels, channels)
        self.resize = operations().ResizeNearest()

    def construct(self, x: Tensor, num_frames: int, latent: Tensor) -> Tensor:
        """Return y for x (B*T, C, H, W); the latent is (B, C', T', H', W')."""
        num_latents, factor = latent.shape[2], x.shape[2] // latent.shape[3]
        # Once x is there, not before: the compiler could stretch it for all norms at the start.
        z = fold_frames(ops.depend(latent, x))
        stretched = _stretched(num_latents, num_frames)
        scale = take_frames(self.conv_y(z), num_latents, stretched)
        shift = take_frames(self.conv_b(z), num_latents, stretched)
        y = self.norm_layer(x, num_frames)
        return y * self.resize(scale, factor) + self.resize(shift, factor)


@constexpr
def _stretched(num_latents: int, num_frames: int) -> tuple[int, ...]:
    """Return which frame of latent each frame of the chunk belongs to."""
    if num_frames == 1 or num_frames % 2 == 0:
        return tuple(i * num_latents // num_frames for i in range(num_frames))
    rest = num_frames - 1
    return (0, *(1 + i * (num_latents - 1) // rest for i in range(rest)))


class ResnetBlock(nn.Cell):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1x1 on x if the channels change."""

    def __init__(
        self, in_channels: int, out_channels: int, config: CogVideoXVAEConfig, *, decodes: bool
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels, config, decodes=decodes)
        self.norm2 = make_norm(out_channels, config, decodes=decodes)
        self.conv1 = CausalConv(in_channels, out_channels)
        self.conv2 = CausalConv(out_channels, out_channels)
        self.silu = operations().SiLU()
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = Conv3d(in_channels, out_channels, kernel_size=1)

    def construct(
        self, x: Tensor, num_frames: int, latent: Tensor | None, past: Past, keeps_past: bool
    ) -> tuple[Tensor, Past]:
        h = self.silu(self.norm1(x, num_frames, latent))
        h, first = self.conv1(h, num_frames, past[:1], keeps_past)
        h = self.silu(self.norm2(h, num_frames, latent))
        h, second = self.conv2(h, num_frames, past[1:], keeps_past)
        x = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h + x, first + second


def make_norm(channels: int, config: CogVideoXVAEConfig, *, decodes: bool) -> nn.Cell:
    """Return the normalisation of the encoder or of the decoder."""
    if decodes:
        return SpatialNorm(channels, config)
    return PlainNorm(channels, config.norm_num_groups, epsilon=config.norm_eps)
