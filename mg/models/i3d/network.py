"""I3D: Inception-v1 blown up to three dimensions (Carreira and Zisserman, arXiv 1705.07750).

Shapes: B clips, T frames, C channels, H and W pixels. Frames are folded into the batch,
(B*T, C, H, W). A convolution over k x k x k is a 2-D one over k frames stacked along the channels,
which CPUs compute twice as fast as a 3-D one. Batch normalisation is part of the weights and
biases (`mg fetch-i3d`).
"""

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeUniform, Zero, initializer

from mg.models.i3d.config import MIXED, I3DConfig, Unit, units

__all__ = ["I3D", "StackedConv"]


def stacked_frames(x: Tensor, num_frames: int, size: int, stride: int) -> list[Tensor]:
    """Return, for each of `size` taps, the frames that it sees, (B, T', C, H, W).

    Frames beyond both ends are zero; T' = ceil(T / stride), and of an odd number of frames to be
    added the last end gets one more ("same" padding, as in TensorFlow).

    Args:
        x: (B*T, C, H, W).
        num_frames: T.
        size: taps.
        stride: frames from one output to the next.
    """
    _, channels, height, width = x.shape
    x = x.reshape(-1, num_frames, channels, height, width)
    num_out = -(-num_frames // stride)
    padding = max((num_out - 1) * stride + size - num_frames, 0)
    before, after = padding // 2, padding - padding // 2
    parts = [x]
    if before:
        parts.insert(0, ops.zeros((x.shape[0], before, channels, height, width), x.dtype))
    if after:
        parts.append(ops.zeros((x.shape[0], after, channels, height, width), x.dtype))
    if padding:
        x = ops.concat(parts, axis=1)
    last = (num_out - 1) * stride + 1
    return [x[:, tap : tap + last : stride] for tap in range(size)]


class StackedConv(nn.Cell):
    """Convolution over k x k x k with "same" padding, then bias and maybe ReLU."""

    def __init__(self, unit: Unit, *, stride: int = 1, has_relu: bool = True) -> None:
        super().__init__()
        self.size = unit.kernel_size
        self.stride = stride
        self.has_relu = has_relu
        self.weight = Parameter(initializer(HeUniform(), unit.shape, mstype.float32))
        self.bias = Parameter(initializer(Zero(), (unit.out_channels,), mstype.float32))
        self.conv = ops.Conv2D(unit.out_channels, self.size, pad_mode="same", stride=stride)
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        """Return (B*T', C', H', W') of (B*T, C, H, W)."""
        if self.size > 1:
            taps = stacked_frames(x, num_frames, self.size, self.stride)
            x = ops.concat(taps, axis=2)  # (B, T', t*Cin, H, W)
            x = x.reshape(-1, x.shape[2], x.shape[3], x.shape[4])
        x = self.bias_add(self.conv(x, self.weight), self.bias)
        return ops.relu(x) if self.has_relu else x


class StackedMaxPool(nn.Cell):
    """Maximum over t x k x k with "same" padding, of values that are not negative."""

    def __init__(self, *, frames: int, size: int, frame_stride: int, stride: int) -> None:
        super().__init__()
        self.frames = frames
        self.frame_stride = frame_stride
        self.pool = nn.MaxPool2d(size, stride=stride, pad_mode="same")

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        """Return (B*T', C, H', W') of (B*T, C, H, W)."""
        x = self.pool(x)
        if self.frames == 1:
            return x
        taps = stacked_frames(x, num_frames, self.frames, self.frame_stride)
        largest = taps[0]
        for tap in taps[1:]:
            largest = ops.maximum(largest, tap)
        return largest.reshape(-1, *largest.shape[2:])


class Inception(nn.Cell):
    """Four branches side by side along the channels (GoogLeNet, figure 2)."""

    def __init__(self, name: str, known: dict[str, Unit]) -> None:
        super().__init__()

        def conv(branch: str) -> StackedConv:
            return StackedConv(known[f"{name}.{branch}"])

        self.one = conv("Branch_0.Conv3d_0a_1x1")
        self.small_in = conv("Branch_1.Conv3d_0a_1x1")
        self.small = conv("Branch_1.Conv3d_0b_3x3")
        self.thin_in = conv("Branch_2.Conv3d_0a_1x1")
        self.thin = conv("Branch_2.Conv3d_0b_3x3")
        self.pool = StackedMaxPool(frames=3, size=3, frame_stride=1, stride=1)
        self.pooled = conv("Branch_3.Conv3d_0b_1x1")

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        """Return (B*T, C', H, W) of (B*T, C, H, W)."""
        branches = (
            self.one(x, num_frames),
            self.small(self.small_in(x, num_frames), num_frames),
            self.thin(self.thin_in(x, num_frames), num_frames),
            self.pooled(self.pool(x, num_frames), num_frames),
        )
        return ops.concat(branches, axis=1)


class I3D(nn.Cell):
    """The network up to its logits. Computes in float32; its weights get no gradient.

    Weights start at random and mean nothing before published ones are loaded
    (`mg.metrics.i3d.load_i3d`).

    Args:
        config: its size.
    """

    def __init__(self, config: I3DConfig | None = None) -> None:
        super().__init__()
        self.config = config or I3DConfig()
        known = units(self.config)
        self.conv_1a = StackedConv(known["Conv3d_1a_7x7"], stride=2)
        self.pool_2a = StackedMaxPool(frames=1, size=3, frame_stride=1, stride=2)
        self.conv_2b = StackedConv(known["Conv3d_2b_1x1"])
        self.conv_2c = StackedConv(known["Conv3d_2c_3x3"])
        self.pool_3a = StackedMaxPool(frames=1, size=3, frame_stride=1, stride=2)
        self.pool_4a = StackedMaxPool(frames=3, size=3, frame_stride=2, stride=2)
        self.pool_5a = StackedMaxPool(frames=2, size=2, frame_stride=2, stride=2)
        self.mixed = nn.CellList([Inception(name, known) for name in MIXED])
        self.average = nn.AvgPool2d(self.config.side // 32, stride=1)
        self.logits = StackedConv(known["Logits.Conv3d_0c_1x1"], has_relu=False)
        for parameter in self.get_parameters():
            parameter.requires_grad = False

    def construct(self, video: Tensor) -> Tensor:
        """Return logits (B, num_classes), the mean over time.

        Args:
            video: (B, 3, T, side, side) in [-1, 1], T at least 9.
        """
        batch, channels, num_frames, height, width = video.shape
        x = video.transpose(0, 2, 1, 3, 4).reshape(-1, channels, height, width)
        x = self.conv_1a(x, num_frames)
        num_frames = (num_frames + 1) // 2
        x = self.pool_2a(x, num_frames)
        x = self.conv_2c(self.conv_2b(x, num_frames), num_frames)
        x = self.pool_3a(x, num_frames)
        for index in range(2):
            x = self.mixed[index](x, num_frames)
        x = self.pool_4a(x, num_frames)
        num_frames = (num_frames + 1) // 2
        for index in range(2, 7):
            x = self.mixed[index](x, num_frames)
        x = self.pool_5a(x, num_frames)
        num_frames = (num_frames + 1) // 2
        for index in range(7, 9):
            x = self.mixed[index](x, num_frames)
        x = self.average(x)  # (B*T', C, 1, 1)
        x = x.reshape(batch, num_frames, -1)
        # A window of two frames moves along time by one.
        x = (x[:, :-1] + x[:, 1:]) / 2
        x = self.logits(x.reshape(-1, x.shape[2], 1, 1), num_frames - 1)
        return x.reshape(batch, num_frames - 1, -1).mean(1)
