"""Batches of latents: numbers, order, buckets, ranks, resume, text, faults."""

import collections
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg.data.buckets import Bucket
from mg.data.latent_dataset import LatentDataset
from mg.data.latent_files import LatentWriter, read_latent
from mg.data.latent_manifest import build_latent_manifest
from mg.data.loader import ClipLoader

IMAGE, SHORT, LONG = Bucket(1, 4, 4), Bucket(2, 4, 4), Bucket(4, 4, 6)


class FakeText:
    """One token, whose vector is the length of the text and a number of the encoder."""

    def __init__(self, number):
        self.number = number

    def check(self, texts):
        self.checked = list(texts)

    def embed(self, texts):
        values = np.array([[[len(text), self.number]] for text in texts], np.float32)
        return values, np.ones(values.shape[:2], bool)

    def __reduce__(self):
        raise TypeError("an encoder is not to be sent to worker processes")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, write_latent, make_table):
    """Return 5 images, 7 short and 9 long clips; the caption of clip n has n letters."""
    folder = tmp_path_factory.mktemp("latents")
    captions = {}
    for bucket, num_clips in ((IMAGE, 5), (SHORT, 7), (LONG, 9)):
        for _ in range(num_clips):
            name = f"clip{len(captions):02d}.mp4"
            write_latent(folder, name, dataclasses.astuple(bucket))
            captions[name] = "x" * (len(captions) + 1)
    return build_latent_manifest(folder, make_table(captions))


def make(manifest, **settings):
    return LatentDataset(manifest, [FakeText(1), FakeText(2)], **{"seed": 3, **settings})


def assert_equal_batches(batches, expected):
    assert [batch.names for batch in batches] == [batch.names for batch in expected]
    assert [batch.captions for batch in batches] == [batch.captions for batch in expected]
    for batch, reference in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch.mean, reference.mean)
        np.testing.assert_array_equal(batch.std, reference.std)
        for array, other in zip(batch.text, reference.text, strict=True):
            np.testing.assert_array_equal(array, other)


# -- numbers ---------------------------------------------------------------------------------------


def test_mean_and_std_are_those_of_the_file_as_a_generator_sees_them(
    tmp_path, write_latent, make_table
):
    mean, logvar = write_latent(tmp_path, "a.mp4", (5, 4, 6))
    manifest = build_latent_manifest(tmp_path, make_table({"a.mp4": "a cat"}), buckets=[LONG])
    batch = make(manifest, text_dropout=0.0).batch(0, 2)
    assert batch.names == ("a.mp4", "a.mp4") and batch.captions == ("a cat", "a cat")
    assert batch.mean.shape == batch.std.shape == (2, 3, 4, 4, 6) and batch.num_frames == 4
    assert batch.mean.dtype == batch.std.dtype == np.float32
    # The first 4 of 5 frames; scaling_factor 2, shift_factor 0.5.
    np.testing.assert_allclose(batch.mean[1], 2.0 * mean[:, :4] + 0.5, atol=1e-6)
    np.testing.assert_allclose(batch.std[1], 2.0 * np.exp(0.5 * logvar[:, :4]), rtol=1e-6)
    values, mask, others, _ = batch.text
    assert values.tolist() == [[[5, 1]], [[5, 1]]] and others.tolist() == [[[5, 2]], [[5, 2]]]
    assert mask.shape == (2, 1) and mask.all()


def test_logvar_is_bounded_as_in_the_autoencoder(tmp_path, write_latent, make_table):
    write_latent(tmp_path, "a.mp4", (1, 4, 4))
    latent = read_latent(tmp_path / "a.safetensors")
    with LatentWriter(tmp_path / "a.safetensors", latent.info, overwrite=True) as writer:
        writer.write(np.zeros((3, 1, 4, 4), np.float32), np.full((3, 1, 4, 4), 1e30, np.float32))
    batch = make(build_latent_manifest(tmp_path, make_table({"a.mp4": "x"}))).batch(0, 1)
    np.testing.assert_allclose(batch.std, 2 * np.exp(10.0), rtol=1e-6)


# -- order -----------------------------------------------------------------------------------------


def test_an_epoch_draws_every_clip_in_batches_of_one_bucket(manifest):
    data = make(manifest, batch_sizes={IMAGE: 5, LONG: 2})
    assert data.num_batches_per_epoch(3) == 1 + 3 + 5
    orders = []
    for epoch in range(2):
        names, buckets = collections.Counter(), []
        for step in range(9 * epoch, 9 * (epoch + 1)):
            batch = data.batch(step, 3)
            bucket = Bucket(*batch.mean.shape[2:])
            buckets.append(bucket)
            assert bucket == data.bucket(step, 3)
            size = {IMAGE: 5, SHORT: 3, LONG: 2}[bucket]
            assert len(batch.names) == data.num_samples(step, 3) == size
            names.update(batch.names)
        assert collections.Counter(buckets) == {IMAGE: 1, SHORT: 3, LONG: 5}
        # The last batches are filled up: 2 places of the short bucket, 1 of the long one.
        assert sum(names.values()) == 21 + 3
        assert epoch > 0 or names.keys() == data.names
        orders.append(buckets)
    assert orders[0] != orders[1]


def test_in_the_long_run_every_clip_of_a_bucket_is_drawn_equally_often(manifest):
    data = make(manifest)
    counts = collections.Counter()
    for step in range(21 * 8):  # 2 + 3 + 3 batches of 3 per epoch
        counts.update(data.draw(step, index, batch_size=3).name for index in range(3))
    for bucket, clips in manifest.buckets().items():
        numbers = [counts[clip.name] for clip in clips]
        assert max(numbers) - min(numbers) <= 1, bucket


def test_any_order_any_start_and_any_workers_give_the_same_batches(manifest):
    settings = {"image_ratio": 0.5, "batch_sizes": {IMAGE: 4}, "text_dropout": 0.3}
    expected = [make(manifest, **settings).batch(step, 2) for step in range(12)]
    data = make(manifest, **settings)
    backwards = [data.batch(step, 2) for step in reversed(range(12))]
    assert_equal_batches(backwards[::-1], expected)
    for num_workers in (0, 1):
        data = make(manifest, **settings)
        with ClipLoader(data, 2, start_step=7, num_steps=5, num_workers=num_workers) as loader:
            assert_equal_batches(list(loader), expected[7:])
    other = [make(manifest, **settings, seed=4).batch(step, 2).names for step in range(12)]
    assert other != [batch.names for batch in expected]


def test_two_ranks_see_what_one_would(manifest):
    settings = {"image_ratio": 0.5, "text_dropout": 0.3}
    one = make(manifest, **settings, batch_sizes={IMAGE: 4})
    two = [
        make(manifest, **settings, batch_sizes={IMAGE: 2}, rank=rank, num_ranks=2)
        for rank in range(2)
    ]
    assert two[0].num_batches_per_epoch(1) == one.num_batches_per_epoch(2)
    for step in range(20):
        whole = one.batch(step, 2)
        parts = [data.batch(step, 1) for data in two]
        assert parts[0].names + parts[1].names == whole.names
        assert parts[0].captions + parts[1].captions == whole.captions
        np.testing.assert_array_equal(np.concatenate([p.mean for p in parts]), whole.mean)


@pytest.mark.parametrize(("ratio", "num_images"), [(0.1, 58), (1.0, 320), (3.0, 480)])
def test_image_batches_have_their_ratio(manifest, ratio, num_images):
    data = make(manifest, image_ratio=ratio)
    kinds = [data.bucket(step, 2).is_image for step in range(640)]  # whole blocks of 64
    assert sum(kinds) == num_images  # 640 * ratio / (1 + ratio), rounded
    # Videos keep their own order: 4 + 5 batches per epoch, whatever images come between.
    videos = [step for step in range(640) if not kinds[step]][:9]
    names = {name for step in videos for name in data.batch(step, 2).names}
    assert names == {clip.name for clip in manifest.clips if not clip.bucket.is_image}
    assert data.num_batches_per_epoch(2) == {0.1: 10, 1.0: 18, 3.0: 36}[ratio]


def test_table_of_buckets(manifest):
    lines = make(manifest, batch_sizes={IMAGE: 8}).table(2).splitlines()
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["1x4x4", "5", "8", "1"],
        ["2x4x4", "7", "2", "4"],
        ["4x4x6", "9", "2", "5"],
    ]
    assert lines[1].endswith("(fewer clips than a batch has: each comes more than once)")
    assert lines[4] == "21 clips, 10 batches per epoch; 0 left out"
    data = make(manifest, image_ratio=0.1, num_ranks=2)
    lines = data.table(1).splitlines()
    assert [line.split()[3] for line in lines[1:4]] == ["0.9", "4", "5"]
    assert lines[4] == "21 clips, 10 batches per epoch on each of 2 ranks; 0 left out"


# -- text ------------------------------------------------------------------------------------------


def test_dropped_captions_give_the_empty_text(manifest):
    data = make(manifest, text_dropout=0.2)
    captions, dropped = {clip.name: clip.captions[0] for clip in manifest.clips}, 0
    for step in range(500):
        batch = data.batch(step, 4)
        values = batch.text[0]
        for name, caption, vectors in zip(batch.names, batch.captions, values, strict=True):
            assert caption in ("", captions[name])
            assert vectors.tolist() == [[len(caption), 1]]
            dropped += caption == ""
    # 2000 draws: the standard deviation is 0.009.
    assert dropped / 2000 == pytest.approx(0.2, abs=0.027)
    never = make(manifest, text_dropout=0.0)
    assert all(all(never.batch(step, 4).captions) for step in range(50))


def test_dropout_is_keyed_by_seed_step_and_place(manifest):
    def dropped(data, step, *, batch_size=8):
        return [caption == "" for caption in data.batch(step, batch_size).captions]

    data = make(manifest, text_dropout=0.5)
    patterns = {tuple(dropped(data, step)) for step in range(20)}
    assert len(patterns) > 15
    assert dropped(data, 5) == dropped(make(manifest, text_dropout=0.5), 5)
    assert dropped(data, 5) != dropped(make(manifest, text_dropout=0.5, seed=4), 5)
    # More dropout drops the same and more.
    more = dropped(make(manifest, text_dropout=0.8), 5)
    assert all(more[place] for place, is_dropped in enumerate(dropped(data, 5)) if is_dropped)


def test_several_captions_of_a_video_take_turns(manifest):
    both = {clip.name: (clip.captions[0], "y" * len(clip.captions[0])) for clip in manifest.clips}
    clips = tuple(dataclasses.replace(c, captions=both[c.name]) for c in manifest.clips)
    data = make(dataclasses.replace(manifest, clips=clips), text_dropout=0.0)
    texts = [caption for step in range(250) for caption in data.batch(step, 4).captions]
    # 1000 draws: the standard deviation is 0.016.
    assert np.mean([text[0] == "y" for text in texts]) == pytest.approx(0.5, abs=0.05)
    assert {text for text in texts} == {text for pair in both.values() for text in pair}


def test_all_texts_are_asked_for_before_the_first_batch(manifest):
    source = FakeText(1)
    LatentDataset(manifest, [source])
    assert set(source.checked) == {"", *("x" * number for number in range(1, 22))}


# -- faults ----------------------------------------------------------------------------------------


def damage(path, fault):
    latent = read_latent(path)
    mean, logvar, info = np.array(latent.mean), np.array(latent.logvar), latent.info
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif fault == "gone":
        path.unlink()
    else:
        if fault == "nan":
            mean[0, 0, 0, 0] = np.nan
        if fault == "narrower":
            mean, logvar = mean[..., :2], logvar[..., :2]
            info = dataclasses.replace(info, width=4)
        with LatentWriter(path, info, overwrite=True) as writer:
            writer.write(mean, logvar)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut", "not a whole safetensors file"),
        ("gone", "not found"),
        ("nan", "the latent holds NaN or infinity"),
        ("narrower", "the latent is 2x4x2 now, it was 2x4x4"),
    ],
)
def test_a_latent_that_cannot_be_read_is_replaced(
    tmp_path, write_latent, make_table, fault, reason
):
    for name in "abcd":
        write_latent(tmp_path, f"{name}.mp4", (2, 4, 4))
    manifest = build_latent_manifest(tmp_path, make_table({f"{name}.mp4": name for name in "abcd"}))
    damage(tmp_path / "b.safetensors", fault)
    known = make(manifest, bad={"b.mp4": "known before", "z.mp4": "of another run"})
    assert known.bad == {"b.mp4": "known before"}
    expected = [known.batch(step, 4) for step in range(3)]
    data = make(manifest)
    assert_equal_batches([data.batch(step, 4) for step in range(3)], expected)
    assert list(data.bad) == ["b.mp4"] and reason in data.bad["b.mp4"]
    assert reason in data.bad_table()
    with pytest.raises(ValueError, match=r"1 of 4 clips are bad, more than max_bad_share=0\.2"):
        make(manifest, max_bad_share=0.2).batch(0, 4)


def test_a_bucket_without_a_readable_latent_ends_the_run(manifest):
    bad = {clip.name: "broken" for clip in manifest.buckets()[SHORT]}
    data = make(manifest, bad=bad, max_bad_share=0.5)
    with pytest.raises(
        ValueError, match=r"none of the 7 latents of bucket 2x4x4 can be read:\nclip"
    ):
        [data.batch(step, 2) for step in range(12)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed must not be negative"),
        ({"rank": 1}, r"rank must lie in \[0, 1\), not 1"),
        ({"max_bad_share": 0}, r"max_bad_share must lie in \(0, 1\]"),
        ({"text_dropout": 1.0}, r"text_dropout must lie in \[0, 1\), not 1.0"),
        ({"image_ratio": 0.0}, "image_ratio must be above 0"),
        ({"batch_sizes": {IMAGE: 0}}, "bucket 1x4x4 must be at least 1, not 0"),
        ({"batch_sizes": {Bucket(9, 4, 4): 1}}, "9x4x4: no latent in it, only in 1x4x4, 2x4x4"),
    ],
)
def test_wrong_settings(manifest, settings, message):
    with pytest.raises(ValueError, match=message):
        make(manifest, **settings)


def test_wrong_places(manifest):
    data = make(manifest)
    for step, index, batch_size in ((-1, 0, 2), (0, 2, 2), (0, -1, 2), (0, 0, 0)):
        with pytest.raises(ValueError, match="must"):
            data.draw(step, index, batch_size=batch_size)


def test_an_image_ratio_needs_images_and_videos(manifest):
    images = tuple(clip for clip in manifest.clips if clip.bucket.is_image)
    with pytest.raises(ValueError, match=r"image_ratio=0\.1 .* there are 5 images and 0 videos"):
        make(dataclasses.replace(manifest, clips=images), image_ratio=0.1)


def test_reading_latents_loads_no_mindspore():
    code = (
        "import sys, mg.data.latent_dataset, mg.conditions.text.sources\n"
        "sys.exit('mindspore' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
