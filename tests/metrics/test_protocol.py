"""Measuring protocols: what their hash depends on, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from mg.data.transforms import resize_and_crop
from mg.metrics.preparation import frame_indices, prepare_frames
from mg.metrics.protocol import FrameSettings, Protocol, SizeSettings, read_protocol

FOLDER = Path(__file__).parents[2] / "protocols"
SHIPPED = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_protocols_say_everything(path):
    protocol = read_protocol(path)
    stored = yaml.safe_load(path.read_text())
    whole = protocol.to_dict()
    assert protocol.name == path.stem and protocol.about
    assert stored.keys() == whole.keys()
    for section in ("frames", "size", "metrics"):
        assert stored[section].keys() == whole[section].keys()


def test_shipped_protocols_differ():
    assert [path.stem for path in SHIPPED] == ["mg", "open_sora_plan", "vidtok"]
    assert len({read_protocol(path).hash() for path in SHIPPED}) == 3
    assert read_protocol(FOLDER / "mg.yaml").hash() == Protocol().hash()


def test_the_hash_follows_settings_and_not_words(tmp_path):
    def hash_of(text: str) -> str:
        path = tmp_path / "protocol.yaml"
        path.write_text(text)
        return read_protocol(path).hash()

    plain = hash_of("name: a")
    assert len(plain) == 12 and plain == hash_of("{name: b, about: words, measured: [psnr]}")
    assert plain == hash_of("{name: a, metrics: {min_clips: 7}}")  # refuses, but changes nothing
    for text in (
        "version: 2",
        "mean_over: frames",
        "frames: {num_frames: 17}",
        "frames: {sample_fps: 30}",
        "size: {interpolation: bilinear}",
        "size: {crop_size: 128}",
        "metrics: {psnr_cap: 100}",
        "metrics: {lpips_net: alex}",
    ):
        assert hash_of(text) != plain, text
    assert hash_of("metrics: {psnr_cap: 100}") == hash_of("metrics: {psnr_cap: 100.0}")


def test_published_hashes_stay():
    hashes = {path.stem: read_protocol(path).hash() for path in SHIPPED}
    assert hashes == {
        "mg": "5131ef3f4b07",
        "open_sora_plan": "a3a3f7dadc50",
        "vidtok": "f78d848640ff",
    }


@pytest.mark.parametrize("crop_size", [16, (12, 20)])
def test_covering_frames_are_those_that_networks_see(crop_size):
    frames = np.random.default_rng(0).integers(0, 256, (2, 30, 41, 3), np.uint8)
    protocol = Protocol.of_covering_frames("mine", num_frames=2, crop_size=crop_size)
    size = (16, 16) if crop_size == 16 else crop_size
    expected = resize_and_crop(frames, size=size)
    np.testing.assert_array_equal(prepare_frames(frames, protocol.size), expected)


def test_frames_that_keep_their_size_are_cut_to_multiples():
    frames = np.random.default_rng(0).integers(0, 256, (2, 30, 41, 3), np.uint8)
    protocol = Protocol.of_covering_frames(
        "mine", num_frames=None, crop_size=None, crop_multiple=(8, 16)
    )
    np.testing.assert_array_equal(prepare_frames(frames, protocol.size), frames[:, 3:27, 4:36])
    with pytest.raises(ValueError, match="frames of 30x7 are smaller than"):
        prepare_frames(frames[:, :, :7], protocol.size)


def test_a_covering_protocol_survives_its_file(tmp_path):
    for size in (64, (64, 64), (48, 64)):
        protocol = Protocol.of_covering_frames("mine", num_frames=8, crop_size=size)
        path = tmp_path / "protocol.yaml"
        path.write_text(json.dumps(protocol.to_dict()))  # JSON is YAML
        assert read_protocol(path) == protocol
    square, pair = (
        Protocol.of_covering_frames("mine", num_frames=8, crop_size=size) for size in (64, (64, 64))
    )
    assert square.hash() == pair.hash()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"fit": "cover"}, "size.resolution=256 has no effect with size.fit='cover'"),
        ({"fit": "cover", "resolution": None, "rounding": "none"}, "interpolation='area'"),
        ({"crop_multiple": 8}, "size.crop_multiple needs size.fit='cover'"),
        ({"crop_size": (8, 16)}, "size.crop_size="),
        ({"fit": "cover", "resolution": None, "crop_size": (8, 0)}, "size.crop_size=0"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        Protocol(size=SizeSettings(**size))


def test_flags_change_name_and_hash():
    protocol = Protocol(name="mine")
    assert protocol.changed(num_frames=None, resolution=256) is protocol
    changed = protocol.changed(num_frames=8, crop_size=128)
    assert (changed.frames.num_frames, changed.size.crop_size) == (8, 128)
    assert changed.name == "mine+" and changed.hash() != protocol.hash()
    assert protocol.changed(num_frames=0).frames.num_frames is None
    assert changed.label() == f"mine+ v1 {changed.hash()}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frames: {num_frame: 8}", "'frames.num_frame'; did you mean 'num_frames'"),
        ("resolution: 8", "unknown setting 'resolution'"),
        ("frames: 8", "frames: expected settings, got 8"),
        ("- 1", "a protocol: expected settings"),
        ("frames: {num_frames: 0}", "a whole number above 0 or null"),
        ("frames: {num_frames: 2.5}", "a whole number above 0 or null"),
        ("frames: {sample_fps: .inf}", "a number above 0 or null"),
        ("frames: {sample_fps: 8, sample_rate: 2}", "exclude each other"),
        ("size: {resolution: 64, crop_size: 96}", "crop_size=96 is larger"),
        ("size: {interpolation: nearest}", "expected one of area, bilinear"),
        ("mean_over: videos", "mean_over='videos'; expected one of clips, frames"),
        ("measured: psnr", "expected a list of names"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
        ("about: " + "x" * 70000, "too large"),
    ],
)
def test_refusals(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_protocol(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such protocol"):
        read_protocol(tmp_path / "none.yaml")


# --- Which frames ---


def indices(settings: FrameSettings, num_frames: int, fps: float = 30, is_real: bool = True):
    return frame_indices(settings, num_frames=num_frames, fps=fps, is_real=is_real).tolist()


def test_frames_by_number_and_by_time():
    assert indices(FrameSettings(num_frames=3), 8) == [0, 1, 2]
    assert indices(FrameSettings(num_frames=None, sample_rate=3), 8) == [0, 3, 6]
    only_real = FrameSettings(num_frames=3, sample_rate=3, sample_rate_applies_to="real")
    assert indices(only_real, 8) == [0, 3, 6]
    assert indices(only_real, 8, is_real=False) == [0, 1, 2]
    by_time = FrameSettings(num_frames=None, sample_fps=10)
    assert indices(by_time, 10, fps=30) == [0, 3, 6, 9]
    assert indices(by_time, 5, fps=10) == [0, 1, 2, 3, 4]
    assert indices(by_time, 3, fps=5) == [0, 0, 1, 2, 2]  # half-way goes to the even frame
    with pytest.raises(ValueError, match="frame rate is not known"):
        indices(by_time, 10, fps=0)


# --- What becomes of them ---


def test_scaling_and_cropping():
    ramp = np.zeros((1, 40, 80, 3), np.uint8)
    ramp[..., :] = (2 * np.arange(80))[:, np.newaxis]
    settings = SizeSettings(resolution=20, crop_size=10)
    frames = prepare_frames(ramp, settings)
    # Halved, each pixel is the mean of two neighbours: 4x + 1; the crop begins at x = 15.
    assert frames.shape == (1, 10, 10, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[0, 0, :, 0], 4 * np.arange(15, 25) + 1)
    for interpolation in ("bilinear", "bilinear_antialias"):
        settings = SizeSettings(20, 10, interpolation, rounding="none")
        frames = prepare_frames(ramp, settings)
        assert frames.dtype == np.float32
        np.testing.assert_allclose(frames[0, 0, :, 0], 4 * np.arange(15, 25) + 1, atol=1e-4)


def test_antialiasing_sees_all_pixels():
    """Of lines that are one pixel wide, four neighbours see some, or none."""
    lines = np.zeros((1, 64, 64, 3), np.uint8)
    lines[:, :, 1::4] = 200
    plain = prepare_frames(lines, SizeSettings(16, None, "bilinear", "none"))
    smooth = prepare_frames(lines, SizeSettings(16, None, "bilinear_antialias", "none"))
    np.testing.assert_allclose(plain[:, :, 2:-2], 100, atol=1e-4)  # pixels 1 and 2 of each 4
    assert abs(smooth[:, :, 2:-2].mean() - 50) < 0.5


def test_nothing_is_done_where_nothing_is_asked_for():
    frames = np.random.RandomState(0).randint(0, 256, (2, 9, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(prepare_frames(frames, SizeSettings(None, None)), frames)
    with pytest.raises(ValueError, match="9x7 are smaller than the protocol's crop of 8x8"):
        prepare_frames(frames, SizeSettings(None, 8))
