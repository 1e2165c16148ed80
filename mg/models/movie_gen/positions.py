"""Where a token is: learned tables per axis, and (an option) rotary positions.

Layouts
    grid     (frames, height, width) of a clip's tokens; L is their product, width fastest
    tokens   (B, L, D)
Source: Movie Gen (arXiv 2410.13720) section 3.1.3; rotary positions: RoFormer (arXiv 2104.09864),
with a share of each head for each axis.
"""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer
from mindspore.ops import constexpr

__all__ = ["PositionTables", "RotaryPositions"]

ROTARY_BASE = 10000.0


class PositionTables(nn.Cell):
    """Factorised learned positions: a vector per frame, per row and per column, added up."""

    def __init__(self, table: tuple[int, int, int], dim: int) -> None:
        super().__init__()
        frames, height, width = table
        self.frames = Parameter(initializer(Normal(0.02), (frames, dim)), name="frames")
        self.height = Parameter(initializer(Normal(0.02), (height, dim)), name="height")
        self.width = Parameter(initializer(Normal(0.02), (width, dim)), name="width")

    def construct(self, grid: tuple[int, int, int]) -> Tensor:
        """Return the positions of a grid that the tables are large enough for, (1, L, D)."""
        frames, height, width = grid
        dim = self.frames.shape[1]
        plane = self.height[:height].reshape(height, 1, dim) + self.width[:width]  # (H, W, D)
        plane = plane.reshape(1, height * width, dim)
        return (self.frames[:frames].reshape(frames, 1, dim) + plane).reshape(1, -1, dim)


def rotary_angles(grid: tuple[int, int, int], head_dim: int) -> np.ndarray:
    """Return the angle by which each pair of a head's numbers is turned, (L, d / 2).

    Height and width have a third of the pairs each, frames have the rest.
    """
    pairs = head_dim // 2
    shares = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    places = np.meshgrid(*(np.arange(size) for size in grid), indexing="ij")
    angles = [
        place.reshape(-1, 1) * ROTARY_BASE ** (-np.arange(share) / share)
        for place, share in zip(places, shares, strict=True)
    ]
    return np.concatenate(angles, axis=1)


@constexpr
def _cosines_and_sines(grid: tuple[int, int, int], head_dim: int) -> tuple[Tensor, Tensor]:
    angles = np.repeat(rotary_angles(grid, head_dim), 2, axis=1)  # both numbers of a pair
    angles = angles[:, None].astype(np.float32)  # (L, 1, d)
    return Tensor(np.cos(angles)), Tensor(np.sin(angles))


class RotaryPositions(nn.Cell):
    """Turn neighbouring numbers of queries and keys, (2i, 2i + 1), by their token's angles."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        # x turned by 90 degrees is x Q: (a, b) -> (-b, a). As a product because slicing every
        # second number has no gradient on CPU.
        quarter_turn = np.kron(np.eye(head_dim // 2), [[0.0, 1.0], [-1.0, 0.0]])
        self.quarter_turn = Tensor(quarter_turn.astype(np.float32))
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Return x (B, L, H, d), turned in fp32, in its dtype."""
        cosines, sines = _cosines_and_sines(grid, x.shape[-1])
        y = x.astype(ms.float32)
        turned = self.matmul(y.reshape(-1, x.shape[-1]), self.quarter_turn).reshape(x.shape)
        return (y * cosines + turned * sines).astype(x.dtype)
