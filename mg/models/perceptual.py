"""LPIPS: a learned perceptual distance between images (Zhang et al., 2018, version 0.1).

Shapes: N images, C channels, H and W pixels; images are RGB in [-1, 1], layout (N, 3, H, W).
"""

from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer

from mg.models.layers.devices import operations

__all__ = ["LPIPS", "LPIPSConfig", "LPIPSMaps"]

# Moves [-1, 1] to the input statistics that the backbones were trained with.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
# Under the root, so that a pixel whose features are all zero has a finite gradient; next to any
# other pixel's squared norm it vanishes in float32.
SQUARED_NORM_FLOOR = 1e-20


@dataclass(frozen=True)
class ConvStage:
    """One stage of a backbone: an optional max pool, then convolutions with ReLU."""

    channels: int
    num_convs: int = 1
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    pool_size: int = 0  # 0: no pool; else window side of a max pool with stride 2


STAGES = {
    "vgg": (
        ConvStage(64, num_convs=2),
        ConvStage(128, num_convs=2, pool_size=2),
        ConvStage(256, num_convs=3, pool_size=2),
        ConvStage(512, num_convs=3, pool_size=2),
        ConvStage(512, num_convs=3, pool_size=2),
    ),
    "alex": (
        ConvStage(64, kernel_size=11, stride=4, padding=2),
        ConvStage(192, kernel_size=5, padding=2, pool_size=3),
        ConvStage(384, pool_size=3),
        ConvStage(256),
        ConvStage(256),
    ),
}
MIN_SIZE = {"vgg": 16, "alex": 31}  # smaller images leave nothing for the last stage


@dataclass(frozen=True)
class LPIPSConfig:
    """What to compare features of.

    Args:
        net: backbone, "vgg" (VGG16, usual as a loss) or "alex" (AlexNet, usual as a metric).
        channels: channels of the five stages; None for the published network.
    """

    net: str = "vgg"
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.net not in STAGES:
            raise ValueError(f"LPIPS net must be one of {', '.join(STAGES)}, got {self.net!r}")
        if self.channels is not None and len(self.channels) != len(STAGES[self.net]):
            raise ValueError(
                f"LPIPS channels must name {len(STAGES[self.net])} stages, got {self.channels}"
            )


class FeatureStage(nn.Cell):
    """Convolutions of one resolution, each followed by ReLU."""

    def __init__(self, stage: ConvStage, in_channels: int, channels: int) -> None:
        super().__init__()
        self.has_pool = stage.pool_size > 0
        if self.has_pool:
            self.pool = nn.MaxPool2d(stage.pool_size, stride=2, pad_mode="valid")
        self.convs = nn.CellList(
            [
                nn.Conv2d(
                    in_channels if index == 0 else channels,
                    channels,
                    stage.kernel_size,
                    stride=stage.stride,
                    pad_mode="pad",
                    padding=stage.padding,
                    has_bias=True,
                )
                for index in range(stage.num_convs)
            ]
        )

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, channels, H', W')."""
        if self.has_pool:
            x = self.pool(x)
        for conv in self.convs:
            x = ops.relu(conv(x))
        return x


class LPIPS(nn.Cell):
    """Frozen network whose call returns one distance per pair of images.

    Weights start at random and mean nothing before a published set is loaded
    (`mg.metrics.lpips.load_lpips`). Computes in float32.

    Args:
        config: backbone and its channels.
    """

    def __init__(self, config: LPIPSConfig | None = None) -> None:
        super().__init__()
        config = config or LPIPSConfig()
        self.config = config
        self.min_size = MIN_SIZE[config.net]
        stages = STAGES[config.net]
        channels = config.channels or tuple(stage.channels for stage in stages)
        in_channels = (3, *channels[:-1])
        self.stages = nn.CellList(
            [
                FeatureStage(stage, num_in, num_out)
                for stage, num_in, num_out in zip(stages, in_channels, channels, strict=True)
            ]
        )
        self.heads = nn.CellList([DistanceHead(num_out) for num_out in channels])
        self.shift = Tensor(SHIFT, mstype.float32).reshape(1, 3, 1, 1)
        self.scale = Tensor(SCALE, mstype.float32).reshape(1, 3, 1, 1)
        for parameter in self.get_parameters():
            parameter.requires_grad = False

    def construct(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        """Return distances (N,), float32, 0 for equal images.

        Args:
            reference: images (N, 3, H, W) in [-1, 1]; gets no gradient.
            reconstruction: the same shape.
        """
        if reference.shape[2] < self.min_size or reference.shape[3] < self.min_size:
            raise ValueError(
                f"LPIPS needs images of at least {self.min_size}x{self.min_size} pixels"
            )
        x = self.standardise(ops.stop_gradient(reference))
        y = self.standardise(reconstruction)
        distance = ops.zeros((x.shape[0],), mstype.float32)
        for index in range(len(self.stages)):
            x = self.stages[index](x)
            y = self.stages[index](y)
            distance = distance + self.heads[index](x, y)
        return distance

    def standardise(self, images: Tensor) -> Tensor:
        """Return images in [-1, 1] with the statistics that the backbones were trained with."""
        return (ops.cast(images, mstype.float32) - self.shift) / self.scale


class DistanceHead(nn.Cell):
    """Weighted squared difference of unit-length features, averaged over space."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (channels,), mstype.float32))
        self.ones = Tensor(np.ones(channels, np.float32))
        self.sum = operations().SumChannels()
        self.scale = operations().ScaleChannelsAndPixels()

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (N,) from two feature maps (N, C, H, W)."""
        return self.per_pixel(x, y).mean((1, 2))

    def per_pixel(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (N, H, W) from two feature maps (N, C, H, W)."""
        squared = ops.square(self.unit_length(x) - self.unit_length(y))
        return self.sum(squared, self.weight)[:, 0]

    def unit_length(self, features: Tensor) -> Tensor:
        """Return features (N, C, H, W) divided by their norm over C."""
        squared_norm = self.sum(ops.square(features), self.ones)  # (N, 1, H, W)
        return self.scale(features, self.ones, ops.rsqrt(squared_norm + SQUARED_NORM_FLOOR))


class LPIPSMaps(nn.Cell):
    """LPIPS before its mean over space: a map of distances per stage.

    Args:
        lpips: the network, whose weights it shares.
    """

    def __init__(self, lpips: LPIPS) -> None:
        super().__init__(auto_prefix=False)
        self.lpips = lpips

    def construct(self, reference: Tensor, reconstruction: Tensor) -> tuple[Tensor, ...]:
        """Return five maps (N, H', W'), finer ones first; LPIPS is the sum of their means.

        Args:
            reference, reconstruction: images (N, 3, H, W) in [-1, 1].
        """
        x, y = self.lpips.standardise(reference), self.lpips.standardise(reconstruction)
        maps = ()
        for index in range(len(self.lpips.stages)):
            x = self.lpips.stages[index](x)
            y = self.lpips.stages[index](y)
            maps = (*maps, self.lpips.heads[index].per_pixel(x, y))
        return maps
