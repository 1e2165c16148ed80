"""Latent files joined with captions: what is used, what is left out, what is refused."""

import pytest

from mg.data.buckets import Bucket
from mg.data.captions import read_captions
from mg.data.latent_manifest import build_latent_manifest
from mg.data.manifest import Rejected


def test_latents_get_captions_and_buckets(tmp_path, write_latent, make_table):
    write_latent(tmp_path, "b.mp4", (3, 4, 4))
    write_latent(tmp_path, "sub/a.mp4", (1, 4, 6))
    write_latent(tmp_path, "c.mp4", (5, 4, 4))
    captions = {"b.mp4": "a dog", "sub/a.mp4": "a cat", "c.mp4": "a bird"}
    manifest = build_latent_manifest(tmp_path, make_table(captions), weights_hash="w" * 64)
    assert [(clip.name, *clip.captions, str(clip.bucket)) for clip in manifest.clips] == [
        ("b.mp4", "a dog", "3x4x4"),
        ("c.mp4", "a bird", "5x4x4"),
        ("sub/a.mp4", "a cat", "1x4x6"),
    ]
    assert manifest.clips[0].fps == 12.0 and manifest.clips[0].path == tmp_path / "b.safetensors"
    assert manifest.weights_hash == "w" * 64 and manifest.config["scaling_factor"] == 2.0
    assert manifest.rejected == ()
    assert [str(bucket) for bucket in manifest.buckets()] == ["1x4x6", "3x4x4", "5x4x4"]
    shouted = manifest.with_captions(lambda caption, clip: f"{caption} at {clip.fps:g} fps")
    assert shouted.clips[0].captions == ("a dog at 12 fps",)
    assert shouted.buckets().keys() == manifest.buckets().keys()


def test_all_that_is_left_out_has_a_reason(tmp_path, write_latent, make_table, caplog):
    for name, size in (
        ("good.mp4", (4, 4, 4)),
        ("again.mp4", (4, 4, 4)),
        ("short.mp4", (3, 4, 4)),
        ("wide.mp4", (4, 4, 6)),
        ("silent.mp4", (4, 4, 4)),
        ("empty.mp4", (4, 4, 4)),
    ):
        write_latent(tmp_path, name, size)
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "again.safetensors").read_bytes())
    (tmp_path / "broken.npz").write_bytes(b"PK")
    captions = {f"{name}.mp4": "x" for name in ("good", "again", "short", "wide", "lost")}
    manifest = build_latent_manifest(
        tmp_path,
        make_table({**captions, "empty.mp4": "", "unseen.mp4": ""}),
        buckets=[Bucket(4, 4, 4), Bucket(8, 4, 4), Bucket(1, 4, 4)],
    )
    assert [clip.name for clip in manifest.clips] == ["again.mp4", "good.mp4"]
    broken, *others = manifest.rejected
    assert broken.name == "broken.npz" and broken.reason.startswith("damaged: ")
    assert others == [
        Rejected("copy.safetensors", "again.safetensors is a latent of the same video"),
        Rejected("empty.safetensors", "no caption"),
        Rejected("short.safetensors", "too few frames: 3, 4 needed"),
        Rejected("silent.safetensors", "no caption"),
        Rejected("wide.safetensors", "no bucket of 4x6"),
        Rejected("lost.mp4", "no latent"),
        Rejected("unseen.mp4", "no caption"),
    ]
    assert "\nlost.mp4            no latent" in manifest.rejected_table()
    assert "No latent for the buckets 1x4x4, 8x4x4." in caplog.text


def test_pieces_of_a_prepared_video_have_its_caption(tmp_path, write_latent, make_table):
    for number in range(2):
        write_latent(tmp_path, f"sub/a.mp4.{number:04d}.npy", (2, 4, 4))
    write_latent(tmp_path, "sub/b.mp4.0000.npy", (2, 4, 4))
    captions = {"sub/a.mp4": "a cat", "sub/b.mp4.0000.npy": "a hat"}
    manifest = build_latent_manifest(tmp_path, make_table(captions))
    assert [clip.captions for clip in manifest.clips] == [("a cat",), ("a cat",), ("a hat",)]
    assert manifest.rejected == ()


def test_captions_of_a_table_on_disk(tmp_path, write_latent):
    (tmp_path / "latents").mkdir()
    for name in ("a.mp4", "sub/b.mp4", "c.mp4"):
        write_latent(tmp_path / "latents", name, (2, 4, 4))
    (tmp_path / "captions.csv").write_text(
        "video,caption\n./a.mp4,a cat\nsub/b,a dog\na.mp4,an animal\nc.mp4,\n"
    )
    manifest = build_latent_manifest(tmp_path / "latents", read_captions(tmp_path / "captions.csv"))
    assert [(clip.name, clip.captions) for clip in manifest.clips] == [
        ("a.mp4", ("a cat", "an animal")),
        ("sub/b.mp4", ("a dog",)),
    ]
    assert manifest.rejected == (Rejected("c.safetensors", "no caption"),)


def test_a_stale_cache_is_refused(tmp_path, write_latent, make_table):
    write_latent(tmp_path, "a.mp4", (2, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"a\.safetensors is stale: it was encoded with weights wwwwwwwwwwww, but uuuuuuuuuuuu"
        r".*mg encode",
    ):
        build_latent_manifest(tmp_path, make_table({"a.mp4": "x"}), weights_hash="u" * 64)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"weights": "v" * 64}, "weights_hash"),
        ({"config": {"shift_factor": 0.0}}, "config_hash"),
        ({"settings": {"resize": "cover"}}, "resize"),
        ({"settings": {"encode_dtype": "float16"}}, "encode_dtype"),
    ],
)
def test_a_mixed_cache_is_refused(tmp_path, write_latent, make_table, other, field):
    write_latent(tmp_path, "a.mp4", (2, 4, 4), settings={"tiling": {"frames": 32}})
    write_latent(tmp_path, "b.mp4", (2, 4, 4))  # other tiles do not matter
    assert len(build_latent_manifest(tmp_path, make_table({"a.mp4": "x", "b.mp4": "y"})).clips) == 2
    write_latent(tmp_path, "c.mp4", (2, 4, 4), **other)
    with pytest.raises(ValueError, match=rf"c\.safetensors and .*a\.safetensors .*in {field};"):
        build_latent_manifest(tmp_path, make_table({"a.mp4": "x"}))


def test_nothing_usable_and_too_many_sizes_are_refused(tmp_path, write_latent, make_table):
    with pytest.raises(FileNotFoundError, match="no latent file"):
        build_latent_manifest(tmp_path, make_table({}))
    write_latent(tmp_path, "a.mp4", (2, 4, 4))
    with pytest.raises(ValueError, match=r"no usable latent in .*\na\.safetensors  no caption\nb"):
        build_latent_manifest(tmp_path, make_table({"b.mp4": "x"}))
    for width in range(1, 18):
        write_latent(tmp_path, f"{width}.mp4", (2, 2, width))
    with pytest.raises(ValueError, match=r"18 different sizes .* name the buckets"):
        build_latent_manifest(tmp_path, make_table({"a.mp4": "x"}))


def test_a_folder_of_damaged_files_only_is_refused(tmp_path, make_table):
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no usable latent.*\na\.safetensors  damaged"):
        build_latent_manifest(tmp_path, make_table({"a.mp4": "x"}))
