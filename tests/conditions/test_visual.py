"""Conditions on the channel axis: what a batch of them holds, and which frames are known."""

import numpy as np
import pytest

from mg.conditions.frame_draws import FrameDraws
from mg.conditions.visual import ChannelConditions, KnownFrames, KnownLatent

SHAPE = (2, 3, 4, 4)  # (C, T', H', W')


def latent(number):
    return np.random.default_rng(number).standard_normal(SHAPE, np.float32)


def test_source_comes_first_then_known_frames_then_their_mask():
    both = ChannelConditions(has_source=True, frame_modes=["suffix", "first_frame"])
    assert both.names == ("source", "frames") and both.num_channels(2) == 5
    assert both.frame_modes == ("first_frame", "suffix")
    source, video = latent(0), latent(1)
    known = KnownLatent(video, np.array([True, False, True]))
    (tensor,) = both.batch([{"source": source, "frames": known}, {"source": source}, {}], SHAPE)
    assert tensor.shape == (3, 5, 3, 4, 4) and tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor[:2, :2], [source, source])
    np.testing.assert_array_equal(tensor[0, 2:4, [0, 2]], video[:, [0, 2]].swapaxes(0, 1))
    assert (tensor[0, 4] == np.array([1, 0, 1])[:, None, None]).all()
    # What is dropped or not known is zero.
    assert not tensor[0, 2:4, 1].any() and not tensor[1, 2:].any() and not tensor[2].any()
    (empty,) = both.empty(2, SHAPE)
    assert empty.shape == (2, 5, 3, 4, 4) and not empty.any()


def test_no_conditions_give_no_tensor():
    nothing = ChannelConditions()
    assert not nothing and nothing.num_channels(4) == 0
    assert nothing.batch([{}], SHAPE) == () == nothing.empty(1, SHAPE)


def test_what_is_written_is_read():
    both = ChannelConditions(has_source=True, frame_modes=["prefix"])
    again = ChannelConditions.from_mapping(both.to_dict())
    assert again.identity == both.identity == "source+frames:prefix"
    for wrong in ({}, {"source": 1, "frames": []}, {"source": True, "frames": "prefix"}, None):
        with pytest.raises(ValueError, match="conditions:"):
            ChannelConditions.from_mapping(wrong)
    with pytest.raises(ValueError, match="did you mean 'prefix'"):
        ChannelConditions.from_mapping({"source": True, "frames": ["prefx"]})


def test_latents_of_another_size_are_refused():
    both = ChannelConditions(has_source=True, frame_modes=["mask"])
    with pytest.raises(ValueError, match="has the length and the size of the video"):
        both.batch([{"source": latent(0)[:, :2]}], SHAPE)
    with pytest.raises(ValueError, match=r"known frames are of a latent \(2, 2, 4, 4\)"):
        both.batch([{"frames": KnownLatent(latent(0)[:, :2], np.ones(2, bool))}], SHAPE)
    with pytest.raises(ValueError, match="expected one value per frame"):
        KnownFrames(["mask"]).check([KnownLatent(latent(0), np.ones(2, bool))])
    with pytest.raises(ValueError, match=r"expected a latent \(C, T', H', W'\)"):
        both.check([{"source": latent(0)[0]}])


def test_frames_are_known_as_often_and_in_the_way_that_is_asked_for():
    shares = {"first_frame": 0.4, "prefix": 0.2, "suffix": 0.1, "mask": 0.2}
    draws = FrameDraws(shares)
    assert draws.modes == ("first_frame", "prefix", "suffix", "mask")
    rng = np.random.default_rng(0)
    drawn = [draws.draw(5, rng) for _ in range(4000)]
    for mode, share in {**shares, None: 0.1}.items():
        found = [draw for draw in drawn if draw.mode == mode]
        assert len(found) / len(drawn) == pytest.approx(share, abs=0.03)
        for draw in found:
            number = draw.mask.sum()
            assert number == 0 if mode is None else 1 <= number < 5
            if mode in ("first_frame", "prefix"):
                assert draw.mask[:number].all()
            if mode == "first_frame":
                assert number == 1
            if mode == "suffix":
                assert draw.mask[-number:].all()
    assert {tuple(draw.mask) for draw in drawn if draw.mode == "mask"} > {
        (True, False, True, False, False)
    }
    # Nothing can be known of a single frame that is not all of it.
    assert all(FrameDraws({"mask": 1.0}).draw(1, rng).mode is None for _ in range(20))


@pytest.mark.parametrize("shares", [{"mask": 1.5}, {"middle": 0.5}, {"mask": 0.6, "prefix": 0.6}])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match="shares of known frames"):
        FrameDraws(shares)
