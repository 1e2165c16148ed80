"""Sizes, ranges and invariants of the frame transforms."""

import numpy as np
import pytest

from mg.data.transforms import (
    flip_horizontal,
    from_model_range,
    resize_and_crop,
    to_model_range,
)


@pytest.mark.parametrize("source", [(48, 64), (64, 48), (31, 97), (8, 8), (200, 3)])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (64, 24)])
def test_result_has_the_size_asked_for(source, size):
    frames = np.full((2, *source, 3), 77, dtype=np.uint8)
    result = resize_and_crop(frames, size=size)
    assert result.shape == (2, *size, 3)
    assert result.dtype == np.uint8
    assert (result == 77).all()


def test_same_size_changes_nothing(make_frames):
    frames = make_frames(3, 24, 32)
    np.testing.assert_array_equal(resize_and_crop(frames, size=(24, 32)), frames)


def test_centre_crop_without_scaling_is_the_middle(make_frames):
    frames = make_frames(2, 24, 32)
    result = resize_and_crop(frames, size=(24, 20))
    np.testing.assert_array_equal(result, frames[:, :, 6:26])


def test_halving_averages_two_by_two(make_frames):
    frames = make_frames(2, 24, 32)
    expected = frames.reshape(2, 12, 2, 16, 2, 3).astype(float).mean(axis=(2, 4))
    result = resize_and_crop(frames, size=(12, 16))
    assert np.abs(result - expected).max() <= 0.5


def test_short_side_sets_the_scale_before_the_crop(make_frames):
    frames = make_frames(1, 48, 64)
    result = resize_and_crop(frames, size=(8, 8), short_side=24)
    expected = resize_and_crop(frames, size=(24, 32))[:, 8:16, 12:20]
    np.testing.assert_array_equal(result, expected)


def test_short_side_too_small_is_raised_to_cover(make_frames):
    frames = make_frames(1, 48, 64)
    result = resize_and_crop(frames, size=(24, 24), short_side=10)
    np.testing.assert_array_equal(result, resize_and_crop(frames, size=(24, 24)))


def test_random_crop_covers_all_places_and_is_one_per_clip(make_frames):
    frames = np.repeat(make_frames(1, 10, 13), 3, axis=0)
    rng = np.random.default_rng(0)
    places = set()
    for _ in range(60):
        result = resize_and_crop(frames, size=(10, 10), crop="random", rng=rng)
        assert (result == result[:1]).all()
        places |= {left for left in range(4) if (result == frames[:, :, left : left + 10]).all()}
    assert places == {0, 1, 2, 3}


def test_bad_crop_settings():
    frames = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="'center' or 'random'"):
        resize_and_crop(frames, size=(4, 4), crop="centre")
    with pytest.raises(ValueError, match="needs a random generator"):
        resize_and_crop(frames, size=(4, 4), crop="random")


def test_model_range_round_trip_is_exact_for_every_value():
    values = np.arange(256, dtype=np.uint8)
    frames = np.stack([values, values[::-1], values], axis=-1).reshape(1, 16, 16, 3)
    model = to_model_range(frames)
    assert model.shape == (3, 1, 16, 16)
    assert model.dtype == np.float32
    assert (model.min(), model.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(from_model_range(model), frames)


def test_from_model_range_clips_and_rounds():
    model = np.array([-1.7, -1.0, 0.0, 0.999, 1.4], dtype=np.float32)
    frames = np.broadcast_to(model, (3, 1, 1, 5))
    assert from_model_range(frames)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_model_range_refuses_wrong_shapes():
    with pytest.raises(ValueError, match="expected uint8"):
        to_model_range(np.zeros((1, 8, 8, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="expected \\(3, T, H, W\\)"):
        from_model_range(np.zeros((1, 8, 8, 3), dtype=np.float32))


def test_flip_is_its_own_inverse(make_frames):
    frames = make_frames(2, 10, 12)
    flipped = flip_horizontal(frames)
    np.testing.assert_array_equal(flipped[:, :, 0], frames[:, :, -1])
    np.testing.assert_array_equal(flip_horizontal(flipped), frames)
