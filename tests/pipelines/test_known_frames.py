"""Which frames of a latent are known when some frames of the video are, and their values."""

import numpy as np
import pytest

from mg.latent_spec import LatentSpec
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import (
    VisualInputs,
    check_known_frames,
    encode_clip,
    encode_known_frames,
)
from tests.pipelines.conftest import smooth_frames

TAE_LIKE = LatentSpec(4, t=2, h=2, w=2)
CAUSAL = LatentSpec(4, t=4, h=8, w=8, head=1)


def settings(num_frames):
    return SamplingSettings(
        num_frames=num_frames, height=16, width=24, fps=12, steps=2, guidance=1.0
    )


def known(tae, num_frames=8, **inputs):
    fitted = VisualInputs(**inputs).fitted(settings(num_frames))
    return encode_known_frames(tae, fitted, num_frames)


def test_a_first_frame_is_encoded_as_the_image_that_it_is(make_tae):
    tae, frames = make_tae(), smooth_frames(8, 16, 24)
    latent = known(tae, first_frame=frames[0])
    np.testing.assert_array_equal(latent.mask, [True, False, False, False])
    np.testing.assert_array_equal(latent.values[:, :1], encode_clip(tae, frames[:1]))
    assert known(tae) is None


@pytest.mark.parametrize(("begin", "end", "mask"), [(4, 0, "1100"), (0, 2, "0001"), (2, 4, "1011")])
def test_a_prefix_and_a_suffix_keep_their_place(make_tae, begin, end, mask):
    tae, frames = make_tae(), smooth_frames(8, 16, 24)
    inputs = {"prefix": frames[:begin]} if begin else {}
    inputs |= {"suffix": frames[-end:]} if end else {}
    latent = known(tae, **inputs)
    assert latent.mask.tolist() == [value == "1" for value in mask]
    filled = frames.copy()
    if not end:
        filled[begin:] = frames[begin - 1]
    elif not begin:
        filled[:-end] = frames[-end]
    else:
        filled[begin:-end] = [frames[begin - 1], frames[-end]]
    np.testing.assert_array_equal(latent.values, encode_clip(tae, filled))


def test_of_causal_latents_the_first_is_the_first_frames_own():
    frames = smooth_frames(9, 16, 24)
    for inputs in ({"prefix": frames[:5]}, {"suffix": frames[-4:]}, {"first_frame": frames[0]}):
        fitted = VisualInputs(**inputs).fitted(settings(9))
        check_known_frames(fitted, CAUSAL, 9)
    with pytest.raises(ValueError, match="a prefix has 5 frames or 4 more and so on"):
        check_known_frames(VisualInputs(prefix=frames[:4]).fitted(settings(9)), CAUSAL, 9)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prefix": smooth_frames(3, 16, 24)}, "frame 2 is known without those that it shares"),
        ({"prefix": smooth_frames(8, 16, 24)}, "8 frames are known of a video of num_frames=8"),
        ({"prefix": smooth_frames(0, 16, 24)}, "prefix has 0 frames"),
    ],
)
def test_frames_that_cannot_be_known_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        check_known_frames(VisualInputs(**inputs).fitted(settings(8)), TAE_LIKE, 8)


def test_a_beginning_is_given_once_and_chunks_have_none():
    frame = smooth_frames(1, 16, 24)
    with pytest.raises(ValueError, match="first_frame and prefix both say"):
        VisualInputs(first_frame=frame, prefix=frame)
    chunked = LatentSpec(4, t=4, h=8, w=8, chunk=17)
    inputs = VisualInputs(prefix=smooth_frames(4, 16, 24)).fitted(settings(34))
    with pytest.raises(ValueError, match="codes chunks of 17 frames"):
        check_known_frames(inputs, chunked, 34)
