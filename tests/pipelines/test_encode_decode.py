"""Videos to latents and back: numbers, restarts, bad files, paths."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.data.buckets import Bucket
from mg.data.captions import read_captions
from mg.data.latent_files import list_latent_files, read_latent
from mg.data.latent_manifest import build_latent_manifest
from mg.data.manifest import build_manifest
from mg.data.transforms import resize_and_crop, to_model_range
from mg.data.video import VideoReader, probe_video
from mg.data.video_writer import write_video
from mg.models.tae.tae import TemporalAutoencoder
from mg.pipelines.autoencoder import weights_hash
from mg.pipelines.decode import DEFAULT_FPS, decode_latent_files
from mg.pipelines.encode import encode_videos
from mg.pipelines.output_paths import output_paths
from mg.pipelines.streaming import encode_frames

HOSTILE = Path(__file__).parents[1] / "fixtures" / "hostile"


def test_latents_equal_those_of_the_network(make_tae, make_frames, video_folder, tmp_path):
    tae = make_tae(use_tile=True)
    outcome = encode_videos(tae, build_manifest(video_folder=video_folder), tmp_path)
    assert sorted(outcome.done) == ["a.mp4", "short.mp4", "sub/b.mp4"]
    assert list(outcome.failed) == ["bad.mp4"]
    video = to_model_range(make_frames(13, 24, 32))
    _, mean, logvar = tae.encode(Tensor(video[np.newaxis]))
    latent = read_latent(tmp_path / "sub" / "b.safetensors")
    np.testing.assert_array_equal(latent.mean, mean.asnumpy()[0])
    np.testing.assert_array_equal(latent.logvar, logvar.asnumpy()[0])
    assert (latent.info.num_frames, latent.info.fps) == (13, 25.0)


def test_both_formats_decode_to_the_same_video(make_tae, video_folder, tmp_path):
    tae = make_tae()
    manifest = build_manifest(video_folder=video_folder / "a.mp4")
    videos = []
    for suffix in (".safetensors", ".npz"):
        folder = tmp_path / suffix[1:]
        encode_videos(tae, manifest, folder / "latents", suffix=suffix)
        outcome = decode_latent_files(tae, folder / "latents", folder / "videos")
        assert outcome.done == [f"a{suffix}"]
        with VideoReader(folder / "videos" / "a.mp4") as reader:
            assert (reader.info.num_frames, reader.info.fps) == (20, 25.0)
            videos.append(reader.read(range(20)))
    assert videos[0].shape == (20, 24, 32, 3)
    np.testing.assert_array_equal(*videos)


def test_restart_skips_what_is_finished(make_tae, video_folder, tmp_path):
    tae = make_tae()
    manifest = build_manifest(video_folder=video_folder)
    latents, videos = tmp_path / "latents", tmp_path / "videos"
    encode_videos(tae, manifest, latents)
    decode_latent_files(tae, latents, videos)
    (latents / "a.safetensors").unlink()
    (videos / "a.mp4").unlink()
    before = (latents / "sub" / "b.safetensors").stat().st_mtime_ns
    outcome = encode_videos(tae, manifest, latents)
    assert outcome.done == ["a.mp4"]
    assert sorted(outcome.finished_before) == ["short.mp4", "sub/b.mp4"]
    assert (latents / "sub" / "b.safetensors").stat().st_mtime_ns == before
    outcome = decode_latent_files(tae, latents, videos)
    assert outcome.done == ["a.safetensors"] and len(outcome.finished_before) == 2
    assert outcome.summary("decoded") == "1 decoded, 2 finished before, 0 left out"


def test_latent_made_in_another_way_is_not_taken_for_finished(make_tae, video_folder, tmp_path):
    tae = make_tae()
    manifest = build_manifest(video_folder=video_folder / "a.mp4")
    encode_videos(tae, manifest, tmp_path)
    with pytest.raises(ValueError, match=r"settings \(height, width, settings\.resize differ\)"):
        encode_videos(tae, manifest, tmp_path, image_size=16)
    encode_videos(tae, manifest, tmp_path, image_size=16, overwrite=True)
    assert read_latent(tmp_path / "a.safetensors").mean.shape == (4, 10, 8, 8)


def contents(folder):
    """Return the bytes of every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def add_to_weights(tae):
    parameter = next(tae.get_parameters())
    parameter.set_data(parameter + 1)


def test_latents_of_another_video_or_other_weights_are_not_taken_for_finished(
    make_tae, make_frames, video_folder, tmp_path
):
    videos, latents = tmp_path / "videos", tmp_path / "latents"
    shutil.copytree(video_folder, videos)
    tae = make_tae()
    encode_videos(tae, build_manifest(video_folder=videos), latents)
    before = contents(latents)
    write_video(videos / "a.mp4", make_frames(20, 24, 32)[::-1], fps=25, overwrite=True)
    np.save(videos / "new.npy", make_frames(4, 16, 16))
    with pytest.raises(
        ValueError, match=r"a\.safetensors exists, .* \(.*settings\.input\.mtime_ns"
    ):
        encode_videos(tae, build_manifest(video_folder=videos), latents)
    (videos / "a.mp4").unlink()
    add_to_weights(tae)
    with pytest.raises(ValueError, match=r"settings \(weights_hash differ\)"):
        encode_videos(tae, build_manifest(video_folder=videos), latents)
    assert contents(latents) == before


def test_videos_of_another_latent_or_other_weights_are_not_taken_for_finished(
    make_tae, video_folder, tmp_path
):
    tae, latents, videos = make_tae(), tmp_path / "latents", tmp_path / "videos"
    encode_videos(tae, build_manifest(video_folder=video_folder), latents)
    decode_latent_files(tae, latents, videos)
    before = contents(videos)
    assert len(before) == 6  # a video and its record of each
    assert len(decode_latent_files(tae, latents, videos).finished_before) == 3
    (latents / "z.safetensors").write_bytes((latents / "a.safetensors").read_bytes())
    os.utime(latents / "a.safetensors", (1, 1))
    with pytest.raises(ValueError, match=r"a\.json exists, .* \(input\.mtime_ns differ\)"):
        decode_latent_files(tae, latents, videos)
    half = make_tae(decode_dtype="float16")
    with pytest.raises(ValueError, match=r"short\.json exists, .*settings\.decode_dtype differ"):
        decode_latent_files(half, latents / "short.safetensors", videos)
    add_to_weights(tae)
    with pytest.raises(ValueError, match=r"short\.json exists, .* \(weights_hash differ\)"):
        decode_latent_files(tae, latents / "short.safetensors", videos)
    assert contents(videos) == before
    outcome = decode_latent_files(tae, latents, videos, overwrite=True)
    assert len(outcome.done) == 4
    assert len(decode_latent_files(tae, latents, videos).finished_before) == 4


def test_a_video_that_a_killed_run_left_is_made_again(
    make_tae, video_folder, tmp_path, monkeypatch
):
    tae, videos = make_tae(), tmp_path / "videos"
    encode_videos(tae, build_manifest(video_folder=video_folder / "short.mp4"), tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mg.pipelines.decode.mark_finished", killed)
        with pytest.raises(KeyboardInterrupt):
            decode_latent_files(tae, tmp_path / "short.safetensors", videos)
    assert (videos / "short.mp4").exists()
    outcome = decode_latent_files(tae, tmp_path / "short.safetensors", videos)
    assert outcome.done == ["short.safetensors"]
    (videos / "short.json").unlink()
    with pytest.raises(FileExistsError, match=r"short\.mp4 exists, without short\.json"):
        decode_latent_files(tae, tmp_path / "short.safetensors", videos)


def test_hostile_latents_are_listed_and_the_others_decoded(make_tae, video_folder, tmp_path):
    latents = tmp_path / "latents"
    encode_videos(
        make_tae(), build_manifest(video_folder=video_folder / "short.mp4"), latents, suffix=".npz"
    )
    hostile = sorted(path.name for path in HOSTILE.glob("*.npz"))
    for name in hostile:
        shutil.copy(HOSTILE / name, latents)
    outcome = decode_latent_files(make_tae(), latents, tmp_path / "videos")
    assert outcome.done == ["short.npz"] and sorted(outcome.failed) == hostile
    assert len(hostile) == 3


def test_clips_of_mixed_size_go_into_buckets(make_tae, make_frames, tmp_path):
    for name, shape in (
        ("long_wide", (21, 24, 34)),
        ("square", (20, 30, 30)),
        ("short", (9, 24, 32)),
        ("too_short", (5, 24, 32)),
        ("image", (1, 24, 24)),
    ):
        np.save(tmp_path / f"{name}.npy", make_frames(*shape))
    buckets = list(map(Bucket.parse, ["1x16x16", "8x16x16", "20x16x16", "20x16x24"]))
    tae, latents = make_tae(), tmp_path / "latents"
    manifest = build_manifest(video_folder=tmp_path)
    outcome = encode_videos(tae, manifest, latents, buckets=buckets)
    assert outcome.failed == {"too_short.npy": "too few frames: 5, 8 needed"}
    shapes = {
        path.stem: read_latent(path).mean.shape for path in list_latent_files(latents).values()
    }
    assert shapes == {
        "long_wide": (4, 10, 8, 12),
        "square": (4, 10, 8, 8),
        "short": (4, 4, 8, 8),
        "image": (4, 1, 8, 8),
    }
    frames = resize_and_crop(make_frames(9, 24, 32)[:8], size=(16, 16))
    _, mean, _ = tae.encode(Tensor(to_model_range(frames)[np.newaxis]))
    latent = read_latent(latents / "short.safetensors")
    np.testing.assert_array_equal(latent.mean, mean.asnumpy()[0])
    assert (latent.info.num_frames, latent.info.settings["resize"]) == (8, "cover")
    (tmp_path / "captions.csv").write_text("video,caption\nshort.npy,a\nimage.npy,b\n")
    captions = read_captions(tmp_path / "captions.csv")
    usable = build_latent_manifest(latents, captions, weights_hash=weights_hash(tae))
    assert [(clip.name, str(clip.bucket)) for clip in usable.clips] == [
        ("image.npy", "1x8x8"),
        ("short.npy", "4x8x8"),
    ]
    again = encode_videos(tae, manifest, latents, buckets=buckets)
    assert len(again.finished_before) == 4 and not again.done


def test_wrong_buckets_are_refused(make_tae, video_folder, tmp_path):
    manifest = build_manifest(video_folder=video_folder / "a.mp4")
    buckets = [Bucket(8, 16, 15)]
    with pytest.raises(ValueError, match=r"bucket 8x16x15: .*width 15 is not a multiple of 2"):
        encode_videos(make_tae(), manifest, tmp_path, buckets=buckets)
    with pytest.raises(ValueError, match="either image_size or buckets"):
        encode_videos(make_tae(), manifest, tmp_path, buckets=buckets, image_size=16)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_latents_are_listed(make_tae, video_folder, tmp_path):
    tae = make_tae()
    latents = tmp_path / "latents"
    encode_videos(tae, build_manifest(video_folder=video_folder), latents)
    broken = latents / "broken.safetensors"
    broken.write_bytes((latents / "a.safetensors").read_bytes()[:-10])
    outcome = decode_latent_files(tae, latents, tmp_path / "videos")
    assert len(outcome.done) == 3
    assert "not a whole safetensors file" in outcome.failed["broken.safetensors"]
    assert not (tmp_path / "videos" / "broken.mp4").exists()

    other = TemporalAutoencoder({**tae.config.to_dict(), "num_res_blocks": 2})
    with pytest.raises(ValueError, match="num_res_blocks is 1 there and 2 here"):
        decode_latent_files(other, latents / "a.safetensors", tmp_path / "others")
    assert not (tmp_path / "others").exists()


def test_other_weights_are_told(make_tae, video_folder, tmp_path, caplog):
    tae = make_tae()
    manifest = build_manifest(video_folder=video_folder / "short.mp4")
    encode_videos(tae, manifest, tmp_path)
    add_to_weights(tae)
    decode_latent_files(tae, tmp_path, tmp_path / "videos")
    assert "encoded with other weights" in caplog.text


def test_odd_sizes_are_cropped_and_said(make_tae, make_frames, tmp_path, caplog):
    np.save(tmp_path / "odd.npy", make_frames(4, 17, 21))
    caplog.set_level("INFO", logger="mg")
    manifest = build_manifest(video_folder=tmp_path)
    tae = make_tae()
    encode_videos(tae, manifest, tmp_path / "latents")
    assert "21x17 is cropped to 20x16" in caplog.text
    assert read_latent(tmp_path / "latents" / "odd.safetensors").mean.shape == (4, 2, 8, 10)
    decode_latent_files(tae, tmp_path / "latents", tmp_path / "videos")
    info = probe_video(tmp_path / "videos" / "odd.mp4")
    assert (info.num_frames, info.height, info.width) == (4, 16, 20)
    assert info.fps == DEFAULT_FPS  # the source has none


def test_results_that_are_no_numbers_are_refused(make_tae, video_folder, tmp_path):
    tae = make_tae()
    manifest = build_manifest(video_folder=video_folder / "a.mp4")
    encode_videos(tae, manifest, tmp_path)
    moments, frames = tae.moments, tae.frames_from
    tae.moments = lambda video: [part * np.nan for part in moments(video)]
    with pytest.raises(ValueError, match="the encoder gave NaN"):
        encode_videos(tae, manifest, tmp_path / "again")
    tae.frames_from = lambda z, _: frames(z) * np.inf
    with pytest.raises(ValueError, match="the decoder gave NaN"):
        decode_latent_files(tae, tmp_path / "a.safetensors", tmp_path / "videos")
    assert not list(tmp_path.rglob("*.mp4"))


def test_wrong_image_size_and_nothing_usable_are_errors(make_tae, video_folder, tmp_path):
    manifest = build_manifest(video_folder=video_folder / "a.mp4")
    with pytest.raises(ValueError, match="height 15 is not a multiple of 2"):
        encode_videos(make_tae(), manifest, tmp_path, image_size=15)
    with pytest.raises(ValueError, match=r"format '\.pt'"):
        encode_videos(make_tae(), manifest, tmp_path, suffix=".pt")
    with pytest.raises(FileNotFoundError, match="no latent file"):
        decode_latent_files(make_tae(), tmp_path, tmp_path / "videos")
    shutil.copy(video_folder / "a.mp4", tmp_path / "a.mp4")
    manifest = build_manifest(video_folder=tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="not one of 1 files could be used"):
        encode_videos(make_tae(), manifest, tmp_path / "latents")


def test_full_disk_leaves_nothing_half_written(make_tae, video_folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    manifest = build_manifest(video_folder=video_folder / "a.mp4")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        encode_videos(make_tae(), manifest, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_outputs_stay_in_their_folder_with_names_of_their_own(tmp_path):
    paths = output_paths(["a/b.mp4", "a/b.mov", "c.d.mp4"], tmp_path, ".npz")
    relative = [path.relative_to(tmp_path.resolve()).as_posix() for path in paths.values()]
    assert relative == ["a/b.mp4.npz", "a/b.mov.npz", "c.d.npz"]
    for name in ("../a.mp4", "/etc/a.mp4", "x/../../a.mp4"):
        with pytest.raises(ValueError, match="leads outside the folder"):
            output_paths([name], tmp_path, ".npz")
    (tmp_path / "link").symlink_to(tmp_path.parent)
    with pytest.raises(ValueError, match="leads outside the folder"):
        output_paths(["link/a.mp4"], tmp_path, ".npz")


def test_the_first_frames_alone_are_encoded_like_images(make_tae, video_folder, tmp_path):
    tae, latents = make_tae(), tmp_path / "latents"
    manifest = build_manifest(video_folder=video_folder / "sub")
    encode_videos(tae, manifest, latents, max_frames=1)
    latent = read_latent(latents / "b.safetensors")
    assert (latent.info.num_frames, latent.mean.shape) == (1, (4, 1, 12, 16))
    (clip,) = manifest.clips
    first = next(clip.frames())[np.newaxis]
    mean, _ = next(encode_frames(tae, first))
    np.testing.assert_array_equal(latent.mean, mean)
    # Those of another length are not taken for finished.
    with pytest.raises(ValueError, match="num_frames differ"):
        encode_videos(tae, manifest, latents, max_frames=4)


def test_the_sources_of_a_table_are_encoded_too(make_tae, video_folder, tmp_path):
    table = video_folder / "pairs.csv"
    table.write_text("video,source,caption\na.mp4,sub/b.mp4,x\nshort.mp4,a,y\nbad.mp4,,z\n")
    manifest = build_manifest(csv_path=table, with_sources=True)
    table.unlink()
    assert {clip.name for clip in manifest.clips} == {"a.mp4", "short.mp4", "sub/b.mp4"}
    outcome = encode_videos(make_tae(), manifest, tmp_path / "latents", max_frames=1)
    assert sorted(outcome.done) == ["a.mp4", "short.mp4", "sub/b.mp4"]
