"""Frame-exact reading, against plain sequential decoding; and files that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from mg.data.container import scan_container
from mg.data.video import BrokenVideoError, Reading, VideoReader, iterate_frames, probe_video

OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:keyint=12:min-keyint=12:scenecut=0"}
VARIABLE_PTS = np.cumsum(np.random.default_rng(0).integers(1, 90, 60))
KINDS = {
    "bframes.mp4": {"options": {"g": "12", "bf": "3"}},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.ts": {"options": OPEN_GOP},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=20"}},
    "variable_rate.mkv": {"pts": VARIABLE_PTS, "options": {"g": "12"}},
    "hidden_frames.webm": {
        "codec": "libvpx",
        "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "guessed_times.avi": {"options": {"g": "12", "bf": "3"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "animated.gif": {"codec": "gif"},
}


def random_index_sets(num_frames, num_sets):
    rng = np.random.default_rng(5)
    for number in range(num_sets):
        if number % 2:
            yield rng.integers(0, num_frames, 5)  # any order, repeats
        else:
            yield np.arange(8) + rng.integers(0, num_frames - 7)


@pytest.mark.parametrize("name", KINDS)
def test_random_access_equals_sequential_decoding(
    name, tmp_path, make_video, make_frames, reference_frames
):
    path = make_video(tmp_path / name, make_frames(60, 48, 64), **KINDS[name])
    expected = reference_frames(path)
    assert probe_video(path).num_frames == len(expected) == 60
    with VideoReader(path) as reader:
        for indices in random_index_sets(60, 16):
            np.testing.assert_array_equal(reader.read(indices), expected[indices])
    np.testing.assert_array_equal(np.stack(list(iterate_frames(path))), expected)


def test_bundled_clips_are_read_exactly(clips_folder, reference_frames):
    paths = sorted(clips_folder.rglob("*.mp4"))
    assert len(paths) == 7
    for path in paths:
        expected = reference_frames(path)
        with VideoReader(path) as reader:
            assert reader.info.num_frames == len(expected)
            for indices in random_index_sets(len(expected), 4):
                np.testing.assert_array_equal(reader.read(indices), expected[indices])


def test_probe_tells_size_length_and_rate(plain_video):
    info = probe_video(plain_video, decode=True)
    assert (info.num_frames, info.height, info.width) == (60, 48, 64)
    assert info.fps == pytest.approx(25.0, abs=1e-6)


def test_average_rate_of_a_variable_rate_file(tmp_path, make_video, make_frames):
    path = make_video(tmp_path / "v.mkv", make_frames(60, 48, 64), pts=VARIABLE_PTS)
    seconds = (VARIABLE_PTS[-1] - VARIABLE_PTS[0]) / 1000
    assert probe_video(path).fps == pytest.approx(59 / seconds, rel=1e-6)


def test_rotation_is_applied(tmp_path, make_video, make_frames, reference_frames):
    path = make_video(tmp_path / "turned.mp4", make_frames(6, 48, 64), rotation=90)
    with VideoReader(path) as reader:
        assert (reader.info.height, reader.info.width) == (64, 48)
        frames = reader.read([0, 5])
    expected = np.rot90(reference_frames(path)[[0, 5]], axes=(1, 2))
    np.testing.assert_array_equal(frames, expected)


def test_a_changed_file_is_scanned_anew(tmp_path, make_video, make_frames):
    path = make_video(tmp_path / "v.mp4", make_frames(10, 48, 64))
    assert probe_video(path).num_frames == 10
    make_video(path, make_frames(20, 48, 64))
    assert probe_video(path).num_frames == 20


def test_an_image_is_a_video_of_one_frame(tmp_path, make_frames):
    image = make_frames(1, 31, 45)[0]
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    with VideoReader(path) as reader:
        assert (reader.info.num_frames, reader.info.height, reader.info.width) == (1, 31, 45)
        np.testing.assert_array_equal(reader.read([0, 0]), np.stack([image, image]))


def test_an_image_with_exif_rotation_is_turned(tmp_path, make_frames):
    image = make_frames(1, 32, 48)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path, exif=exif)
    with VideoReader(path) as reader:
        np.testing.assert_array_equal(reader.read([0])[0], np.rot90(image, -1))


def test_a_prepared_clip_is_read_as_it_is(tmp_path, make_frames):
    frames = make_frames(9, 16, 24)
    np.save(tmp_path / "clip.npy", frames)
    with VideoReader(tmp_path / "clip.npy") as reader:
        np.testing.assert_array_equal(reader.read([8, 0, 3]), frames[[8, 0, 3]])


@pytest.mark.parametrize("indices", [[60], [-1], []])
def test_frame_numbers_out_of_range_are_refused(plain_video, indices):
    with VideoReader(plain_video) as reader, pytest.raises(IndexError, match="frames 0 to 59"):
        reader.read(indices)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such video: .*absent\.mp4"):
        probe_video(tmp_path / "absent.mp4")


@pytest.mark.parametrize("name", ["empty.mp4", "empty.png", "empty.npy"])
def test_zero_byte_file(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(BrokenVideoError, match=f"{name}: "):
        probe_video(tmp_path / name)


@pytest.mark.parametrize("name", ["text.mp4", "text.jpg", "text.npy", "text.txt"])
def test_not_a_video(tmp_path, name):
    (tmp_path / name).write_text("these are words\n" * 100)
    with pytest.raises(BrokenVideoError, match=f"{name}: not a "):
        probe_video(tmp_path / name)


def test_a_wrong_suffix_does_not_matter_to_a_video(tmp_path, plain_video):
    path = tmp_path / "video.dat"
    path.write_bytes(plain_video.read_bytes())
    assert probe_video(path).num_frames == 60


def test_audio_only_file(audio_file):
    with pytest.raises(BrokenVideoError, match=r"no video in this file .*audio"):
        probe_video(audio_file)


def test_a_folder_is_not_a_video(tmp_path):
    with pytest.raises(BrokenVideoError, match="a folder"):
        probe_video(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("name", "container_options"),
    [
        ("index_last.mp4", {}),
        ("index_first.mp4", {"movflags": "faststart"}),
        ("fragmented.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("matroska.mkv", {}),
        ("riff.avi", {}),
    ],
)
def test_truncated_file(tmp_path, make_video, make_frames, name, container_options, share):
    frames = make_frames(60, 48, 64)
    path = make_video(tmp_path / name, frames, container_options=container_options)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BrokenVideoError, match=r"truncated|cut off|stops after"):
        probe_video(path)


def test_damage_in_the_middle_is_found_on_reading(tmp_path, make_video, make_frames):
    options = {"g": "12", "bf": "0"}
    path = make_video(tmp_path / "damaged.mp4", make_frames(60, 48, 64), options=options)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 300 : middle + 300] = bytes(600)
    path.write_bytes(data)
    with pytest.raises(BrokenVideoError, match=r"damaged|decod"):
        probe_video(path, decode=True)
    with pytest.raises(BrokenVideoError, match=r"damaged|decod"), VideoReader(path) as reader:
        reader.read(range(60))


def test_a_cut_off_image_is_broken(tmp_path, make_frames):
    path = tmp_path / "image.jpg"
    Image.fromarray(make_frames(1, 64, 64)[0]).save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BrokenVideoError, match="not a readable image"):
        probe_video(path)


def test_an_array_of_the_wrong_kind_is_not_a_clip(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((4, 8, 8, 3), dtype=np.float32))
    with pytest.raises(BrokenVideoError, match="expected uint8 frames"):
        probe_video(tmp_path / "clip.npy")


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "clip.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BrokenVideoError, match=r"not a readable \.npy"):
        probe_video(tmp_path / "clip.npy")


def test_a_playlist_does_not_open_other_files(tmp_path, plain_video):
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile 'http://localhost:9/{plain_video.name}'\n")
    with pytest.raises(BrokenVideoError):
        probe_video(playlist)


def test_the_index_lists_key_frames(tmp_path, make_video, make_frames):
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0"}
    path = make_video(tmp_path / "v.mp4", make_frames(60, 48, 64), options=options)
    scan = scan_container(path, Reading())
    assert len(scan.pts) == 60
    assert np.searchsorted(scan.pts, scan.keyframe_pts).tolist() == [0, 12, 24, 36, 48]
