"""How far a prediction of a latent is off, as a training loss."""

from mindspore import Tensor, nn, ops

__all__ = ["LatentError"]


class LatentError(nn.Cell):
    """Weighted sum of the mean squared and the mean absolute error of each clip.

    Args:
        mse_weight, l1_weight: of the two; 0 leaves one out.
    """

    def __init__(self, mse_weight: float, l1_weight: float) -> None:
        super().__init__(auto_prefix=False)
        self.mse_weight, self.l1_weight = mse_weight, l1_weight

    def construct(self, difference: Tensor) -> Tensor:
        """Return the error of each clip (B,).

        Args:
            difference: prediction - target, float32 (B, C, T, H, W).
        """
        axes = (1, 2, 3, 4)
        if self.l1_weight == 0:
            return self.mse_weight * ops.square(difference).mean(axes)
        absolute = self.l1_weight * ops.abs(difference).mean(axes)
        if self.mse_weight == 0:
            return absolute
        return self.mse_weight * ops.square(difference).mean(axes) + absolute
