"""3-D convolutions of clips, computed as 2-D convolutions: no 3-D convolution reaches a device.

    y_t = b + sum_k W_k * x_{s t + k - p}

with a 2-D convolution `*` for each tap k of the kernel in time. The frames that the taps of output
frame t see are stacked along the channels, and one 2-D convolution with the weight
(Cout, Cin kt, kh, kw) does them all. 3-D convolutions in bf16 fail or crawl on several Ascend
parts; on CPU they are half as quick.

Layouts and precision: see `mg.models.layers`.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mg.models.layers.convolution import drawn_weight, zero_bias
from mg.models.layers.devices import operations
from mg.models.layers.frames import channel_rows

__all__ = ["CausalConv3d", "Conv3d", "num_windows", "pad_edges", "tap_of"]


class Conv3d(nn.Cell):
    """3-D convolution of a clip.

    Args:
        in_channels, out_channels: channels.
        kernel_size: in time and in space, (kt, k) for kt x k x k; one number for both.
        stride: in time and in space; one number for both.
        time_padding: how many frames are added before the first one and after the last.
        space_padding: pixels on all four sides, or (top, bottom, left, right); None takes k // 2.
        pad_time_with: "edges" repeats the end frames, "zeros" adds frames of zeros.
        pad_space_with: the same for pixels.
        groups: of channels that are convolved each by itself; as many as channels is depthwise.
        has_bias: whether a bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        time_padding: tuple[int, int] = (0, 0),
        space_padding: int | tuple[int, int, int, int] | None = None,
        pad_time_with: str = "edges",
        pad_space_with: str = "zeros",
        groups: int = 1,
        has_bias: bool = True,
    ) -> None:
        super().__init__()
        self.taps, size = _pair(kernel_size)
        self.time_stride, space_stride = _pair(stride)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.time_padding = time_padding
        self.pads_time_with_zeros = _is_zeros(pad_time_with) and any(time_padding)
        padding = size // 2 if space_padding is None else space_padding
        self.edges = padding if not _is_zeros(pad_space_with) and size > 1 else 0
        self.kernel = (size, size)
        # (Cout, Cin / groups, kt, k, k), the shape that checkpoints have. The channels of the stack
        # are in this order, too, so that the weight need not be transposed.
        shape = (out_channels, in_channels // groups, self.taps, size, size)
        self.weight = drawn_weight(shape)
        self.bias = zero_bias(out_channels) if has_bias else None
        padding = 0 if self.edges else padding
        convolution, options = operations().convolution, {"stride": space_stride, "groups": groups}
        self.conv2d = convolution(
            self.taps * in_channels, out_channels, size, padding=padding, **options
        )
        self.conv2d_of_one = convolution(
            in_channels, out_channels, size, padding=padding, **options
        )
        self.stack = operations().StackRows()
        self.bias_add = operations().ChannelBias()

    def construct(self, x: Tensor, num_frames: int = 1, past: Tensor | None = None) -> Tensor:
        """Return the convolution (B*T', Cout, H', W') of folded clips (B*T, Cin, H, W).

        Args:
            x: the clips.
            num_frames: T.
            past: frames before them in the same layout, as many of each clip as `time_padding`
                asks for, which take the padding's place.
        """
        return self.with_bias(self.with_weight(x, num_frames, self.weight, past))

    def with_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else self.bias_add(y, self.bias.astype(y.dtype))

    def with_weight(
        self, x: Tensor, num_frames: int, weight: Tensor, past: Tensor | None = None
    ) -> Tensor:
        """Return the convolution, without bias, with `weight` in the place of the cell's own."""
        # Once x is there, not before: the compiler could copy all weights into shape at the start.
        weight = ops.depend(weight, x).astype(x.dtype)
        if self.edges:
            x = pad_edges(x, self.edges)
            past = None if past is None else pad_edges(past, self.edges)
        if self.taps == 1 and self.time_stride == 1:
            return self.conv2d(x, weight.reshape(self.out_channels, -1, *self.kernel))
        if num_frames == 1 and past is None:
            # All taps see the one frame, or one tap does and the others see zeros.
            zeros = self.pads_time_with_zeros
            return self.conv2d_of_one(
                x, tap_of(weight, self.time_padding[0]) if zeros else weight.sum(2)
            )
        x = self.stacked(x, num_frames, past)
        return self.conv2d(x, weight.reshape(self.out_channels, -1, *self.kernel))

    def stacked(self, x: Tensor, num_frames: int, past: Tensor | None) -> Tensor:
        """Return (B*T', Cin kt, H, W): the frames that the taps see, tap by tap in each channel."""
        total, channels, height, width = x.shape
        batch, has_past = total // num_frames, past is not None
        rows = _window_rows(
            batch,
            num_frames,
            channels,
            (self.taps, self.time_stride, *self.time_padding),
            self.pads_time_with_zeros,
            has_past,
        )
        if has_past:
            x = ops.concat((past, x), 0)
        if self.pads_time_with_zeros:
            x = ops.concat((x, ops.zeros_like(x[:1])), 0)
        x = self.stack(x.reshape(-1, height, width), rows)
        return x.reshape(-1, self.taps * channels, height, width)


class CausalConv3d(Conv3d):
    """`Conv3d` that sees this frame and those before it, never those after it.

    Args:
        in_channels, out_channels: channels.
        kernel_size, stride, options: as of `Conv3d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | tuple[int, int],
        **options: object,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            time_padding=(_pair(kernel_size)[0] - 1, 0),
            **options,
        )


def num_windows(num_frames: int, taps: int, stride: int, padding: tuple[int, int]) -> int:
    """Return how many frames a convolution over time gives.

    Args:
        num_frames: T.
        taps: size of the kernel in time.
        stride: in time.
        padding: frames added before and after.
    """
    return (num_frames + sum(padding) - taps) // stride + 1


@constexpr
def _window_rows(
    batch: int,
    num_frames: int,
    channels: int,
    window: tuple[int, int, int, int],
    pads_with_zeros: bool,
    has_past: bool,
) -> Tensor:
    """Return the rows (frame and channel) that the taps of each output frame see.

    They count in a batch of (past frames of all clips,) frames of all clips(, a frame of zeros).
    """
    taps, stride, before, after = window
    num_out = num_windows(num_frames, taps, stride, (before, after))
    frames = stride * np.arange(num_out)[:, None] - before + np.arange(taps)  # (T', kt)
    clips = np.arange(batch)[:, None, None]
    num_past = before if has_past else 0
    rows = batch * num_past + num_frames * clips + np.clip(frames, 0, num_frames - 1)
    if has_past:
        rows = np.where(frames < 0, num_past * clips + before + frames, rows)
        frames = np.maximum(frames, 0)
    if pads_with_zeros:
        outside = (frames < 0) | (frames >= num_frames)
        rows = np.where(outside, batch * (num_past + num_frames), rows)
    return channel_rows(rows.reshape(-1, taps), channels)


def tap_of(weight: Tensor, tap: int) -> Tensor:
    """Return one tap in time (Cout, Cin, h, w) of a weight (Cout, Cin, kt, h, w).

    Sliced as a matrix, which takes an eighth of the time that five axes take on CPU.
    """
    out_channels, in_channels, _, *kernel = weight.shape
    size = kernel[0] * kernel[1]
    rows = weight.reshape(out_channels * in_channels, -1)
    rows = rows[:, tap * size : (tap + 1) * size]
    return rows.reshape(out_channels, in_channels, *kernel)


def pad_edges(x: Tensor, size: int) -> Tensor:
    """Return (N, C, H + 2 size, W + 2 size): x (N, C, H, W) with its edge pixels repeated."""
    top, bottom = x[:, :, :1], x[:, :, -1:]
    x = ops.concat((*(top,) * size, x, *(bottom,) * size), 2)
    left, right = x[:, :, :, :1], x[:, :, :, -1:]
    return ops.concat((*(left,) * size, x, *(right,) * size), 3)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _is_zeros(padding: str) -> bool:
    if padding not in ("edges", "zeros"):
        raise ValueError(f"padding with {padding!r}; expected edges or zeros")
    return padding == "zeros"
