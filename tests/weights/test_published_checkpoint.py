"""A checkpoint in the public MindSpore TAE's format gives the numbers of the public code."""

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.models.tae.tae import TemporalAutoencoder
from mg.weights.checkpoint_file import read_weights

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHECKPOINT = FIXTURES / "published_tae_tiny.ckpt"
EQUAL = 1e-4  # measured: 8e-6, of values up to 1.8


@pytest.fixture(scope="module")
def tae():
    return TemporalAutoencoder(pretrained=CHECKPOINT, sample_deterministic=True)


def test_file_has_the_public_format(tae):
    """Its dead projections of a time embedding are there, and are all that is left out."""
    names = set(read_weights(CHECKPOINT))
    dead = {name for name in names if ".temb_proj." in name}
    assert dead and names - dead == set(tae.tensors())
    assert tae.config.temporal_padding == "published"


# Compiling takes most of the time: in graph mode, an even and an odd number of frames will do.
@pytest.mark.parametrize(
    ("mode", "frames"),
    [*(("pynative_mode", n) for n in (16, 8, 5, 1)), ("graph_mode", 16), ("graph_mode", 5)],
)
def test_public_code_gives_the_same(tae, mode, frames, request):
    request.getfixturevalue(mode)
    arrays = np.load(FIXTURES / "published_tae_tiny.npz", allow_pickle=False)
    video, mean, logvar, decoded = (
        arrays[f"{name}_{frames}"] for name in ("x", "mean", "logvar", "dec")
    )
    _, *moments = tae.encode(Tensor(video))
    for actual, expected in zip(moments, (mean, logvar), strict=True):
        np.testing.assert_allclose(actual.asnumpy(), expected, rtol=0, atol=EQUAL)
    frames_back = tae.decode(Tensor(mean)).asnumpy()
    np.testing.assert_allclose(frames_back, decoded, rtol=0, atol=EQUAL)
