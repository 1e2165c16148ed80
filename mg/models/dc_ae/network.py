"""Open-Sora 2.0's Video DC-AE: few latents of many channels, by shortcuts that shuffle pixels.

Layouts
    video    (B, 3, T, H, W)              in [-1, 1], any T >= 1
    latent   (B, 128, T', H/32, W/32)     T' = ceil(T/4); sizes as published
    folded   (B*T, C, H, W)               inside
Levels are numbered from the video's side. Convolutions see zeros around the clip, before it as
behind it. One frame is an image, which is never doubled in time: how many frames a latent of one
frame stands for, one or four, has to be said. There is no posterior.
Names of parameters are Open-Sora's. Precision: see `mg.models.layers`.

Source: github.com/hpcaitech/Open-Sora, release v2.0 (arXiv 2503.09642), after DC-AE
(arXiv 2410.10733).
"""

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.latent_spec import LOGVAR_MIN
from mg.models.autoencoder import Autoencoder
from mg.models.dc_ae.config import VideoDCAEConfig, fields_of_shapes
from mg.models.dc_ae.layers import (
    ChannelRMSNorm,
    ConvLayer,
    DoublingConv,
    GatedConv,
    LinearAttention,
    ResBlock,
    averaged_down,
    repeated_up,
)
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.tiling.sizes import Tiling

__all__ = ["VideoDCAE"]


class Residual(nn.Cell):
    """x + main(x)."""

    def __init__(self, main: nn.Cell) -> None:
        super().__init__()
        self.main = main

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return x + self.main(x, num_frames)


class AttentionBlock(nn.Cell):
    """Linear attention over the clip, then a gated convolution, each with its residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels))
        self.local_module = Residual(GatedConv(channels))

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.local_module(self.context_module(x, num_frames), num_frames)


def make_blocks(block_type: str, depth: int, channels: int) -> list[nn.Cell]:
    """Return the blocks of a level."""
    if block_type == "ResBlock":
        return [Residual(ResBlock(channels)) for _ in range(depth)]
    return [AttentionBlock(channels) for _ in range(depth)]


class Downsample(nn.Cell):
    """A convolution of stride 2, plus blocks of pixels as channels, averaged to its width."""

    def __init__(self, in_channels: int, out_channels: int, *, halves_time: bool) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.halves_time = halves_time
        stride = (2 if halves_time else 1, 2)
        self.main = ConvLayer(in_channels, out_channels, stride=stride)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        factors = (2 if self.halves_time and num_frames > 1 else 1, 2)
        return self.main(x, num_frames) + averaged_down(x, self.out_channels, factors)


class Upsample(nn.Cell):
    """A convolution of repeated pixels, plus channels, repeated, as blocks of pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.main = DoublingConv(in_channels, out_channels)

    def construct(self, x: Tensor, num_frames: int, *, doubles_time: bool) -> Tensor:
        shortcut = repeated_up(x, self.out_channels, (2 if doubles_time else 1, 2))
        return self.main(x, num_frames, doubles_time=doubles_time) + shortcut


class EncoderLevel(nn.Cell):
    """Blocks; then, but in the last level, `Downsample`."""

    def __init__(self, config: VideoDCAEConfig, level: int) -> None:
        super().__init__()
        width = config.width_list[level]
        op_list = make_blocks(config.block_type[level], config.encoder_depth_list[level], width)
        if level < config.num_levels - 1:
            halves_time = config.temporal_downsample[level]
            below = config.width_list[level + 1]
            op_list.append(Downsample(width, below, halves_time=halves_time))
        self.op_list = nn.CellList(op_list)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        for operation in self.op_list:
            x = operation(x, num_frames)
        return x


class DecoderLevel(nn.Cell):
    """But in the last level `Upsample`; then blocks."""

    def __init__(self, config: VideoDCAEConfig, level: int) -> None:
        super().__init__()
        width = config.width_list[level]
        op_list = make_blocks(config.block_type[level], config.decoder_depth_list[level], width)
        self.has_upsample = level < config.num_levels - 1
        if self.has_upsample:
            op_list.insert(0, Upsample(config.width_list[level + 1], width))
        self.op_list = nn.CellList(op_list)

    def construct(self, x: Tensor, num_frames: int, *, doubles_time: bool) -> Tensor:
        """Return (B*T', C, H', W') of x (B*T, C_below, H, W), T' = 2T or T."""
        first = 0
        if self.has_upsample:
            x, first = self.op_list[0](x, num_frames, doubles_time=doubles_time), 1
        num_frames = 2 * num_frames if doubles_time else num_frames
        for index in range(first, len(self.op_list)):
            x = self.op_list[index](x, num_frames)
        return x


class EncoderEnd(nn.Cell):
    """A convolution to the latent's channels, plus the channels averaged in groups."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.main = Operations([ConvLayer(in_channels, out_channels)])

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        shortcut = averaged_down(x, self.out_channels, (1, 1))
        return self.main.op_list[0](x, num_frames) + shortcut


class DecoderStart(nn.Cell):
    """A convolution of the latent, plus its channels repeated."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.main = ConvLayer(in_channels, out_channels)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        return self.main(x, num_frames) + repeated_up(x, self.out_channels, (1, 1))


class Operations(nn.Cell):
    """Holds cells under the name that checkpoints have for a row of them."""

    def __init__(self, op_list: list[nn.Cell]) -> None:
        super().__init__()
        self.op_list = nn.CellList(op_list)


class Encoder(nn.Cell):
    """Video (B, 3, T, H, W), T = 1 or a multiple of 4 -> latent (B, C, T', H/32, W/32)."""

    def __init__(self, config: VideoDCAEConfig) -> None:
        super().__init__()
        self.halves_time = config.temporal_downsample
        self.project_in = ConvLayer(config.in_channels, config.width_list[0])
        self.stages = nn.CellList(
            [EncoderLevel(config, level) for level in range(config.num_levels)]
        )
        self.project_out = EncoderEnd(config.width_list[-1], config.latent_channels)

    def construct(self, video: Tensor) -> Tensor:
        num_frames = video.shape[2]
        x = self.project_in(fold_frames(video), num_frames)
        for level, stage in enumerate(self.stages):
            x = stage(x, num_frames)
            if self.halves_time[level] and num_frames > 1:
                num_frames = num_frames // 2
        return unfold_frames(self.project_out(x, num_frames), num_frames)


class Decoder(nn.Cell):
    """Latent (B, C, T', H/32, W/32) -> video (B, 3, T, H, W), T = 4T' or, of an image, 1."""

    def __init__(self, config: VideoDCAEConfig) -> None:
        super().__init__()
        width = config.width_list[0]
        self.doubles_time = config.temporal_downsample
        self.num_levels = config.num_levels
        self.project_in = DecoderStart(config.latent_channels, config.width_list[-1])
        self.stages = nn.CellList(
            [DecoderLevel(config, level) for level in range(config.num_levels)]
        )
        last = ConvLayer(width, config.in_channels)
        self.project_out = Operations([ChannelRMSNorm(width), nn.ReLU(), last])

    def features(self, z: Tensor, *, is_image: bool) -> tuple[Tensor, int]:
        """Return what the last convolution takes, (B*T, C, H, W), and T."""
        num_frames = z.shape[2]
        x = self.project_in(fold_frames(z), num_frames)
        for i in range(self.num_levels):
            level = self.num_levels - 1 - i
            doubles_time = self.doubles_time[level] and not is_image
            x = self.stages[level](x, num_frames, doubles_time=doubles_time)
            num_frames = 2 * num_frames if doubles_time else num_frames
        return self.project_out.op_list[1](self.project_out.op_list[0](x)), num_frames

    def frames(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) of `features`, with `weight` as the last one."""
        conv = self.project_out.op_list[2].conv
        x = conv.with_bias(conv.with_weight(features, num_frames, weight))
        return unfold_frames(x, num_frames)


class VideoDCAE(Autoencoder):
    """Open-Sora 2.0's autoencoder: 4x32x32, 128 channels, no posterior.

    Args:
        config: mapping with the fields of `VideoDCAEConfig`, or one; None takes the published
            network's.
        use_tile: encode and decode in overlapping tiles, in bounded memory.
        tiling: sizes of the tiles, with `use_tile`.
        encode_dtype: precision of the encoder, "float32", "float16" or "bfloat16".
        decode_dtype: the same for the decoder.

    Raises:
        ValueError: a config that no network can be built from.
    """

    family = "dc_ae"
    recomputed = (Residual,)
    has_posterior = False

    def __init__(
        self,
        config: Mapping[str, Any] | VideoDCAEConfig | None = None,
        *,
        use_tile: bool = False,
        tiling: Tiling | None = None,
        encode_dtype: str = "float32",
        decode_dtype: str = "float32",
    ) -> None:
        super().__init__(
            VideoDCAEConfig.from_mapping({} if config is None else config),
            use_tile=use_tile,
            tiling=tiling,
            sample_deterministic=True,
            encode_dtype=encode_dtype,
            decode_dtype=decode_dtype,
        )
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def explain_mismatch(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        try:
            found = fields_of_shapes({name: array.shape for name, array in tensors.items()})
        except ValueError:
            return []  # the names that are missing say more
        stated = self.config.to_dict()
        return [
            f"{name}: the weights have {value}, the config says {stated[name]}"
            for name, value in found.items()
            if value != stated[name]
        ]

    # -- inside compiled graphs: tensors in, tensors out, no checks ------------------------------

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent (B, C, T', H', W') of a video (B, 3, T, H, W), and LOGVAR_MIN, in fp32.

        A clip is completed to a multiple of 4 frames by repeating the last one; one frame is an
        image.
        """
        latent = self.encoder(self.completed(video).astype(self.encode_dtype)).astype(ms.float32)
        return latent, ops.full_like(latent, LOGVAR_MIN)

    def completed(self, video: Tensor) -> Tensor:
        """Return a video, its last frame repeated up to a whole number of latent frames."""
        num_frames = video.shape[2]
        missing = 0 if num_frames == 1 else -num_frames % self.spec.t
        if missing == 0:
            return video
        return ops.concat((video, *(video[:, :, -1:],) * missing), 2)

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last layer turns into frames, (B*T, C, H, W), and T.

        Args:
            z: (B, C, T', H', W').
            num_frames: 1 takes a latent of one frame as an image, which decodes to one frame; else
                T = 4 T'.
        """
        is_image = z.shape[2] == 1 and num_frames == 1
        return self.decoder.features(z.astype(self.decode_dtype), is_image=is_image)

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last one."""
        return self.decoder.frames(features, num_frames, weight).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the decoder's last layer, (3, C, 3, 3, 3)."""
        return self.decoder.project_out.op_list[2].conv.weight

    # -- for users -------------------------------------------------------------------------------

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent (B, C, T', H', W') as mean, and LOGVAR_MIN; see `Autoencoder`."""
        self.check_video_shape(video.shape)
        # Before it is cut into tiles: a last tile of one frame would be taken for an image.
        return super().posterior(self.completed(video))
