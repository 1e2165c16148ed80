"""Which bucket a latent or a video goes into."""

import pytest

from mg.data.buckets import Bucket, bucket_of_latent, bucket_of_video

BUCKETS = list(map(Bucket.parse, ["1x8x8", "2x8x8", "6x8x8", "6x6x10"]))


def test_text_and_bucket():
    assert Bucket.parse("4x32x48") == Bucket(4, 32, 48)
    assert str(Bucket(4, 32, 48)) == "4x32x48"
    assert Bucket(1, 8, 8).is_image and not Bucket(2, 8, 8).is_image
    for text in ("4x32", "4,32,32", "4x32x-1", "4x32x3.5", "4x32x٣"):
        with pytest.raises(ValueError, match="expected FRAMESxHEIGHTxWIDTH"):
            Bucket.parse(text)
    with pytest.raises(ValueError, match=r"bucket 0x8x8: .* at least 1"):
        Bucket(0, 8, 8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1x8x8", "1x8x8"),
        ("2x8x8", "2x8x8"),
        ("5x8x8", "2x8x8"),
        ("9x8x8", "6x8x8"),
        ("6x6x10", "6x6x10"),
    ],
)
def test_latents_go_into_the_longest_bucket_of_their_size(size, expected):
    assert str(bucket_of_latent(Bucket.parse(size), BUCKETS)) == expected


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ("6x8x6", "no bucket of 8x6"),
        ("5x6x10", "too few frames: 5, 6 needed"),
        ("1x6x10", "no bucket for images"),
    ],
)
def test_latents_without_a_bucket(size, reason):
    with pytest.raises(ValueError, match=reason):
        bucket_of_latent(Bucket.parse(size), BUCKETS)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1x90x160", "1x8x8"),
        ("2x90x160", "2x8x8"),
        ("7x90x160", "6x6x10"),
        ("7x160x90", "6x8x8"),
        ("7x100x128", "6x8x8"),  # 1.28 is nearer to 1 than to 10 / 6, by ratio
        ("7x100x132", "6x6x10"),
    ],
)
def test_videos_go_into_the_longest_bucket_of_the_nearest_aspect_ratio(size, expected):
    assert str(bucket_of_video(Bucket.parse(size), BUCKETS)) == expected


def test_videos_without_a_bucket():
    with pytest.raises(ValueError, match="no bucket for videos"):
        bucket_of_video(Bucket(9, 8, 8), [Bucket(1, 8, 8)])
    with pytest.raises(ValueError, match="too few frames: 5, 6 needed"):
        bucket_of_video(Bucket(5, 8, 8), [Bucket(6, 8, 8), Bucket(1, 8, 8)])
