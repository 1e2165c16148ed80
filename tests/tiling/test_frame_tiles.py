"""Tiles in time from parts of a clip, against the same tiles cut from the whole tensor."""

from fractions import Fraction

import numpy as np
import pytest
from mindspore import Tensor

from mg.latent_spec import LatentSpec
from mg.tiling.frame_tiles import (
    FrameTiles,
    completed,
    decode_frame_tiles,
    encode_frame_tiles,
)
from mg.tiling.sizes import Tiling
from mg.vaes.blended_tiles import Tile, coded_in_frame_tiles

SPEC = LatentSpec(1, t=4, h=1, w=1, head=1, step=4)
UNCUT = Tiling(height=0, width=0, overlap_pixels=0)
pytestmark = pytest.mark.usefixtures("pynative_mode")


def encoded(video):
    """Return means of groups of frames, and how many frames the tile has: it sees its borders."""
    values = video.asnumpy()
    head, rest = values[:, :, :1], values[:, :, 1:]
    groups = rest.reshape(*rest.shape[:2], -1, 4, *rest.shape[3:]).mean(3)
    return Tensor(np.concatenate((head, groups), axis=2) + np.float32(0.1) * values.shape[2])


def decoded(latent, num_frames=None):
    values = latent.asnumpy()
    head, rest = values[:, :, :1], np.repeat(values[:, :, 1:], 4, axis=2)
    return Tensor(np.concatenate((head, rest), axis=2) - np.float32(0.3) * values.shape[2])


def in_parts(values, length):
    return (values[:, :, i : i + length] for i in range(0, values.shape[2], length))


@pytest.mark.parametrize("sizes", [(16, 12), (16, 4), (16, 16), (24, 8)])
@pytest.mark.parametrize("num_frames", [1, 5, 13, 17, 21, 25, 29, 41])
def test_parts_give_what_the_whole_gives(sizes, num_frames):
    tiles, tile = FrameTiles(*sizes), Tile(*sizes)
    rng = np.random.default_rng(num_frames)
    video = rng.standard_normal((1, 1, num_frames, 2, 2)).astype(np.float32)

    def moments(part):
        return encoded(part), encoded(part)

    mean = coded_in_frame_tiles(encoded, Tensor(video), tile, Fraction(1, 4)).asnumpy()
    parts = encode_frame_tiles(moments, in_parts(video, 3), tiles, UNCUT, SPEC)
    found = np.concatenate([mean for mean, _ in parts], axis=2)
    np.testing.assert_allclose(found, mean, rtol=0, atol=1e-6)

    tile = tile.times(Fraction(1, 4))
    frames = coded_in_frame_tiles(decoded, Tensor(mean), tile, Fraction(4)).asnumpy()
    parts = decode_frame_tiles(decoded, in_parts(mean, 2), tiles, UNCUT, SPEC)
    np.testing.assert_allclose(np.concatenate(list(parts), axis=2), frames, rtol=0, atol=1e-6)


def test_frames_are_completed_to_a_number_that_the_network_takes():
    assert list(completed(range(6), SPEC)) == [0, 1, 2, 3, 4, 5, 5, 5, 5]
    assert list(completed(range(5), SPEC)) == [0, 1, 2, 3, 4]
    assert list(completed([], SPEC)) == []
