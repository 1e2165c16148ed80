"""Streaming gives what tiled encode and decode give on the whole video, bit for bit."""

import numpy as np
import pytest
from mindspore import Tensor

from mg.data.manifest import build_manifest
from mg.data.transforms import to_model_range
from mg.pipelines.streaming import decode_latents, encode_frames, read_frames
from mg.tiling.sizes import Tiling


@pytest.mark.parametrize("num_frames", [1, 7, 8, 13, 24])
def test_streamed_encode_equals_tiled_encode(make_tae, make_frames, num_frames):
    tae = make_tae(use_tile=True)
    frames = make_frames(num_frames, 24, 32)
    _, mean, logvar = tae.encode(Tensor(to_model_range(frames)[np.newaxis]))
    pieces = list(encode_frames(tae, iter(frames)))
    streamed = [np.concatenate(part, axis=1) for part in zip(*pieces, strict=True)]
    np.testing.assert_array_equal(streamed[0], mean.asnumpy()[0])
    np.testing.assert_array_equal(streamed[1], logvar.asnumpy()[0])
    assert streamed[0].shape == (4, -(-num_frames // 2), 12, 16)


@pytest.mark.parametrize("num_latents", [1, 2, 4, 5, 6, 11])
@pytest.mark.parametrize("piece", [1, 3, 20])
def test_streamed_decode_equals_tiled_decode(make_tae, num_latents, piece):
    tae = make_tae(use_tile=True)
    rng = np.random.default_rng(num_latents)
    z = rng.standard_normal((4, num_latents, 12, 16)).astype(np.float32)
    whole = tae.decode(Tensor(z[np.newaxis])).asnumpy()[0]
    pieces = (z[:, start : start + piece] for start in range(0, num_latents, piece))
    streamed = np.concatenate(list(decode_latents(tae, pieces)), axis=1)
    np.testing.assert_array_equal(streamed, whole)


def test_streamed_decode_stops_at_the_wanted_frame(make_tae):
    tae = make_tae()
    z = np.zeros((4, 11, 8, 8), np.float32)
    for num_frames in (1, 4, 8, 9, 21, 22):
        pieces = list(decode_latents(tae, [z], num_frames))
        assert sum(piece.shape[1] for piece in pieces) == num_frames
        assert all(piece.shape[1] for piece in pieces)


def test_decoder_never_sees_more_than_a_tile(make_tae):
    tae = make_tae()
    lengths = []
    decode = tae.frames_from
    tae.frames_from = lambda z, _: lengths.append(z.shape[2]) or decode(z)
    list(decode_latents(tae, [np.zeros((4, 30, 8, 8), np.float32)]))
    assert lengths == [4] * 14


def test_tiles_that_do_not_fit_the_network_are_refused(make_tae, make_frames):
    tae = make_tae(tiling=Tiling(frames=9, overlap_frames=2))
    with pytest.raises(ValueError, match="frames=9 is not a multiple of 2"):
        next(encode_frames(tae, iter(make_frames(4, 16, 16))))


def test_frames_are_cropped_without_scaling_unless_asked(video_folder, make_frames):
    frames = make_frames(20, 24, 32)
    clip = next(c for c in build_manifest(video_folder=video_folder).clips if c.name == "a.mp4")
    cropped = list(read_frames(clip, (22, 30), rescale=False))
    np.testing.assert_array_equal(np.stack(cropped), frames[:, 1:23, 1:31])
    scaled = list(read_frames(clip, (12, 12), rescale=True))
    assert np.stack(scaled).shape == (20, 12, 12, 3)
