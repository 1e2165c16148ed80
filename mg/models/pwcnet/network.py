"""PWC-Net: pyramid, warping and cost volume (Sun et al., arXiv 1709.02371).

Shapes: N pairs of images (N, 3, H, W), H and W multiples of 64; flow (N, 2, H, W), channel 0 to the
right. Names of the weights are those of the public re-implementation that FloLPIPS uses
(`mg.models.pwcnet.config`).
"""

import numpy as np
from mindspore import Tensor, nn, ops

from mg.models.pwcnet.config import (
    DILATIONS,
    EXTRACTOR_CHANNELS,
    FLOW_CHANNELS,
    LEVELS,
    REFINER_CHANNELS,
    flow_inputs,
)

__all__ = ["PWCNet", "cost_volume", "warp"]

SLOPE = 0.1  # of all leaky ReLUs
REACH = 4  # of the cost volume, pixels in each direction
# A level's flow counts in 20ths of pixels of the frame: factors to pixels of the level itself.
WARP_FACTORS = {5: 0.625, 4: 1.25, 3: 2.5, 2: 5.0}
VALID = 0.999  # share of a warped pixel that has to come from inside


def cost_volume(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean over channels of first(x) second(x + d), (N, 81, H, W), d along x fastest.

    Args:
        first, second: features (N, C, H, W); beyond its borders the second is zero.
    """
    height, width = first.shape[2:]
    padded = ops.pad(second, (REACH, REACH, REACH, REACH))
    costs = []
    for dy in range(2 * REACH + 1):
        for dx in range(2 * REACH + 1):
            shifted = padded[:, :, dy : dy + height, dx : dx + width]
            costs.append((first * shifted).mean(1, keep_dims=True))
    return ops.concat(costs, axis=1)


def pixel_grid(height: int, width: int) -> np.ndarray:
    """Return the pixels' centres (1, H, W, 2) on the square from -1 to 1 that the edges span."""
    x = (2 * np.arange(width) + 1) / width - 1
    y = (2 * np.arange(height) + 1) / height - 1
    return np.stack(np.meshgrid(x, y), axis=-1)[np.newaxis].astype(np.float32)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Return features(x + flow(x)), bilinear, and zero where that is not wholly inside.

    As published, a flow of one pixel moves by W / (W - 1) pixels: it is divided by (W - 1) / 2, and
    the square from -1 to 1 spans W pixels.

    Args:
        features: (N, C, H, W).
        flow: (N, 2, H, W), pixels.
    """
    height, width = flow.shape[2:]
    scale = Tensor(np.array([2 / (width - 1), 2 / (height - 1)], np.float32).reshape(1, 2, 1, 1))
    moved = (flow * scale).transpose(0, 2, 3, 1)  # (N, H, W, 2)
    grid = Tensor(pixel_grid(height, width)) + moved
    warped = ops.grid_sample(features, grid, "bilinear", "zeros", False)
    inside = ops.grid_sample(ops.ones_like(flow[:, :1]), grid, "bilinear", "zeros", False)
    return warped * ops.cast(inside > VALID, warped.dtype)


def conv(in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        3,
        stride=stride,
        pad_mode="pad",
        padding=dilation,
        dilation=dilation,
        has_bias=True,
    )


def upsampling(in_channels: int) -> nn.Conv2dTranspose:
    return nn.Conv2dTranspose(in_channels, 2, 4, stride=2, pad_mode="pad", padding=1, has_bias=True)


class PyramidLevel(nn.Cell):
    """Three convolutions, the first of which halves height and width."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convs = nn.CellList(
            [
                conv(in_channels, channels, stride=2),
                conv(channels, channels),
                conv(channels, channels),
            ]
        )
        self.activation = nn.LeakyReLU(SLOPE)

    def construct(self, x: Tensor) -> Tensor:
        """Return (N, channels, H/2, W/2)."""
        for index in range(len(self.convs)):
            x = self.activation(self.convs[index](x))
        return x


class Estimator(nn.Cell):
    """The flow of one level, from its features and from what the coarser level found."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.is_coarsest = level == LEVELS[0]
        if not self.is_coarsest:
            self.factor = WARP_FACTORS[level]
            self.up_flow = upsampling(2)
            self.up_features = upsampling(flow_inputs(level + 1) + sum(FLOW_CHANNELS))
        channels = flow_inputs(level)
        convs = []
        for width in (*FLOW_CHANNELS, 2):
            convs.append(conv(channels, width))
            channels += width
        self.convs = nn.CellList(convs)
        self.activation = nn.LeakyReLU(SLOPE)

    def construct(
        self, first: Tensor, second: Tensor, flow: Tensor | None, features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the flow (N, 2, H, W) and the features that it was read from.

        Args:
            first, second: features of the two images at this level, (N, C, H, W).
            flow, features: of the coarser level; None at the coarsest.
        """
        if self.is_coarsest:
            x = self.activation(cost_volume(first, second))
        else:
            flow = self.up_flow(flow)
            features = self.up_features(features)
            volume = self.activation(cost_volume(first, warp(second, flow * self.factor)))
            x = ops.concat((volume, first, flow, features), axis=1)
        for index in range(len(FLOW_CHANNELS)):
            x = ops.concat((self.activation(self.convs[index](x)), x), axis=1)
        return self.convs[len(FLOW_CHANNELS)](x), x


class PWCNet(nn.Cell):
    """Optical flow from the first image to the second. Its weights get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        ins = (3, *EXTRACTOR_CHANNELS[:-1])
        self.extractor = nn.CellList(
            [PyramidLevel(*pair) for pair in zip(ins, EXTRACTOR_CHANNELS, strict=True)]
        )
        self.estimators = nn.CellList([Estimator(level) for level in LEVELS])
        ins = (flow_inputs(2) + sum(FLOW_CHANNELS), *REFINER_CHANNELS[:-1])
        self.refiner = nn.CellList(
            [
                conv(num_in, num_out, dilation=dilation)
                for num_in, num_out, dilation in zip(ins, REFINER_CHANNELS, DILATIONS, strict=True)
            ]
        )
        self.activation = nn.LeakyReLU(SLOPE)
        for parameter in self.get_parameters():
            parameter.requires_grad = False

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Return the features of the six levels, from fine to coarse."""
        levels = []
        for index in range(len(self.extractor)):
            images = self.extractor[index](images)
            levels.append(images)
        return levels

    def construct(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the flow (N, 2, H/4, W/4), in 20ths of pixels of the images.

        Args:
            first, second: images (N, 3, H, W) in [0, 1], RGB, sides multiples of 64.
        """
        of_first, of_second = self.pyramid(first), self.pyramid(second)
        flow, x = None, None
        for order in range(len(LEVELS)):
            level = LEVELS[order] - 1
            flow, x = self.estimators[order](of_first[level], of_second[level], flow, x)
        for index in range(len(self.refiner)):
            x = self.refiner[index](x)
            if index < len(self.refiner) - 1:
                x = self.activation(x)
        return flow + x
