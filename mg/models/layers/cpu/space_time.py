"""A convolution over space and one over time, as one where that is less work."""

from mindspore import Tensor, nn, ops

from mg.models.layers.cpu.convolution import ChannelBias, convolution
from mg.models.layers.plain import ConvolveTime

__all__ = ["ConvolveSpaceThenTime"]


class ConvolveSpaceThenTime(nn.Cell):
    """As the plain form, with fewer passes over the pixels.

    The spatial bias looks the same to every tap, as the end frames are repeated, so both biases
    are one, b = (sum_k W_k) b_s + b_t. Where all taps see the same frame, both convolutions are one
    too, with the weight (sum_k W_k) W_s.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.convolve_space = convolution(in_channels, out_channels, kernel_size, padding=padding)
        self.convolve_time = ConvolveTime(out_channels, kernel_size)
        self.bias_add = ChannelBias()
        self.matmul = ops.MatMul()  # the primitive, as in `ConvolveTime`

    def construct(
        self,
        x: Tensor,
        num_frames: int,
        spatial: Tensor,
        spatial_bias: Tensor,
        temporal: Tensor,
        temporal_bias: Tensor,
    ) -> Tensor:
        channels, in_channels, kernel_size, _ = spatial.shape
        total, _, height, width = x.shape
        # Each is worth it where pixels outnumber the weights that it takes to add up.
        pixels = total * height * width
        merges_weights = pixels > in_channels * kernel_size**2
        merges_biases = pixels > kernel_size * channels
        if merges_weights and self.convolve_time.sees_one_frame(num_frames):
            taps_sum = self.convolve_time.taps_sum(temporal)
            merged = self.matmul(taps_sum, spatial.reshape(channels, -1)).reshape(spatial.shape)
            y = self.convolve_space(x, merged.astype(x.dtype))
            return self._add(y, self._one_bias(spatial_bias, temporal, temporal_bias))
        y = self.convolve_space(x, spatial.astype(x.dtype))
        if merges_biases:
            y = self.convolve_time(y, num_frames, temporal)
            return self._add(y, self._one_bias(spatial_bias, temporal, temporal_bias))
        y = self.convolve_time(self._add(y, spatial_bias), num_frames, temporal)
        return self._add(y, temporal_bias)

    def _add(self, y: Tensor, bias: Tensor) -> Tensor:
        return self.bias_add(y, bias.astype(y.dtype))

    def _one_bias(self, spatial_bias: Tensor, temporal: Tensor, temporal_bias: Tensor) -> Tensor:
        # (sum_k W_k) b = [W_1 W_2 W_3] [b b b], which needs no sum of weights.
        ones = self.convolve_time.ones.reshape(1, -1)
        repeated = self.matmul(spatial_bias.reshape(-1, 1), ones).reshape(-1, 1)  # (C * k, 1)
        weight = temporal.reshape(temporal.shape[0], -1)
        return self.matmul(weight, repeated).reshape(-1) + temporal_bias
