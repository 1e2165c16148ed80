"""Patch discriminators: a map of logits that says where a video looks real.

Layouts
    video   (B, 3, T, H, W)   in [-1, 1]
    folded  (B*T, C, H, W)    everywhere inside
    logits  (B, 1, T', H', W')

Source: PatchGAN (Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks",
arXiv 1611.07004, appendix 6.1.2), with two differences. GroupNorm stands where BatchNorm stood, so
that no clip of a batch influences another. The last two layers have 3x3 instead of 4x4 kernels,
which keep the size of the map, so that small videos can be judged too.
"""

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Normal, initializer

from mg.models.discriminator_config import DiscriminatorConfig
from mg.models.layers.convolution import Conv2d
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.normalisation import GammaGroupNorm
from mg.models.layers.time_resampling import TemporalDownsample

__all__ = ["Discriminator"]

LEAKY_SLOPE = 0.2
SPATIAL_WEIGHT_STD = 0.02


class PatchLayer(nn.Cell):
    """Convolution, then GroupNorm over the frames of a clip, then LeakyReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        halves: whether the spatial convolution is 4x4 with stride 2, or 3x3.
        halves_time: whether a convolution over time with stride 2 follows it.
        norm_groups: groups of the normalisation; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        halves: bool,
        halves_time: bool,
        norm_groups: int,
    ) -> None:
        super().__init__()
        kernel = {"kernel_size": 4, "stride": 2} if halves else {"kernel_size": 3}
        self.conv_spat = Conv2d(in_channels, out_channels, padding=1, **kernel)
        _draw_normal(self.conv_spat.weight, std=SPATIAL_WEIGHT_STD)
        self.conv_temp = None
        if halves_time:
            self.conv_temp = TemporalDownsample(out_channels)
            # All taps count from the start, and the signal stays as large as it is.
            _draw_normal(self.conv_temp.conv.weight, std=1 / math.sqrt(3 * out_channels))
        self.norm = GammaGroupNorm(out_channels, norm_groups) if norm_groups else None
        self.activation = nn.LeakyReLU(LEAKY_SLOPE)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        """Return (B*T', C', H', W') from (B*T, C, H, W); T' = ceil(T/2) where time is halved."""
        x = self.conv_spat(x)
        if self.conv_temp is not None:
            x = self.conv_temp(x, num_frames)
            num_frames = (num_frames + 1) // 2
        if self.norm is not None:
            x = self.norm(x, num_frames)
        return self.activation(x)


class Discriminator(nn.Cell):
    """A network whose call returns logits: positive where a video looks real.

    The initial weights are drawn at random and follow `mindspore.set_seed`. It computes in the
    precision of the video, normalisation always in float32.

    Args:
        config: its structure.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.judges_motion = config.kind == "video"
        self.num_layers = config.num_layers
        self.min_size = config.min_size
        widths = config.widths
        layers = []
        for index, width in enumerate(widths):
            is_halving = index < config.num_layers
            layers.append(
                PatchLayer(
                    widths[index - 1] if index > 0 else 3,
                    width,
                    halves=is_halving,
                    halves_time=is_halving and self.judges_motion,
                    # The first layer sees pixels; normalised, it would miss a wrong brightness.
                    norm_groups=config.norm_groups if index > 0 else 0,
                )
            )
        self.layers = nn.CellList(layers)
        self.to_logits = Conv2d(widths[-1], 1, kernel_size=3, padding=1)
        _draw_normal(self.to_logits.weight, std=SPATIAL_WEIGHT_STD)

    def construct(self, video: Tensor) -> Tensor:
        """Return logits float32 (B, 1, T', H / 2^num_layers, W / 2^num_layers), rounded down.

        T' is T for the kind "frames" and ceil(T / 2^num_layers) for "video".

        Args:
            video: (B, 3, T, H, W) in [-1, 1], any T of 1 or more.

        Raises:
            ValueError: the video has too few pixels, or another layout.
        """
        if len(video.shape) != 5 or video.shape[1] != 3:
            raise ValueError(f"expected videos (B, 3, T, H, W), got the shape {video.shape}")
        _, _, num_frames, height, width = video.shape
        if height < self.min_size or width < self.min_size:
            raise ValueError(
                f"a discriminator with num_layers={self.num_layers} judges videos of at least "
                f"{self.min_size}x{self.min_size} pixels, got {height}x{width}; take fewer layers "
                "or larger videos"
            )
        x = fold_frames(video)
        frames_per_norm = num_frames if self.judges_motion else 1
        for index in range(len(self.layers)):  # slicing the list would rename its parameters
            x = self.layers[index](x, frames_per_norm)
            if self.judges_motion and index < self.num_layers:
                frames_per_norm = (frames_per_norm + 1) // 2
        logits = self.to_logits(x).astype(ms.float32)
        return unfold_frames(logits, frames_per_norm if self.judges_motion else num_frames)


def _draw_normal(weight: Parameter, *, std: float) -> None:
    weight.set_data(initializer(Normal(std), weight.shape, weight.dtype).init_data())
