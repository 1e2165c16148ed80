"""Clips are fixed by (seed, step, index); every clip is seen equally; bad ones are passed over."""

import collections
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mg.data.clips import ClipConfig, ClipDataset
from mg.data.manifest import Clip, Manifest, build_manifest
from mg.data.transforms import to_model_range


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return a manifest of five prepared clips whose frames tell clip and frame number."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(5):
        num_frames = 20 + number
        frames = np.zeros((num_frames, 16, 24, 3), dtype=np.uint8)
        frames[..., 0] = number
        frames[..., 1] = np.arange(num_frames)[:, None, None]
        frames[..., 2] = np.arange(24) * 10
        np.save(folder / f"clip{number}.npy", frames)
    return build_manifest(video_folder=folder)


def dataset(manifest, *, seed=0, rank=0, num_ranks=1, bad=(), max_bad_share=1.0, **config):
    return ClipDataset(
        manifest,
        ClipConfig(**{"sample_n_frames": 4, "size": 16, **config}),
        seed=seed,
        rank=rank,
        num_ranks=num_ranks,
        bad=dict(bad),
        max_bad_share=max_bad_share,
    )


def test_a_batch_has_the_models_layout_and_range(clips):
    batch = dataset(clips).batch(0, 3)
    assert batch.frames.shape == (3, 3, 4, 16, 16)
    assert batch.frames.dtype == np.float32
    assert np.abs(batch.frames).max() <= 1
    assert len(set(batch.names)) == 3
    frames, name = dataset(clips).sample(0, 1, batch_size=3)
    assert name == batch.names[1]
    np.testing.assert_array_equal(batch.frames[1], to_model_range(frames))


def test_frames_follow_each_other_at_the_stride(clips):
    data = dataset(clips, sample_stride=3)
    starts = set()
    for step in range(60):
        frames, name = data.sample(step, 0)
        assert frames[0, 0, 0, 0] == int(name[4])
        numbers = frames[:, 0, 0, 1].astype(int)
        assert np.diff(numbers).tolist() == [3, 3, 3]
        starts.add((name, numbers[0]))
    assert len(starts) > 30


def test_strides_may_be_drawn(clips):
    data = dataset(clips, sample_stride=3, random_stride=True)
    strides = collections.Counter()
    for step in range(90):
        numbers = data.sample(step, 0)[0][:, 0, 0, 1].astype(int)
        (stride,) = set(np.diff(numbers).tolist())
        strides[stride] += 1
    assert set(strides) == {1, 2, 3} and min(strides.values()) > 15
    with pytest.raises(ValueError, match="random_stride has no effect with sample_stride=1"):
        dataset(clips, random_stride=True)


def test_first_and_last_frames_are_reached(clips):
    data = dataset(clips, sample_n_frames=20)
    starts = collections.defaultdict(set)
    for step in range(100):
        frames, name = data.sample(step, 0)
        starts[name].add(int(frames[0, 0, 0, 1]))
    assert starts["clip0.npy"] == {0}
    assert starts["clip4.npy"] == {0, 1, 2, 3, 4}


def test_any_order_gives_the_same_batches(clips):
    settings = {"crop": "random", "flip": True, "short_side_range": (16, 20)}
    forwards, backwards = dataset(clips, **settings), dataset(clips, **settings)
    batches = {step: backwards.batch(step, 2) for step in reversed(range(8))}
    for step in range(8):
        batch = forwards.batch(step, 2)
        np.testing.assert_array_equal(batch.frames, batches[step].frames)
        assert batch.names == batches[step].names


def test_seeds_differ(clips):
    names = [tuple(dataset(clips, seed=s).batch(0, 5).names) for s in range(6)]
    assert len(set(names)) > 3


def test_each_epoch_sees_every_clip_once_in_a_new_order(clips):
    data = dataset(clips)
    names = [data.sample(step, 0)[1] for step in range(20)]
    epochs = [tuple(names[start : start + 5]) for start in range(0, 20, 5)]
    assert all(len(set(epoch)) == 5 for epoch in epochs)
    assert len(set(epochs)) > 1


def test_two_ranks_see_what_one_would(clips):
    ranks = [dataset(clips, rank=rank, num_ranks=2, crop="random") for rank in range(2)]
    single = dataset(clips, crop="random")
    for step in range(6):
        parts = [rank.batch(step, 3) for rank in ranks]
        whole = single.batch(step, 6)
        np.testing.assert_array_equal(np.concatenate([p.frames for p in parts]), whole.frames)
        assert parts[0].names + parts[1].names == whole.names


def test_flips_happen_half_of_the_time(clips):
    data = dataset(clips, flip=True)
    flipped = [
        bool(frames[0, 0, 0, 2] > frames[0, 0, -1, 2])
        for frames, _ in (data.sample(step, 0) for step in range(100))
    ]
    assert 30 < sum(flipped) < 70


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.77])
def test_share_of_image_steps(clips, ratio):
    data = dataset(clips, mixed_strategy="mixed_video_image", mixed_image_ratio=ratio)
    kinds = np.array([data.is_image_step(step) for step in range(640)])
    assert abs(kinds.sum() - 640 * ratio) <= 1
    other = dataset(
        clips, rank=1, num_ranks=2, mixed_strategy="mixed_video_image", mixed_image_ratio=ratio
    )
    assert [other.is_image_step(step) for step in range(640)] == kinds.tolist()


def test_mixed_batches_hold_either_clips_or_images(clips):
    data = dataset(clips, mixed_strategy="mixed_video_image", mixed_image_ratio=0.5)
    names = {True: [], False: []}
    for step in range(40):
        is_image = data.is_image_step(step)
        batch = data.batch(step, 2)
        assert batch.frames.shape[2] == (1 if is_image else 4)
        names[is_image] += batch.names
    for drawn in names.values():
        counts = collections.Counter(drawn)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_image_only(clips):
    assert dataset(clips, mixed_strategy="image_only").batch(3, 2).frames.shape[2] == 1


@pytest.fixture
def videos_and_image(tmp_path, make_frames):
    np.save(tmp_path / "video.npy", make_frames(12, 16, 16))
    Image.fromarray(make_frames(1, 16, 16)[0]).save(tmp_path / "image.png")
    return build_manifest(video_folder=tmp_path)


def test_single_images_are_left_to_image_batches(videos_and_image):
    videos = dataset(videos_and_image)
    assert {videos.sample(step, 0)[1] for step in range(10)} == {"video.npy"}
    images = dataset(videos_and_image, mixed_strategy="image_only")
    assert {images.sample(step, 0)[1] for step in range(10)} == {"video.npy", "image.png"}
    one_frame = dataset(videos_and_image, sample_n_frames=1)
    assert {one_frame.sample(step, 0)[1] for step in range(10)} == {"video.npy", "image.png"}


@pytest.fixture
def partly_bad(tmp_path, make_frames):
    for number in range(4):
        np.save(tmp_path / f"clip{number}.npy", make_frames(10 + number, 16, 16))
    manifest = build_manifest(video_folder=tmp_path)
    (tmp_path / "clip1.npy").write_bytes(b"overwritten in the meantime")
    (tmp_path / "clip2.npy").unlink()
    return manifest


def test_a_clip_that_fails_is_replaced_and_listed(partly_bad):
    data = dataset(partly_bad)
    names = {name for step in range(4) for name in data.batch(step, 4).names}
    assert names == {"clip0.npy", "clip3.npy"}
    assert sorted(data.bad) == ["clip1.npy", "clip2.npy"]
    assert "not a readable" in data.bad["clip1.npy"]
    assert "no such video" in data.bad["clip2.npy"]


def test_knowing_the_bad_clips_beforehand_changes_nothing(partly_bad):
    reasons = {"clip1.npy": "bad in the last run", "clip2.npy": "too", "other.npy": "not here"}
    fresh, warned = dataset(partly_bad), dataset(partly_bad, bad=reasons)
    assert list(warned.bad) == ["clip1.npy", "clip2.npy"]
    for step in range(8):
        np.testing.assert_array_equal(fresh.batch(step, 3).frames, warned.batch(step, 3).frames)
    assert warned.bad["clip1.npy"] == "bad in the last run"


def test_any_error_of_a_decoder_makes_a_bad_clip(clips, monkeypatch):
    data = dataset(clips)
    read = data.read

    def read_all_but_clip3(draw):
        if draw.clip.name == "clip3.npy":
            raise ZeroDivisionError("header says 0 frames per second")
        return read(draw)

    monkeypatch.setattr(data, "read", read_all_but_clip3)
    assert "clip3.npy" not in data.batch(0, 5).names
    assert data.bad == {"clip3.npy": "ZeroDivisionError: header says 0 frames per second"}


def test_too_many_bad_clips_stop_the_run(partly_bad):
    with pytest.raises(ValueError, match=r"2 of 4 clips are bad, .*=0.25 allows") as error:
        dataset(partly_bad, max_bad_share=0.25).batch(0, 4)
    assert "clip1.npy  not a readable .npy file" in str(error.value)
    assert "clip2.npy  no such video" in str(error.value)
    data = dataset(partly_bad, max_bad_share=0.5)
    assert len(data.batch(0, 4).names) == 4
    assert len(data.bad_table().splitlines()) == 2
    for share in (0, 1.1):
        with pytest.raises(ValueError, match=r"max_bad_share must lie in \(0, 1\]"):
            dataset(partly_bad, max_bad_share=share)


def test_all_clips_bad_is_an_error(partly_bad, tmp_path):
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    with pytest.raises(ValueError, match=r"none of the 4 clips can be read:\n.*clip"):
        dataset(partly_bad).sample(0, 0)


def test_clips_shorter_than_asked_are_an_error(clips):
    with pytest.raises(ValueError, match="no clip has the 49 frames that sample_n_frames=25"):
        dataset(clips, sample_n_frames=25, sample_stride=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_n_frames": 0}, "sample_n_frames must be 1 to 100000"),
        ({"sample_n_frames": 10**9}, "sample_n_frames must be 1 to 100000"),
        ({"sample_stride": 0}, "sample_stride must be 1 to 100000"),
        ({"size": 10**9}, "size must be one or two numbers of pixels from 1 to 16384"),
        ({"short_side_range": (64, 10**9)}, "min <= max <= 16384"),
        ({"size": 0}, "size must be one or two numbers of pixels"),
        ({"size": (8, 8, 8)}, "size must be one or two numbers of pixels"),
        ({"crop": "middle"}, "crop must be 'center' or 'random'"),
        ({"mixed_strategy": "both"}, "mixed_strategy must be one of video_only, image_only"),
        ({"mixed_image_ratio": 0.3}, "has no effect with mixed_strategy='video_only'"),
        ({"mixed_strategy": "mixed_video_image"}, "mixed_image_ratio must lie between 0 and 1"),
        ({"short_side_range": (20, 16)}, "short_side_range must be"),
        ({"short_side_range": (8, 32)}, "short_side_range must be"),
    ],
)
def test_settings_check_themselves(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipConfig(**{"sample_n_frames": 4, "size": 16, **settings})


def test_bad_places_are_refused(clips):
    with pytest.raises(ValueError, match=r"index in \[0, 2\)"):
        dataset(clips).sample(0, 2, batch_size=2)
    with pytest.raises(ValueError, match="rank must lie in"):
        dataset(clips, rank=2, num_ranks=2)


@pytest.mark.parametrize(
    ("num_clips", "batch_size", "num_ranks", "ratio", "expected"),
    [(80, 1, 1, 0.0, 80), (5, 2, 1, 0.0, 3), (80, 4, 8, 0.0, 3), (80, 1, 1, 0.2, 100)],
)
def test_an_epoch_draws_every_clip_once(num_clips, batch_size, num_ranks, ratio, expected):
    clips = tuple(Clip(Path(f"{n}.mp4"), f"{n}.mp4", 16, 64, 64, 8.0) for n in range(num_clips))
    strategy = "mixed_video_image" if ratio else "video_only"
    config = ClipConfig(8, 32, mixed_strategy=strategy, mixed_image_ratio=ratio)
    data = ClipDataset(Manifest(clips), config, num_ranks=num_ranks)
    assert data.num_batches_per_epoch(batch_size) == expected


def test_shorter_clips_count_in_an_epoch_of_images_alone():
    clips = tuple(Clip(Path(f"{n}.mp4"), f"{n}.mp4", n, 64, 64, 8.0) for n in range(1, 11))
    videos = ClipDataset(Manifest(clips), ClipConfig(8, 32))
    images = ClipDataset(Manifest(clips), ClipConfig(8, 32, mixed_strategy="image_only"))
    assert (videos.num_batches_per_epoch(1), images.num_batches_per_epoch(1)) == (3, 10)


def test_the_batches_of_an_epoch_hold_every_clip(clips):
    data = dataset(clips)
    num_batches = data.num_batches_per_epoch(2)
    names = [
        data.draw(step, index, batch_size=2).clip.name
        for step in range(num_batches)
        for index in range(2)
    ]
    assert num_batches == 3 and len(set(names[:5])) == 5
