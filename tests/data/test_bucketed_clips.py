"""Clips of several sizes: which bucket each goes into, and batches fixed by (seed, step)."""

import collections
import pickle

import numpy as np
import pytest

from mg.data.bucket_config import offers, parse_bucket_config
from mg.data.bucketed_clips import BucketedClipDataset
from mg.data.buckets import Bucket
from mg.data.clips import ClipConfig
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest

# Resolution, frames: keep probability, batch size.
CONFIG = {"16x32": {4: [1.0, 2]}, "16x16": {8: [0.5, 1], 4: [1.0, 2]}, "8x8": {2: [1.0, 3]}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return clips of frames that tell clip and place: 3 wide, 4 square and long, 2 small."""
    folder = tmp_path_factory.mktemp("clips")
    sizes = [(5, 16, 32)] * 3 + [(9, 16, 16)] * 4 + [(3, 8, 8)] * 2
    for number, (num_frames, height, width) in enumerate(sizes):
        frames = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
        frames[..., 0] = number
        frames[..., 1] = np.arange(num_frames)[:, None, None]
        np.save(folder / f"clip{number}.npy", frames)
    return build_manifest(video_folder=folder)


def dataset(manifest, config=None, *, rank=0, num_ranks=1, seed=0, bad=(), **changes):
    return BucketedClipDataset(
        manifest,
        ClipConfig(sample_n_frames=1, size=8, **changes),
        parse_bucket_config(CONFIG if config is None else config, unit=8),
        seed=seed,
        rank=rank,
        num_ranks=num_ranks,
        bad=dict(bad),
        max_bad_share=1.0,
    )


@pytest.mark.parametrize(
    ("name", "unit", "sizes"),
    [
        ("256px_ar1:1", 16, ["32x256x256"]),
        ("256px_ar16:9", 16, ["32x192x336"]),
        ("256px_ar9:16", 32, ["32x352x192"]),
        ("480p_ar16:9", 16, ["32x480x848"]),
        ("192x328", 16, ["32x192x328"]),
    ],
)
def test_names_of_resolutions(name, unit, sizes):
    buckets = parse_bucket_config({name: {32: [1.0, 1]}}, unit=unit)
    assert [str(bucket.size) for bucket in buckets] == sizes


def test_a_resolution_alone_has_all_aspect_ratios():
    buckets = parse_bucket_config({"256px": {"17": [0.5, 3], 33: [1, 1]}}, unit=16)
    sizes = {bucket.size for bucket in buckets}
    # Two lengths; seven ratios, six of them also turned, of which two round to one size.
    assert len(sizes) == len(buckets) == 2 * 11
    assert {Bucket(17, 256, 256), Bucket(33, 192, 336), Bucket(33, 336, 192)} < sizes
    assert all(0.85 < b.size.height * b.size.width / 256**2 < 1.15 for b in buckets)
    assert {(b.size.num_frames, b.keep, b.batch_size) for b in buckets} == {
        (17, 0.5, 3),
        (33, 1.0, 1),
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "there is no bucket"),
        ({"256": {32: [1.0, 1]}}, "'256' is not a resolution; expected e.g. 256px, 480p"),
        ({"256px_ar1:0": {32: [1.0, 1]}}, "is not a resolution"),
        ({"0px": {32: [1.0, 1]}}, "must be one or two numbers of pixels"),
        ({"256px": 32}, "expected {frames"),
        ({"256px": {32: 1.0}}, "32: 1.0; expected frames"),
        ({"256px": {0: [1.0, 1]}}, "expected frames"),
        ({"256px": {32: [0.0, 1]}}, "keep probability 0.0; expected 0 to 1, not 0"),
        ({"256px": {32: [1.0, 0]}}, "batch size 0; expected 1 or more"),
        (
            {"256px_ar1:1": {32: [1, 1]}, "256x256": {32: [1, 1]}},
            "a bucket of '256px_ar1:1' already",
        ),
    ],
)
def test_what_says_no_bucket(config, message):
    with pytest.raises(ValueError, match=message):
        parse_bucket_config(config, unit=16)


def test_offers_go_from_large_to_small_and_by_aspect_ratio():
    buckets = parse_bucket_config(
        {
            "64px_ar1:1": {8: [1.0, 1], 4: [1.0, 1]},
            "64px_ar2:1": {16: [1.0, 1]},
            "32px_ar1:1": {1: [1.0, 1], 4: [1.0, 1]},
        },
        unit=16,
    )
    names = [str(bucket.size) for bucket in buckets]
    assert names == ["16x48x96", "8x64x64", "4x64x64", "4x32x32", "1x32x32"]
    for size, stride, expected in (
        ("9x70x70", 1, ["8x64x64", "4x32x32"]),
        ("9x70x70", 2, ["4x64x64", "4x32x32"]),
        ("20x48x100", 1, ["16x48x96", "4x32x32"]),
        ("9x48x100", 1, ["8x64x64", "4x32x32"]),  # too short for the wide one
        ("9x58x58", 1, ["8x64x64", "4x32x32"]),  # 82 % of the pixels
        ("9x56x56", 1, ["4x32x32"]),  # 77 %
        ("1x70x70", 1, ["1x32x32"]),
        ("3x70x70", 1, []),
    ):
        found = offers(Bucket.parse(size), buckets, stride=stride)
        assert [names[number] for number in found] == expected, size


def test_batches_have_the_shapes_and_the_clips_of_their_bucket(clips):
    data = dataset(clips)
    shapes = collections.defaultdict(set)
    for step in range(40):
        batch = data.batch(step, 5)
        bucket = data.bucket(step)
        size = {(4, 16, 32): 2, (8, 16, 16): 1, (2, 8, 8): 3}[
            (bucket.num_frames, bucket.height, bucket.width)
        ]
        assert batch.frames.shape == (
            size,
            3,
            bucket.num_frames,
            bucket.height,
            bucket.width,
        )
        assert data.num_samples(step, 5) == size
        shapes[str(bucket)].update(batch.names)
    wide = {f"clip{number}.npy" for number in range(3)}
    square = {f"clip{number}.npy" for number in range(3, 7)}
    small = {"clip7.npy", "clip8.npy"}
    assert shapes["4x16x32"] == wide and shapes["8x16x16"] == square
    # What the square bucket does not keep goes into the next smaller one, as do small clips.
    assert small < shapes["2x8x8"] <= small | square and shapes["2x8x8"] & square


def test_every_epoch_draws_each_clip_once_and_keeps_the_share(clips):
    data = dataset(clips, {"16x16": {8: [0.25, 1]}})
    assert {clip.name for clip in data.manifest.clips} == {f"clip{n}.npy" for n in range(3, 7)}
    assert sum("fits no bucket" in entry.reason for entry in data.manifest.rejected) == 5
    sizes = []
    for number in range(200):
        epoch = data._draw_epoch(number)
        names = list(epoch.clips.get(0, ()))
        assert len(set(names)) == len(names) == len(epoch.order)
        sizes.append(len(names))
    assert np.mean(sizes) == pytest.approx(4 * 0.25, abs=0.2)  # some epochs have none
    assert 0 in sizes
    assert [data.batch(step, 1).names for step in (50, 3)] == [
        dataset(clips, {"16x16": {8: [0.25, 1]}}).batch(step, 1).names for step in (50, 3)
    ]


def test_any_order_and_any_worker_give_the_same_batches(clips):
    changes = {"crop": "random", "flip": True}
    expected = [dataset(clips, **changes).batch(step, 1) for step in range(12)]
    backwards = dataset(clips, **changes)
    for step in reversed(range(12)):
        np.testing.assert_array_equal(backwards.batch(step, 1).frames, expected[step].frames)
    with ClipLoader(dataset(clips, **changes), 1, start_step=5, num_steps=7) as loader:
        for batch, wanted in zip(loader, expected[5:], strict=True):
            np.testing.assert_array_equal(batch.frames, wanted.frames)
            assert batch.names == wanted.names
    assert len(pickle.dumps(backwards.draw(0, 0))) < 5000


def test_two_ranks_share_the_batches_of_one(clips):
    doubled = {
        name: {frames: [keep, 2 * size] for frames, (keep, size) in lengths.items()}
        for name, lengths in CONFIG.items()
    }
    one = dataset(clips, doubled)
    two = [dataset(clips, rank=rank, num_ranks=2) for rank in range(2)]
    for step in range(20):
        parts = [part.batch(step, 1).frames for part in two]
        np.testing.assert_array_equal(np.concatenate(parts), one.batch(step, 1).frames)


def test_bad_clips_are_replaced_by_others_of_the_bucket(clips):
    bad = {"clip3.npy": "torn", "clip4.npy": "torn", "clip5.npy": "torn"}
    data = dataset(clips, {"16x16": {8: [0.3, 2]}}, bad=bad)
    assert {name for step in range(10) for name in data.batch(step, 1).names} == {"clip6.npy"}
    data.take_bad({"clip6.npy": "torn too"})
    with pytest.raises(ValueError, match="none of the clips of bucket 8x16x16 can be read"):
        data.draw(0, 0)


def test_image_steps_take_one_frame_of_each_clip(clips):
    data = dataset(clips, mixed_strategy="mixed_video_image", mixed_image_ratio=0.5)
    lengths = collections.Counter(data.batch(step, 1).num_frames == 1 for step in range(64))
    assert lengths[True] == 32
    with pytest.raises(ValueError, match="give it buckets of one frame"):
        dataset(clips, mixed_strategy="image_only")


def test_clips_that_fit_nothing_are_told(clips):
    with pytest.raises(ValueError, match=r"no clip fits a bucket \(16x64x64\):(.|\n)*5x16x32"):
        dataset(clips, {"64x64": {16: [1.0, 1]}})
