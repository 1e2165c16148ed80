"""Videos and images come out as players show them: turned, square, the right stream, whole."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mg.data.media_rules import Reading
from mg.data.orientation import Orientation
from mg.data.pixel_conversion import to_rgb
from mg.data.video import BrokenVideoError, VideoReader, iterate_frames, probe_video

MEDIA = Path(__file__).parents[1] / "fixtures" / "media"
# Where the corners of a picture (top left, top right, bottom left, bottom right, numbered 0 to 3)
# are shown, in the same order, for each value of the EXIF tag.
SHOWN_CORNERS = {
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}
# Display matrices (a, b, c, d) of the same, as ISO 14496-12 multiplies them.
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def read_all(path, reading=None):
    return np.stack(list(iterate_frames(path, reading=reading or Reading())))


def four_corners():
    """Return a picture (48, 64, 3) whose quarters have the levels 40, 100, 160 and 220."""
    levels = np.array([[40, 100], [160, 220]], dtype=np.uint8)
    return np.repeat(np.kron(levels, np.ones((24, 32), np.uint8))[..., None], 3, axis=-1)


def corners_of(frame):
    """Return which of the four quarters is in each corner."""
    corners = frame[[4, 4, -5, -5], [4, -5, 4, -5]].mean(axis=-1)
    return tuple(np.rint((corners - 40) / 60).astype(int).tolist())


def write_with_matrix(path, frame, matrix):
    """Write an mp4 of four equal frames with another display matrix in its track header."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    a, b, c, d = matrix
    values = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4")
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # version 0: the matrix follows 40 bytes of other fields
    assert data[start : start + 4] == b"\x00\x01\x00\x00"
    data[start : start + 36] = values.tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize("number", range(1, 9))
def test_eight_orientations_of_a_video(tmp_path, number):
    path = tmp_path / "v.mp4"
    write_with_matrix(path, four_corners(), MATRICES[number])
    size = (48, 64) if number < 5 else (64, 48)
    info = probe_video(path)
    assert (info.height, info.width) == size
    with VideoReader(path) as reader:
        frames = reader.read([0, 3])
    assert frames.shape == (2, *size, 3)
    assert corners_of(frames[1]) == SHOWN_CORNERS[number]
    np.testing.assert_array_equal(read_all(path)[[0, 3]], frames)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("number", range(1, 9))
def test_eight_orientations_of_an_image(tmp_path, number, suffix):
    exif = Image.Exif()
    exif[0x0112] = number
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(four_corners()).save(path, exif=exif, quality=95)
    (frame,) = read_all(path)
    assert frame.shape[:2] == ((48, 64) if number < 5 else (64, 48))
    assert corners_of(frame) == SHOWN_CORNERS[number]


def test_turns_between_quarters_go_to_the_nearest():
    cos, sin = round(65536 * np.cos(0.6)), round(65536 * np.sin(0.6))  # 34 degrees
    assert Orientation.of_display_matrix([cos, sin, 0, -sin, cos, 0, 0, 0, 1]) == Orientation()
    turned = Orientation.of_display_matrix([sin, cos, 0, -cos, sin, 0, 0, 0, 1])
    assert turned == Orientation.of_exif(6)


def test_a_mirrored_video_is_mirrored():
    plain, mirrored = read_all(MEDIA / "plain.mp4"), read_all(MEDIA / "hflip.mp4")
    assert plain.shape == (20, 48, 64, 3)
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])


def test_pixels_that_are_not_square_are_made_square_unless_told():
    path = MEDIA / "sar_2_1.mp4"
    info = probe_video(path)
    assert (info.height, info.width, info.notes) == (48, 128, ("pixels 2:1, made square",))
    wide, plain = read_all(path), read_all(MEDIA / "plain.mp4")
    assert wide.shape == (20, 48, 128, 3)
    pairs = wide.astype(float).reshape(20, 48, 64, 2, 3).mean(axis=3)
    assert np.abs(pairs - plain).mean() < 3  # bicubic rings at hard edges
    stored = Reading(square_pixels=False)
    assert probe_video(path, reading=stored).notes == ("pixels 2:1, left as they are",)
    np.testing.assert_array_equal(read_all(path, stored), plain)


def test_narrow_pixels_make_narrow_frames(tmp_path, make_video, make_frames):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 72, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(8, 9)
        for image in make_frames(3, 48, 72):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    assert read_all(path).shape == (3, 48, 64, 3)


def test_the_default_stream_is_read():
    path = MEDIA / "two_streams.mov"
    info = probe_video(path)
    assert (info.num_frames, info.height, info.width) == (20, 48, 64)
    assert info.notes == ("video stream 2 of 2",)
    with av.open(str(path)) as container:
        expected = np.stack([to_rgb(frame) for frame in container.decode(video=1)])
    np.testing.assert_array_equal(read_all(path), expected)


def test_of_equal_streams_the_largest_is_read(tmp_path, make_frames):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for size in ((16, 24), (48, 64), (32, 32)):
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            streams.append(stream)
        for stream in streams:
            for image in make_frames(3, stream.height, stream.width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    info = probe_video(path)
    assert (info.height, info.width, info.notes) == (48, 64, ("video stream 2 of 3",))


def test_cropping_on_every_side(tmp_path, make_video, make_frames):
    frames = make_frames(4, 64, 96)
    # Left, top, right, bottom: the stream says that these are not shown.
    options = {"crf": "1", "x264-params": "crop-rect=6,10,14,18"}
    path = make_video(tmp_path / "v.mp4", frames, options=options)
    info = probe_video(path)
    assert (info.height, info.width) == (36, 76)
    with VideoReader(path) as reader:
        shown = reader.read(range(4))
    expected = make_video(tmp_path / "whole.mp4", frames, options={"crf": "1"})
    # At its edges the colour of a cropped picture is interpolated from fewer neighbours.
    inner = np.s_[:, 2:-2, 2:-2]
    whole = read_all(expected)[:, 10:46, 6:82]
    np.testing.assert_allclose(shown[inner].astype(int), whole[inner], atol=12)


def write_two_sizes(path, frames, sizes):
    """Write a transport stream of pieces of H.264, each of its own size, one after the other."""
    streams = []
    for height, width in sizes:
        piece = path.with_name("piece.h264")
        with av.open(str(piece), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for image in frames:
                small = np.ascontiguousarray(image[:height, :width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
            container.mux(stream.encode(None))
        streams.append(piece.read_bytes())
    path.write_bytes(b"".join(streams))


@pytest.mark.parametrize("sizes", [[(48, 64), (32, 48)], [(48, 64), (32, 48), (48, 64)]])
def test_a_size_that_changes_is_refused_everywhere(tmp_path, make_frames, sizes):
    path = tmp_path / "v.h264"
    write_two_sizes(path, make_frames(6, 48, 64), sizes)
    words = "the frame size changes on the way, from 64x48 to 48x32"
    with pytest.raises(BrokenVideoError, match=words):
        probe_video(path)
    with pytest.raises(BrokenVideoError, match=words):
        read_all(path)
    with pytest.raises(BrokenVideoError, match=words):
        VideoReader(path)


def test_a_size_that_changes_and_returns_is_refused_when_it_is_met(tmp_path, make_frames):
    whole, path = tmp_path / "v.h264", tmp_path / "v.ts"
    write_two_sizes(whole, make_frames(6, 48, 64), [(48, 64), (32, 48), (48, 64)])
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = number * 3600
            packet.time_base, packet.stream = Fraction(1, 90000), stream
            container.mux(packet)
    words = "the frame size changes on the way, from 64x48 to 48x32"
    assert probe_video(path).num_frames == 18  # only the first and the last are looked at
    with pytest.raises(BrokenVideoError, match=words):
        read_all(path)
    with VideoReader(path) as reader, pytest.raises(BrokenVideoError, match=words):
        reader.read([2, 8])


def ramp_of_16_bits():
    return np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)


def test_grey_images_of_16_bits():
    (frame,) = read_all(MEDIA / "gray16.png")
    assert frame.shape == (48, 64, 3)
    stored = cv2.imread(str(MEDIA / "gray16.png"), cv2.IMREAD_UNCHANGED)
    assert (stored.min(), stored.max()) == (0, 65535)
    np.testing.assert_array_equal(frame, np.rint(stored / 257)[..., None].repeat(3, axis=-1))


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_images_of_16_bits(tmp_path, channels):
    ramp = ramp_of_16_bits()
    stored = np.stack([ramp, ramp[::-1], ramp[:, ::-1], ramp][:channels], axis=-1)  # BGR(A)
    cv2.imwrite(str(tmp_path / "image.png"), stored)
    (frame,) = read_all(tmp_path / "image.png")
    np.testing.assert_array_equal(frame, np.rint(stored[..., 2::-1] / 257))


def test_an_animated_webp_is_a_clip():
    info = probe_video(MEDIA / "animated.webp")
    assert (info.num_frames, info.height, info.width, info.is_still) == (11, 48, 64, False)
    # 120 120 40 80 80 80 80 40 80 40 ms
    assert info.fps == pytest.approx(10 / 0.76, abs=1e-9)
    assert info.notes == ("variable frame rate",)
    frames = read_all(MEDIA / "animated.webp")
    with VideoReader(MEDIA / "animated.webp") as reader:
        np.testing.assert_array_equal(reader.read([10, 0, 4]), frames[[10, 0, 4]])
    assert np.abs(np.diff(frames.astype(int), axis=0)).reshape(10, -1).max(axis=1).min() > 0


@pytest.mark.parametrize("still_first", [False, True])
def test_an_animated_png_is_a_clip(tmp_path, make_frames, still_first):
    frames = make_frames(5, 24, 32)
    first, *others = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / "clip.png"
    first.save(path, save_all=True, append_images=others, duration=50, default_image=still_first)
    expected = frames[1:] if still_first else frames  # a still is for programs without animation
    info = probe_video(path)
    assert (info.num_frames, info.is_still, info.notes) == (len(expected), False, ())
    assert info.fps == pytest.approx(20, abs=1e-9)
    np.testing.assert_array_equal(read_all(path), expected)


@pytest.mark.parametrize(
    ("curve", "note"),
    [(16, ("HDR (PQ)",)), (18, ("HDR (HLG)",)), (1, ())],
    ids=["pq", "hlg", "sdr"],
)
def test_high_dynamic_range_is_noted(tmp_path, make_frames, curve, note):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.color_trc = curve
        for image in make_frames(3, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    assert probe_video(path).notes == note


@pytest.mark.parametrize(
    ("milliseconds", "note"),
    [
        ([40] * 9, ()),
        ([33, 33, 34] * 3, ()),  # 30 frames per second in whole milliseconds
        ([40] * 5 + [80] * 4, ("variable frame rate",)),
    ],
)
def test_a_variable_frame_rate_is_noted(tmp_path, make_video, make_frames, milliseconds, note):
    pts = np.cumsum([0, *milliseconds])
    path = make_video(tmp_path / "v.mkv", make_frames(10, 48, 64), pts=pts)
    assert probe_video(path).notes == note
