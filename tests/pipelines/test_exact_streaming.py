"""Networks that look back only: streamed in constant memory, equal to coding in one piece."""

import dataclasses

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.data.transforms import to_model_range
from mg.models.families import autoencoder_family
from mg.pipelines.streaming import decode_latents, encode_frames
from mg.tiling.sizes import Tiling
from tests.tiny import AUTOENCODERS as TINY

pytestmark = pytest.mark.usefixtures("pynative_mode")
SIDE = 16
# Of video and of latent: the longest piece behind the first, and the first.
PIECES = {"wan": ({1, 4}, {1}), "cogvideox": ({9, 8}, {3, 2})}
# Two levels, so that both halve and double time.
WAN = {**TINY["wan"], "dim_mult": [1, 2, 2], "temperal_downsample": [True, True]}
families = pytest.mark.parametrize("family", PIECES)


@pytest.fixture(scope="module")
def networks():
    """Return {family: a small network with random weights}."""
    built = {}
    for name, fields in (("wan", WAN), ("cogvideox", TINY["cogvideox"])):
        record = autoencoder_family(name)
        ms.set_seed(0)
        built[name] = record.build(record.read_config(fields)).set_train(False)
    return built


@pytest.fixture
def network(family, networks):
    """Return a network; its tiles are as before afterwards."""
    network = networks[family]
    yield network
    network.use_tile, network.tiling = False, Tiling.default(network.spec)


def frames_of(num_frames, *, width=SIDE):
    rng = np.random.default_rng(num_frames)
    return rng.integers(0, 256, (num_frames, SIDE, width, 3), np.uint8)


@families
@pytest.mark.parametrize("num_frames", [1, 18])
def test_streamed_is_coded_in_one_piece(network, family, num_frames, monkeypatch):
    frames = frames_of(num_frames)
    mean, logvar = network.posterior(to_model_range(frames)[None])
    whole = network.frames_from(mean).asnumpy()[0, :, :num_frames]
    lengths = {"encode_piece": set(), "decode_piece": set()}
    for name, seen in lengths.items():
        piece = getattr(network, name)

        def spied(values, past=(), *, piece=piece, seen=seen):
            seen.add(values.shape[2])
            return piece(values, past)

        monkeypatch.setattr(network, name, spied)
    pieces = list(encode_frames(network, iter(frames)))
    streamed = [np.concatenate(part, axis=1) for part in zip(*pieces, strict=True)]
    np.testing.assert_array_equal(streamed[0], mean.asnumpy()[0])
    np.testing.assert_array_equal(streamed[1], logvar.asnumpy()[0])
    # In parts of any length.
    parts = np.split(streamed[0], range(1, streamed[0].shape[1], 4), axis=1)
    video = list(decode_latents(network, parts, num_frames))
    np.testing.assert_array_equal(np.concatenate(video, axis=1), whole)
    assert tuple(lengths.values()) == (PIECES[family] if num_frames > 1 else ({1}, {1}))


@families
def test_tiles_cut_frames_alone(network):
    """Each tile is coded through time as if it were the whole clip."""
    spec = network.spec
    network.use_tile = True
    network.tiling = dataclasses.replace(
        Tiling.default(spec), height=SIDE, width=SIDE, overlap_pixels=0
    )
    frames = frames_of(spec.valid_frames(10), width=2 * SIDE)
    video = to_model_range(frames)[None]
    calls = []

    def noted(function, parts):
        parts = list(parts)
        calls.append([part.window for part in parts])
        return map(function, parts)

    streamed = [mean for mean, _ in encode_frames(network, iter(frames), map_tiles=noted)]
    assert len(calls) >= 2 and all(call == [0, 1] for call in calls)  # a tile's place is kept
    tiled = network.posterior(video)[0].asnumpy()[0]
    np.testing.assert_array_equal(np.concatenate(streamed, axis=1), tiled)
    halves = [network.moments(Tensor(half))[0] for half in np.split(video, 2, axis=4)]
    joined = np.concatenate([half.asnumpy()[0] for half in halves], axis=3)
    np.testing.assert_array_equal(tiled, joined)
    decoded = network.decode(Tensor(tiled[None])).asnumpy()[0]
    pieces = list(decode_latents(network, [tiled]))
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), decoded)
    right = network.frames_from(halves[1]).asnumpy()[0]
    np.testing.assert_array_equal(decoded[..., SIDE:], right)


def test_a_latent_that_no_whole_clip_has(networks):
    """Its pieces are those of the network if its length is known, else it is refused."""
    network = networks["cogvideox"]
    z = np.random.default_rng(0).standard_normal((4, 4, 2, 2), np.float32)
    whole = network.decode(Tensor(z[None])).asnumpy()[0]
    assert whole.shape[1] == 16
    pieces = list(decode_latents(network, [z], 13, num_latents=4))
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole[:, :13])
    with pytest.raises(ValueError, match="ends with a piece of 1 frames, but this network decodes"):
        list(decode_latents(network, [z]))
