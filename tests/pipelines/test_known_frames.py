"""Which frames of a latent are known when some frames of the video are, and their values."""

import json
import sys

import numpy as np
import pytest

from mg.commands import generate
from mg.conditions.visual import ChannelConditions
from mg.data.video import probe_video
from mg.data.video_writer import write_video
from mg.latent_spec import LatentSpec
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from mg.pipelines.visual_inputs import (
    VisualInputs,
    check_known_frames,
    encode_clip,
    encode_known_frames,
    frames_of_mask,
)
from tests.pipelines.conftest import smooth_frames, stand_in_frames, stand_in_moments

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


@pytest.mark.parametrize(
    ("mask", "latent_mask"), [("2-3", "0100"), ("0-1,6-7", "1001"), (" 0 - 3 , 6-7", "1101")]
)
def test_any_whole_frames_may_be_known(make_tae, mask, latent_mask):
    tae, frames = make_tae(), smooth_frames(8, 16, 24)
    latent = known(tae, known_frames=frames, mask=mask)
    assert latent.mask.tolist() == [value == "1" for value in latent_mask]
    kept = frames_of_mask(mask, 8)
    assert kept.tolist() == np.repeat(latent.mask, 2).tolist()
    again = known(tae, known_frames=frames, mask=kept)
    np.testing.assert_array_equal(again.values, latent.values)
    # What is not kept does not matter: it is filled with the nearest frame that is.
    other = np.where(kept[:, None, None, None], frames, 255 - frames)
    np.testing.assert_array_equal(known(tae, known_frames=other, mask=mask).values, latent.values)
    places = np.flatnonzero(kept)
    nearest = [places[np.abs(places - t).argmin()] for t in range(8)]
    np.testing.assert_array_equal(latent.values, encode_clip(tae, frames[nearest]))


def test_a_mask_of_a_prefix_is_that_prefix(make_tae):
    tae, frames = make_tae(), smooth_frames(8, 16, 24)
    masked = known(tae, known_frames=frames, mask="0-3")
    prefix = known(tae, prefix=frames[:4])
    np.testing.assert_array_equal(masked.values, prefix.values)
    np.testing.assert_array_equal(masked.mask, prefix.mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("1-4", "mask: frame 1 is kept without .*; whole are 0-1, 2-3, 4-5, 6-7, and any of them"),
        ("0-7", "8 frames are known of a video of num_frames=8"),
        ("6-8", "there is no frame 8; the video has frames 0 to 7"),
        ("3-2", "'3-2' is not a range of frames; expected such as 0-7,24-31"),
        ("a", "'a' is not a range"),
        ("", "'' is not a range"),
        (np.zeros(8, bool), "mask keeps no frame"),
        (np.ones(4, bool), r"expected a bool for each of 8 frames, got bool \(4,\)"),
    ],
)
def test_masks_that_cannot_be_kept_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        inputs = VisualInputs(known_frames=smooth_frames(8, 16, 24), mask=mask)
        check_known_frames(inputs.fitted(settings(8)), TAE_LIKE, 8)


def test_masks_of_causal_latents_and_of_too_little():
    frames = smooth_frames(37, 16, 24)
    inputs = VisualInputs(known_frames=frames, mask="0,5-8,33-36").fitted(settings(37))
    check_known_frames(inputs, CAUSAL, 37)
    inputs = VisualInputs(known_frames=frames, mask="0-3").fitted(settings(37))
    with pytest.raises(ValueError, match=r"whole are 0, 1-4, 5-8, .*, 21-24, \.\.\., 33-36, and"):
        check_known_frames(inputs, CAUSAL, 37)
    with pytest.raises(ValueError, match="known_frames has 3 frames and the video is to have 8"):
        VisualInputs(known_frames=frames[:3], mask="0-1").fitted(settings(8))
    for given, message in (
        ({"mask": "0-1"}, "mask by itself"),
        ({"known_frames": frames}, "known_frames by itself"),
        ({"known_frames": frames, "mask": "0", "suffix": frames}, "suffix and known_frames both"),
    ):
        with pytest.raises(ValueError, match=message):
            VisualInputs(**given)


@pytest.fixture(scope="module")
def masked_generator(make_square_generator):
    """Return the folder of a generator that was trained with masks alone."""
    return make_square_generator(ChannelConditions(frame_modes=["mask"]))


def test_a_generator_heeds_the_frames_that_are_kept(masked_generator, pynative_mode):
    generator = TextToVideo.from_pretrained(masked_generator)
    generator.autoencoder.moments = stand_in_moments
    generator.autoencoder.frames_from = stand_in_frames
    frames = smooth_frames(8, 16, 16)

    def made(frames, mask):
        return generator("a red circle", known_frames=frames, mask=mask).latents

    one = made(frames, "2-3,6-7")
    other = np.where(frames_of_mask("2-3,6-7", 8)[:, None, None, None], frames, 255 - frames)
    np.testing.assert_array_equal(made(other, "2-3,6-7"), one)
    assert np.abs(made(255 - frames, "2-3,6-7") - one).max() > 1e-3
    assert np.abs(made(frames, "0-1,6-7") - one).max() > 1e-3
    with pytest.raises(ValueError, match="prefix: this generator was not trained with that"):
        generator("a red circle", prefix=frames[:2])


def test_generate_takes_a_mask(masked_generator, tmp_path, monkeypatch, pynative_mode):
    monkeypatch.setattr(generate, "setup_device", lambda config: "CPU")  # it is set up already
    clip = tmp_path / "clip.mkv"
    write_video(clip, smooth_frames(8, 16, 16), fps=12, lossless=True)
    flags = [f"--checkpoint={masked_generator}", "--prompt=a red circle", f"--known_frames={clip}"]

    def run(mask, name):
        flags_of_run = [*flags, f"--mask={mask}", f"--output={tmp_path / name}", "--mode=pynative"]
        monkeypatch.setattr(sys, "argv", ["generate.py", *flags_of_run])
        generate.main()
        return json.loads((tmp_path / name).with_suffix(".json").read_text())

    records = [run("0-1,6-7", "a.mp4"), run("4-5", "b.mp4")]
    assert probe_video(tmp_path / "a.mp4").num_frames == 8
    known, masks = (
        {record["inputs"][name] for record in records} for name in ("known_frames", "mask")
    )
    assert len(known) == 1 and len(masks) == 2
    with pytest.raises(ValueError, match="whole are 0-1, 2-3, 4-5, 6-7"):
        run("3-4", "c.mp4")
    assert not (tmp_path / "c.mp4").exists()
