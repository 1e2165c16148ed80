"""The arithmetic of layers in the form that takes the least time and memory on CPU.

The names are those of `mg.models.layers.plain`, the numbers too (to rounding); gradients are
written by hand where MindSpore's own take more.
"""

from mg.models.layers.cpu.convolution import (
    ChannelBias,
    ConvolveDoubled,
    SwapChannels,
    convolution,
)
from mg.models.layers.cpu.normalisation import NormaliseGroups, ScaleByRMS
from mg.models.layers.cpu.space_time import ConvolveSpaceThenTime
from mg.models.layers.cpu.values import (
    GeLU,
    PerClip,
    PerToken,
    ResizeNearest,
    ScaleChannelsAndPixels,
    SiLU,
    SumChannels,
)
from mg.models.layers.plain import ConvolveTime, StackRows

__all__ = [
    "ChannelBias",
    "ConvolveDoubled",
    "ConvolveSpaceThenTime",
    "ConvolveTime",
    "GeLU",
    "NormaliseGroups",
    "PerClip",
    "PerToken",
    "ResizeNearest",
    "ScaleByRMS",
    "ScaleChannelsAndPixels",
    "SiLU",
    "StackRows",
    "SumChannels",
    "SwapChannels",
    "convolution",
]
