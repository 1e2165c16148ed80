"""Size of an I3D network, and the shapes of its tensors (no MindSpore is imported here)."""

import dataclasses

__all__ = ["MIXED", "I3DConfig", "Unit", "units"]

# Channels of the four branches of each Inception module: 1x1; 1x1 and 3x3x3; 1x1 and 3x3x3; pool
# and 1x1 (Szegedy et al. 2015, table 1, blown up to 3-D).
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Kernel side and cell of each convolution of a module.
BRANCHES = {
    "Branch_0.Conv3d_0a_1x1": (1, "one"),
    "Branch_1.Conv3d_0a_1x1": (1, "small_in"),
    "Branch_1.Conv3d_0b_3x3": (3, "small"),
    "Branch_2.Conv3d_0a_1x1": (1, "thin_in"),
    "Branch_2.Conv3d_0b_3x3": (3, "thin"),
    "Branch_3.Conv3d_0b_1x1": (1, "pooled"),
}
CELLS = {
    "Conv3d_1a_7x7": "conv_1a",
    "Conv3d_2b_1x1": "conv_2b",
    "Conv3d_2c_3x3": "conv_2c",
    "Logits.Conv3d_0c_1x1": "logits",
}


@dataclasses.dataclass(frozen=True)
class I3DConfig:
    """Size of the network.

    Args:
        divisor: channels are divided by it; 1 is the published network.
        num_classes: logits.
        side: height and width of the frames, a multiple of 32.
    """

    divisor: int = 1
    num_classes: int = 400
    side: int = 224

    def __post_init__(self) -> None:
        if self.divisor < 1 or self.num_classes < 1 or self.side < 32 or self.side % 32:
            raise ValueError(
                f"I3D needs a divisor and classes of 1 or more and frames whose side is a multiple "
                f"of 32, got {self}"
            )


@dataclasses.dataclass(frozen=True)
class Unit:
    """One convolution: its name in the published network, channels and kernel side."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of its weight, (Cout, t*Cin, h, w): the taps over time come first."""
        size = self.kernel_size
        return (self.out_channels, size * self.in_channels, size, size)

    @property
    def cell(self) -> str:
        """Return the name of its cell in `mg.models.i3d.network.I3D`."""
        module, _, branch = self.name.partition(".")
        if module in MIXED:
            return f"mixed.{list(MIXED).index(module)}.{BRANCHES[branch][1]}"
        return CELLS[self.name]


def units(config: I3DConfig) -> dict[str, Unit]:
    """Return all convolutions by name, in the order of the network."""

    def thin(channels: int) -> int:
        return max(1, channels // config.divisor)

    found = [
        Unit("Conv3d_1a_7x7", 3, thin(64), 7),
        Unit("Conv3d_2b_1x1", thin(64), thin(64), 1),
        Unit("Conv3d_2c_3x3", thin(64), thin(192), 3),
    ]
    channels = thin(192)
    for module, widths in MIXED.items():
        outs = [thin(width) for width in widths]
        ins = (channels, channels, outs[1], channels, outs[3], channels)
        for branch, num_in, num_out in zip(BRANCHES, ins, outs, strict=True):
            found.append(Unit(f"{module}.{branch}", num_in, num_out, BRANCHES[branch][0]))
        channels = outs[0] + outs[2] + outs[4] + outs[5]
    found.append(Unit("Logits.Conv3d_0c_1x1", channels, config.num_classes, 1))
    return {unit.name: unit for unit in found}
