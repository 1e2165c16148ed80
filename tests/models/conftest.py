"""Tiny autoencoders with random weights, and random videos."""

import numpy as np
import pytest
from mindspore import Tensor

from mg.models.tae.tae import TemporalAutoencoder
from tests.tiny import TAE

TINY = TAE.to_dict()  # two times smaller along each axis


def random_tae(changes=None, *, seed=0, base=TINY, **options):
    """Return a network whose parameters are all random: centric kernels would hide mistakes."""
    tae = TemporalAutoencoder({**base, **(changes or {})}, **options)
    rng = np.random.default_rng(seed)
    for name, parameter in tae.parameters_and_names():
        fan_in = max(int(np.prod(parameter.shape[1:])), 1)
        value = rng.standard_normal(parameter.shape) / np.sqrt(fan_in)
        if name.endswith("gamma"):
            value = 1 + 0.1 * value
        parameter.set_data(Tensor(value.astype(np.float32)))
    return tae


def random_video(frames, height=8, width=12, *, batch=1, seed=1):
    shape = (batch, 3, frames, height, width)
    return Tensor(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


@pytest.fixture(scope="session")
def tiny_config():
    """Return the config of the network that `make_tae` makes, to add changes to."""
    return dict(TINY)


@pytest.fixture(scope="session")
def make_tae():
    """Return the function `random_tae`."""
    return random_tae


@pytest.fixture(scope="session")
def make_video():
    """Return the function `random_video`."""
    return random_video
