"""Where tiles lie, how they are blended, and that a single tile changes nothing."""

import functools
import itertools

import numpy as np
import pytest
from mindspore import Tensor

from mg.latent_spec import LatentSpec
from mg.models.tae.config import TAEConfig
from mg.models.tae.memory import estimated_memory_gb
from mg.models.tae.tae import TemporalAutoencoder
from mg.tiling.axes import axis_weights, blend_ramp, spatial_spans, temporal_spans
from mg.tiling.sizes import Tiling
from mg.tiling.tiles import blend_in_time, decoder_tile, encoder_tile, tiled_decode, tiled_encode
from tests.tiny import TAE

CONFIG = TAEConfig(ch=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1)
SPEC = CONFIG.spec  # 8x8x8
CAUSAL = LatentSpec(channels=3, t=4, h=8, w=8, head=1, step=4)
CHUNKED = LatentSpec(channels=3, t=4, h=8, w=8, chunk=17)
DEEP = LatentSpec(channels=3, t=4, h=32, w=32)
WHOLE = Tiling(height=0, width=0)


def sum_of_weights(spans, length):
    total = np.zeros(length, np.float32)
    for (start, stop), weights in zip(spans, axis_weights(spans), strict=True):
        total[start:stop] += weights
    return total


def upsample(z):
    """Return z (B, C, T', H', W') repeated 8 times along T, H and W."""
    for axis in (2, 3, 4):
        z = np.repeat(z, 8, axis=axis)
    return z


class NumberedDecoder:
    """Decodes by repetition and adds the number of the call, 0, 1, ..., so tiles show."""

    def __init__(self):
        self.shapes = []

    def __call__(self, z, num_frames):
        self.shapes.append(z.shape)
        return Tensor(upsample(z.asnumpy()) + np.float32(len(self.shapes) - 1))


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 7, 8, 11, 64])
def test_temporal_spans_cover_everything_with_equal_overlap(length):
    spans = temporal_spans(length, 4, 2)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(a[1] - b[0] == 2 for a, b in itertools.pairwise(spans))
    assert len({stop - start for start, stop in spans}) <= 2
    assert len(spans) == max(1, -(-(length - 2) // 2))


@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 31, 32, 33, 40, 65, 100])
def test_tiles_of_the_encoder_keep_the_shape_law(num_frames):
    spans = temporal_spans(num_frames, 32, 0)
    assert sum(-(-(stop - start) // 8) for start, stop in spans) == -(-num_frames // 8)
    assert [start for start, _ in spans] == list(range(0, num_frames, 32))


@pytest.mark.parametrize("overlap", [0, 4, 8, 12])
def test_spatial_spans_have_one_size_and_weights_that_sum_to_1(overlap):
    for length in range(17, 80):
        spans = spatial_spans(length, 16, overlap)
        assert {stop - start for start, stop in spans} == {16}
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(a[1] - b[0] >= overlap for a, b in itertools.pairwise(spans))
        np.testing.assert_allclose(sum_of_weights(spans, length), 1, atol=1e-6)


def test_axis_without_tiles_is_one_span():
    assert spatial_spans(40, 0, 8) == [(0, 40)]
    assert spatial_spans(40, 40, 8) == [(0, 40)]
    assert spatial_spans(40, 64, 8) == [(0, 40)]


def test_ramp_is_linear_with_steps_of_1_over_n_plus_1():
    ramp = blend_ramp(16)
    np.testing.assert_allclose(np.diff(np.concatenate(([0], ramp, [1]))), 1 / 17, atol=1e-7)


def test_blending_in_time_is_the_linear_ramp():
    decoder = NumberedDecoder()
    z = np.zeros((1, 16, 6, 1, 1), np.float32)
    video = tiled_decode(decoder, Tensor(z), WHOLE, SPEC).asnumpy()
    ramp = np.arange(1, 17) / 17
    # Tiles of 32 frames at 0 and 16, the second is 1 higher than the first.
    expected = np.concatenate((np.zeros(16), ramp, np.ones(16)))
    np.testing.assert_allclose(video[0, 0, :, 0, 0], expected, atol=1e-6)
    assert np.abs(np.diff(video[0, 0, :, 0, 0])).max() <= 1 / 17 + 1e-6


def test_blending_in_space_is_the_linear_ramp_along_both_axes():
    decoder = NumberedDecoder()
    tiling = Tiling(height=32, width=32, overlap_pixels=16)
    z = np.zeros((1, 16, 1, 6, 6), np.float32)
    video = tiled_decode(decoder, Tensor(z), tiling, SPEC).asnumpy()
    assert decoder.shapes == [(1, 16, 1, 4, 4)] * 4
    ramp = np.concatenate((np.zeros(16), np.arange(1, 17) / 17, np.ones(16)))
    # The calls are numbered 0 1 / 2 3: one more to the right, two more below.
    expected = 2 * ramp[:, np.newaxis] + ramp[np.newaxis]
    np.testing.assert_allclose(video[0, 0, 0], expected, atol=1e-5)


def test_decoder_without_context_is_tiled_exactly():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 16, 11, 9, 7)).astype(np.float32)
    tiling = Tiling(height=32, width=40, overlap_pixels=16)
    video = tiled_decode(lambda z, _: Tensor(upsample(z.asnumpy())), Tensor(z), tiling, SPEC)
    np.testing.assert_allclose(video.asnumpy(), upsample(z), atol=1e-5)


def test_encoder_without_context_is_tiled_exactly():
    rng = np.random.default_rng(0)
    video = rng.standard_normal((1, 3, 40, 48, 72)).astype(np.float32)

    def moments(x):
        mean = Tensor(np.ascontiguousarray(x.asnumpy()[:, :, ::8, ::8, ::8]))
        return mean, -mean

    tiling = Tiling(height=32, width=32, overlap_pixels=16)
    mean, logvar = tiled_encode(moments, Tensor(video), tiling, SPEC)
    np.testing.assert_allclose(mean.asnumpy(), video[:, :, ::8, ::8, ::8], atol=1e-6)
    np.testing.assert_array_equal(logvar.asnumpy(), -mean.asnumpy())


def test_blending_holds_at_most_a_tile_and_an_overlap():
    tiles = (np.full((1, 1, 8, 1, 1), float(number), np.float32) for number in range(4))
    assert [piece.shape[2] for piece in blend_in_time(tiles, 2)] == [6, 6, 6, 6, 2]


def test_single_tile_is_identical_to_untiled():
    tae = TemporalAutoencoder(TAE, sample_deterministic=True)
    rng = np.random.default_rng(1)
    video = Tensor(rng.uniform(-1, 1, (2, 3, 5, 16, 16)).astype(np.float32))
    results = []
    for tae.use_tile in (False, True):
        _, mean, logvar = tae.encode(video)
        results.append((mean.asnumpy(), logvar.asnumpy(), tae.decode(mean, 5).asnumpy()))
    for untiled, tiled in zip(*results, strict=True):
        np.testing.assert_array_equal(untiled, tiled)
    assert results[0][2].shape == video.shape


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"frames": 0}, "overlap_frames < frames"),
        ({"frames": 16, "overlap_frames": 16}, "overlap_frames < frames"),
        ({"overlap_pixels": -8}, "0 or more"),
        ({"height": 64, "overlap_pixels": 64}, "larger than overlap_pixels"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**sizes)


def test_sizes_between_the_latents_are_refused_with_one_that_fits():
    with pytest.raises(ValueError, match=r"frames=30 is not a multiple of 8.*use 24 or 32$"):
        Tiling(frames=30).check(SPEC)
    z = Tensor(np.zeros((1, 16, 1, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"width=100 is not a multiple of 8.*use 96 or 104$"):
        tiled_decode(NumberedDecoder(), z, Tiling(width=100), SPEC)


def test_auto_takes_the_largest_tiles_within_the_budget():
    memory_gb = functools.partial(estimated_memory_gb, CONFIG)
    previous = np.inf
    for budget in (40.0, 4.0, 2.0, 1.2):
        tiling = Tiling.auto(SPEC, 512, 768, memory_gb=memory_gb, memory_budget_gb=budget)
        tiling.check(SPEC)
        height, width = tiling.height or 512, tiling.width or 768
        needed = estimated_memory_gb(CONFIG, tiling.frames, min(height, 512), min(width, 768))
        assert needed <= budget
        pixels = tiling.frames * height * width
        assert pixels < previous
        previous = pixels
    whole = Tiling.auto(SPEC, 512, 768, memory_gb=memory_gb, memory_budget_gb=40.0)
    assert whole.height == 0


def test_auto_counts_the_clips_of_a_batch_and_refuses_too_small_a_budget():
    one = estimated_memory_gb(CONFIG, 32, 128, 128)
    four = estimated_memory_gb(CONFIG, 32, 128, 128, batch_size=4)
    assert four - 0.9 == pytest.approx(4 * (one - 0.9))
    with pytest.raises(ValueError, match="the smallest tiles of a 768x512 video need about"):
        Tiling.auto(
            SPEC,
            512,
            768,
            memory_gb=functools.partial(estimated_memory_gb, CONFIG),
            memory_budget_gb=0.91,
        )


# -- other rules of frames than the TAE's ---------------------------------------------------------


def code_by_position(spec):
    """Return an encoder and a decoder that know nothing but the rule of frames of a spec.

    A latent frame is the last of its frames of video, one pixel per latent pixel; decoding repeats
    it. So a tile that lies wrongly in time shows as another number.
    """

    def last_frames(num_frames):
        if spec.chunk is None:
            ends = [0] * spec.head + list(range(spec.head + spec.t - 1, num_frames, spec.t))
            return ends if len(ends) == spec.latent_frames(num_frames) else [*ends, num_frames - 1]
        ends = []
        for start in range(0, num_frames, spec.chunk):
            stop = min(start + spec.chunk, num_frames)
            padding = -(stop - start) % spec.t  # completed at the front of the chunk
            ends += range(start + spec.t - 1 - padding, stop, spec.t)
        return ends

    def moments(video):
        pixels = video.asnumpy()
        mean = pixels[:, :, last_frames(pixels.shape[2])][..., :: spec.h, :: spec.w]
        mean = Tensor(np.ascontiguousarray(mean))
        return mean, -mean

    def frames(latent, num_frames):
        values = latent.asnumpy()
        num_frames = num_frames or spec.decoded_frames(values.shape[2])
        ends = np.array(last_frames(num_frames))
        index = [int(np.searchsorted(ends, frame)) for frame in range(num_frames)]
        video = values[:, :, index].repeat(spec.h, axis=3).repeat(spec.w, axis=4)
        return Tensor(np.ascontiguousarray(video))

    return moments, frames


@pytest.mark.parametrize(
    ("spec", "tiling"),
    [
        (CAUSAL, Tiling(frames=8, overlap_frames=4, height=32, width=24, overlap_pixels=8)),
        (CAUSAL, Tiling(frames=8, overlap_frames=0, height=0, width=0)),
        (CHUNKED, Tiling(frames=34, overlap_frames=0, height=0, width=0)),
        (DEEP, Tiling(frames=8, overlap_frames=4, height=96, width=64, overlap_pixels=32)),
    ],
)
@pytest.mark.parametrize("num_frames", [1, 5, 9, 17, 21, 53])
def test_tiles_follow_the_rule_of_frames(spec, tiling, num_frames):
    rng = np.random.default_rng(0)
    length = spec.valid_frames(num_frames)
    # Frames of one latent frame are equal, so that blending neighbours changes nothing.
    moments, frames = code_by_position(spec)
    latent_shape = (1, *spec.latent_shape(length, 2 * 64, 3 * 32))
    latent = rng.standard_normal(latent_shape).astype(np.float32)
    video = frames(Tensor(latent), length)
    untiled = moments(video)[0].asnumpy()
    np.testing.assert_array_equal(untiled, latent)
    mean, logvar = tiled_encode(moments, video, tiling, spec)
    np.testing.assert_allclose(mean.asnumpy(), latent, atol=1e-6)
    np.testing.assert_array_equal(logvar.asnumpy(), -mean.asnumpy())
    decoded = tiled_decode(frames, mean, tiling, spec, length)
    np.testing.assert_allclose(decoded.asnumpy(), video.asnumpy(), atol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, CAUSAL, CHUNKED, DEEP])
def test_default_tiles_fit_the_latents(spec):
    tiling = Tiling.default(spec)
    tiling.check(spec)
    assert encoder_tile(tiling, spec).length == spec.valid_frames(encoder_tile(tiling, spec).length)
    assert decoder_tile(tiling, spec).overlap < decoder_tile(tiling, spec).length
    assert 24 <= tiling.frames <= 40
    assert 128 <= tiling.height <= 256


def test_tiles_of_a_network_that_codes_chunks_do_not_overlap():
    with pytest.raises(ValueError, match="every 17 frames by themselves"):
        Tiling(frames=34, overlap_frames=16).check(CHUNKED)
