"""Files that would cost gigabytes, wait for ever or open other files are listed instead."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mg.data.manifest import build_manifest
from mg.data.media_rules import DEMUXERS, Reading, kind_of_file
from mg.data.video import BrokenVideoError, VideoReader, iterate_frames, probe_video

HOSTILE = Path(__file__).parents[1] / "fixtures" / "hostile"


def reasons_of(folder, **settings):
    """Return {name: reason} of the files of a folder, which are all left out."""
    with pytest.raises(ValueError, match="no usable clip") as error:
        build_manifest(video_folder=folder, probe_seconds_limit=20, **settings)
    lines = [line.split("left out", 1) for line in str(error.value).splitlines()[1:-1]]
    return {name.strip(): reason.strip() for name, reason in lines}


def test_hostile_media_are_listed(tmp_path):
    names = ["27_gif16000x30.gif", "34_eps.png", "huge_shape.npy", "ffconcat_fifo.mp4"]
    for name in names:
        shutil.copy(HOSTILE / name, tmp_path)
    os.mkfifo(tmp_path / "fi.mp4")  # what ffconcat_fifo.mp4 wants to be opened
    reasons = reasons_of(tmp_path)
    assert reasons.pop("huge_shape.npy").startswith("broken: not a readable .npy file")
    assert reasons == {
        "27_gif16000x30.gif": "broken: frames of 16000x16000 have more than the 33554432 pixels "
        "that max_pixels allows",
        "34_eps.png": "broken: not a video or image of a format that is read",
        "ffconcat_fifo.mp4": "broken: not a video but a list of other files, never opened",
        "fi.mp4": "broken: not a regular file",
    }
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "fi.mp4"])  # no program has run


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.mp4", b"ffconcat version 1.0\nfile 'secret.mp4'\n"),
        ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n"),
        ("playlist.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n"),
        ("manifest.mpd", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>'),
        ("session.sdp", b"v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\n"),
        ("secret%03d.mp4", b"no pattern of names"),
    ],
)
def test_lists_of_other_files_are_not_opened(tmp_path, plain_video, name, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    for secret in ("secret.mp4", "secret001.mp4"):
        shutil.copy(plain_video, folder / secret)
    (folder / name).write_bytes(content)
    with pytest.raises(BrokenVideoError, match=f"{name}: not a video"):
        probe_video(folder / name)


def test_the_named_containers_are_known_and_open_nothing_else():
    others = {"concat", "hls", "dash", "image2", "tty", "sdp", "rtsp", "lavfi", "ffmetadata", "mlv"}
    assert not others & set(DEMUXERS)
    for name in DEMUXERS:
        assert av.format.ContainerFormat(name, "r").is_input


def test_a_limit_of_pixels_holds_for_every_kind_of_file(tmp_path, plain_video, make_frames):
    frames = make_frames(3, 48, 64)
    shutil.copy(plain_video, tmp_path / "v.mp4")
    np.save(tmp_path / "clip.npy", frames)
    images = [Image.fromarray(frame) for frame in frames]
    for suffix in ("png", "jpg", "webp", "bmp"):
        images[0].save(tmp_path / f"i.{suffix}")
    for suffix in ("gif", "webp", "png"):
        images[0].save(tmp_path / f"clip.{suffix}", save_all=True, append_images=images[1:])
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 9
    reason = "broken: frames of 64x48 have more than the 3071 pixels that max_pixels allows"
    assert reasons_of(tmp_path, reading=Reading(max_pixels=3071)) == dict.fromkeys(names, reason)
    manifest = build_manifest(video_folder=tmp_path, reading=Reading(max_pixels=3072))
    assert [clip.name for clip in manifest.clips] == names
    for clip in manifest.clips:
        with clip.open() as reader:
            assert reader.read([0]).shape == next(clip.frames())[None].shape == (1, 48, 64, 3)
        with pytest.raises(BrokenVideoError, match="max_pixels"):
            VideoReader(clip.path, Reading(max_pixels=3071))
        with pytest.raises(BrokenVideoError, match="max_pixels"):
            next(iterate_frames(clip.path, reading=Reading(max_pixels=3071)))


def test_frames_larger_than_the_header_says_are_not_decoded(tmp_path, make_frames):
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 480, 640, "yuvj420p"
        for image in make_frames(3, 480, 640):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    size, small = struct.pack("<II", 640, 480), struct.pack("<II", 64, 48)
    assert data.count(size) >= 1
    path.write_bytes(data.replace(size, small))
    with pytest.raises(BrokenVideoError, match=r"0 frames .* more than max_pixels=307199 pix"):
        probe_video(path, reading=Reading(max_pixels=640 * 480 - 1))
    assert probe_video(path).num_frames == 3


def test_square_pixels_count_as_well(tmp_path):
    path = Path(__file__).parents[1] / "fixtures" / "media" / "sar_2_1.mp4"
    with pytest.raises(BrokenVideoError, match="frames of 128x48 have more than the 6143 pixels"):
        probe_video(path, reading=Reading(max_pixels=6143))
    assert probe_video(path, reading=Reading(6143, square_pixels=False)).width == 64


def test_a_small_file_of_a_huge_image_is_not_decoded(tmp_path):
    side = 20_000  # 1 bit per pixel: 50 kB; 1.2 GB as RGB
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        data += struct.pack(">I", len(content)) + kind + content + checksum
    (tmp_path / "bomb.png").write_bytes(data)
    assert reasons_of(tmp_path) == {
        "bomb.png": "broken: frames of 20000x20000 have more than the 33554432 pixels that "
        "max_pixels allows"
    }


def test_an_endless_image_is_not_read_into_memory(tmp_path):
    path = tmp_path / "endless.webp"
    Image.new("RGB", (8, 8)).save(path)
    os.truncate(path, 1 << 40)  # takes no space on the disk
    with pytest.raises(BrokenVideoError, match="1099511627776 bytes are more than an image"):
        probe_video(path)


@pytest.mark.parametrize("max_pixels", [0, -1])
def test_a_limit_of_no_pixels_is_refused(max_pixels):
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        Reading(max_pixels)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
@pytest.mark.parametrize("name", ["in.mp4", "in.png", "in.npy", "in"])
def test_pipes_and_devices_are_never_read(tmp_path, name, target):
    if target == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(BrokenVideoError, match="not a regular file"):
        probe_video(tmp_path / name)
    with pytest.raises(ValueError, match=r"no usable clip(?s:.)*not a regular file"):
        build_manifest(video_folder=tmp_path / name, probe_seconds_limit=None)
    with pytest.raises(ValueError, match="a regular file is expected"):
        kind_of_file(tmp_path / name)


def test_an_image_in_a_container_of_video_is_not_taken_for_one(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    with pytest.raises(BrokenVideoError, match="HEIC or AVIF image"):
        probe_video(tmp_path / "photo.heic")


def test_content_decides_whatever_the_name_says(tmp_path, plain_video, make_frames):
    shutil.copy(plain_video, tmp_path / "video.png")
    frame = make_frames(1, 48, 64)[0]
    cv2.imwrite(str(tmp_path / "image.png"), frame[..., ::-1])
    os.rename(tmp_path / "image.png", tmp_path / "image.mp4")
    assert probe_video(tmp_path / "video.png").num_frames == 60
    info = probe_video(tmp_path / "image.mp4")
    assert (info.num_frames, info.is_still) == (1, True)
    np.testing.assert_array_equal(next(iterate_frames(tmp_path / "image.mp4")), frame)
