"""FLOPs that are counted in a graph are those of the definitions."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from bench_tae import round_trip_flops
from graph_flops import flops_of_graph
from mg.models import layers
from mg.models.families import autoencoder_family
from tests.tiny import TAE


class Products(nn.Cell):
    """A convolution, its transposition, a product of matrices, a product with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ops.Conv2D(4, 3, pad_mode="pad", pad=1, stride=2)
        self.transposed = ops.Conv2DTranspose(4, 2, stride=2)
        self.weight = Parameter(Tensor(np.ones((4, 2, 3, 3), np.float32)), name="weight")
        self.back = Parameter(Tensor(np.ones((4, 2, 2, 2), np.float32)), name="back")
        self.matmul = ops.BatchMatMul(transpose_b=True)
        self.constant = Tensor(np.ones((5, 8), np.float32))

    def construct(self, x: Tensor) -> Tensor:
        y = self.conv(x, self.weight)  # (3, 4, 4, 4)
        z = self.transposed(y, self.back, (3, 2, 8, 8))
        rows = z.reshape(3, 16, 8)
        logits = self.matmul(rows, rows)  # (3, 16, 16)
        return ops.matmul(self.constant, rows.reshape(-1, 8).T).sum() + logits.sum()


def test_each_kind_of_product(graph_mode):
    x = Tensor(np.ones((3, 2, 8, 8), np.float32))
    conv = 2 * (3 * 4 * 4 * 4) * (2 * 3 * 3)
    transposed = 2 * (3 * 4 * 4 * 4) * (2 * 2 * 2)
    products = 2 * 3 * 16 * 16 * 8 + 2 * 5 * 48 * 8
    assert flops_of_graph(Products(), [x]) == conv + transposed + products


class RoundTrip(nn.Cell):
    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, video: Tensor) -> Tensor:
        return self.network.frames_from(self.network.moments(video)[0])


def test_the_flops_of_a_tae_are_those_of_its_definition_and_need_no_weights(graph_mode):
    with layers.choose("Ascend"):
        network = autoencoder_family("tae").build(TAE, has_values=False)
    video = Tensor(np.zeros((1, 3, 4, 16, 16), np.float32))
    counted = flops_of_graph(RoundTrip(network.set_train(False)), [video])
    assert counted == pytest.approx(round_trip_flops(TAE, 4, 16, 16), rel=0.01)
