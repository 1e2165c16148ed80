"""The judge of shapes against clips whose content is known."""

import cv2
import numpy as np
import pytest

from mg.data.video import VideoReader
from mg.data.video_writer import write_video
from mg.shapes.clips import Combination, synthetic_clip
from mg.shapes.judge import ATTRIBUTES, judge_clip

NUM_CLIPS = 120


def accuracy(degrade, *, size=64, num_clips=NUM_CLIPS, num_frames=16):
    """Return the share of fresh clips judged right, per attribute."""
    right = np.zeros(len(ATTRIBUTES))
    for index in range(num_clips):
        wanted, frames = synthetic_clip(
            index, seed=11, split="both", size=size, num_frames=num_frames
        )
        agreement = judge_clip(degrade(frames, np.random.default_rng(index))).agreement(wanted)
        right += [agreement[name] for name in ATTRIBUTES]
    return right / num_clips


def blurred(sigma):
    """Return a function that blurs frames by a Gaussian (pixels)."""
    return lambda frames, _: np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames])


def noisy(sigma):
    """Return a function that adds Gaussian noise (levels)."""
    return lambda frames, rng: to_bytes(frames + rng.normal(0, sigma, frames.shape))


def to_bytes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def faded(frames, _):
    """Return frames with 70 % of the contrast."""
    return to_bytes((frames - 128.0) * 0.7 + 128)


def smeared_in_time(frames, _):
    """Return frames that are means of three neighbours, at a third of the resolution."""
    padded = np.concatenate([frames[:1], frames, frames[-1:]]).astype(float)
    means = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    side = frames.shape[1]
    small = [cv2.resize(f, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA) for f in means]
    return to_bytes(np.stack([cv2.resize(f, (side, side)) for f in small]))


def unchanged(frames, _):
    return frames


@pytest.mark.parametrize("size", [64, 96])
def test_clean_clips(size):
    assert accuracy(unchanged, size=size).min() >= 0.99


@pytest.mark.parametrize(
    "degrade",
    [blurred(2), noisy(25), faded, smeared_in_time],
    ids=["blurred", "noisy", "faded", "smeared"],
)
def test_degraded_clips(degrade):
    assert accuracy(degrade, num_clips=72).min() >= 0.98


def test_clips_through_h264(tmp_path):
    path = tmp_path / "clip.mp4"

    def through_file(frames, _):
        write_video(path, frames, fps=16, overwrite=True)
        with VideoReader(path) as reader:
            return reader.read(range(len(frames)))

    assert accuracy(through_file, num_clips=72).min() >= 0.99


@pytest.mark.parametrize("num_frames", [2, 33])
def test_other_lengths(num_frames):
    assert accuracy(unchanged, num_clips=24, num_frames=num_frames).min() == 1


def test_confidence_falls_with_blur():
    frames = [synthetic_clip(k, seed=1)[1] for k in range(12)]
    sure = [judge_clip(f).shape.confidence for f in frames]
    less = [judge_clip(blurred(5)(f, None)).shape.confidence for f in frames]
    assert np.mean(sure) > 0.9 and np.mean(less) < np.mean(sure) - 0.1
    assert min(less) >= 0 and max(sure) <= 1


@pytest.mark.parametrize(("level", "background"), [(0, "black"), (255, "white"), (128, "gray")])
def test_an_empty_clip_shows_its_background_only(level, background):
    seen = judge_clip(noisy(8)(np.full((4, 64, 64, 3), level, np.uint8), np.random.default_rng(0)))
    assert seen.background.name == background
    assert [getattr(seen, name).name for name in ("colour", "shape", "motion")] == [None] * 3


def test_noise_alone_shows_no_shape():
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    seen = judge_clip(noise)
    assert (seen.shape.name, seen.motion.name) == (None, None)


def test_what_stands_still_or_goes_aslant_has_no_direction():
    _, frames = synthetic_clip(0, split="both")
    still = judge_clip(np.repeat(frames[:1], 16, axis=0))
    assert still.motion.name is None and still.shape.name is not None
    square = np.zeros((16, 64, 64, 3), np.uint8)
    for t in range(16):
        square[t, 5 + 2 * t : 19 + 2 * t, 5 + 2 * t : 19 + 2 * t] = (255, 0, 0)
    seen = judge_clip(square)
    assert (seen.colour.name, seen.shape.name, seen.motion.name) == ("red", "square", None)


def test_a_coloured_background_and_a_gray_shape_have_no_name():
    frames = np.full((8, 64, 64, 3), (200, 40, 40), np.uint8)
    frames[:, 20:36, 20:36] = 128
    seen = judge_clip(frames)
    assert (seen.background.name, seen.colour.name, seen.shape.name) == (None, None, "square")


def test_frames_gone_wrong_do_not_matter():
    for index in range(12):
        wanted, frames = synthetic_clip(index, split="both")
        broken = frames.copy()
        broken[[2, 7]] = frames[0, 0, 0]  # the shape is gone
        broken[11] = frames[0]  # a jump
        assert all(judge_clip(broken).agreement(wanted).values())


def square_at(places):
    """Return frames of a red square whose left edge is at each of the places (pixels of 64)."""
    frames = np.zeros((len(places), 64, 64, 3), np.uint8)
    for frame, left in zip(frames, places, strict=True):
        frame[24:40, left : left + 16] = (255, 0, 0)
    return frames


def test_an_even_path_is_even_and_as_long_as_it_is():
    path = judge_clip(square_at(range(4, 36, 2))).path
    assert path.evenness > 0.999
    assert path.travel == pytest.approx(30 / 64, abs=0.005)


def test_a_jump_between_two_stills_is_not_even():
    # The best line explains 3/4 n^2 / (n^2 - 1) of a step's variance: 0.753 for n = 16 frames.
    path = judge_clip(square_at([10] * 8 + [30] * 8)).path
    assert path.evenness == pytest.approx(0.753, abs=0.01)
    assert path.travel == pytest.approx(20 / 64, abs=0.005)


def test_the_measured_path_of_a_fade_is_uneven_and_short():
    # What a TAE once made of a clip whose shape goes 22 pixels: places rounded to pixels.
    places = [37, 37, 37, 37, 36, 36, 34, 33, 30, 28, 26, 25, 24, 24, 23, 23]
    path = judge_clip(square_at(places)).path
    assert 0.85 < path.evenness < 0.96
    assert path.travel == pytest.approx(14 / 64, abs=0.005)


def test_synthetic_clips_move_evenly_and_stills_do_not_move():
    for index in range(12):
        _, frames = synthetic_clip(index, split="both")
        path = judge_clip(frames).path
        assert path.evenness > 0.99 and 0.24 < path.travel < 0.36
    still = judge_clip(np.repeat(frames[:1], 16, axis=0)).path
    assert (still.evenness, still.travel) == (0.0, 0.0)
    assert still.start == pytest.approx(path.start, abs=1e-6)
    nothing = judge_clip(np.zeros((8, 64, 64, 3), np.uint8)).path
    assert (nothing.evenness, nothing.travel, nothing.start) == (0.0, 0.0, None)


def test_agreement_is_per_attribute():
    shown, frames = synthetic_clip(0, split="both")
    assert shown.colour != "red" and shown.motion != "moving up"
    other = Combination("red", shown.shape, "moving up", shown.background)
    expected = {"colour": False, "shape": True, "motion": False, "background": True}
    assert judge_clip(frames).agreement(other) == expected


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 64, 64, 3), np.float32), "expected uint8 frames"),
        (np.zeros((64, 64, 3), np.uint8), r"\(T, H, W, 3\)"),
        (np.zeros((1, 64, 64, 3), np.uint8), "at least 2 frames"),
        (np.zeros((4, 8, 64, 3), np.uint8), "at least 16x16"),
    ],
)
def test_other_frames_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        judge_clip(frames)
