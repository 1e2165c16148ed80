"""Trackers: what each is sent, what is missing or fails."""

import importlib.util
import io
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from mg.data.video_writer import write_video
from mg.training.run.trackers import Trackers, missing_package


def values_of_events(folder):
    """Return (step, tag, value) of the TensorBoard events in a folder; of images the bytes."""
    (path,) = folder.glob("events.*")
    content, found = io.BytesIO(path.read_bytes()), []
    while header := content.read(12):  # length and its checksum, the event, its checksum
        event = Event.FromString(content.read(struct.unpack("<Q", header[:8])[0]))
        content.read(4)
        for value in event.summary.value:
            is_image = value.HasField("image")
            number = value.image.encoded_image_string if is_image else value.simple_value
            found.append((event.step, value.tag, number))
    return found


@pytest.fixture
def files(tmp_path):
    """Return the folder of a run with a picture and a video of six frames, 16x32."""
    folder = tmp_path / "my_run"
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 32, 3), np.uint8)
    Image.fromarray(frames[0]).save(folder / "curves.png")
    write_video(folder / "video.mp4", frames, fps=8, lossless=True)
    return folder


def use(names, folder):
    with Trackers(names, folder, {"lr": 1e-3}) as trackers:
        trackers.scalars({"step": 4, "loss": 0.5, "name": "text"}, 4)
        trackers.scalars({"psnr": 20.0, "psnr_per_clip": {"a": 20.0}}, 5, prefix="validation/")
        trackers.file("curves", folder / "curves.png", 5)
        trackers.file("video", folder / "video.mp4", 5)
        trackers.file("missing", folder / "missing.mp4", 5)
        trackers.file("nothing", None, 5)


def test_tensorboard_gets_figures_pictures_and_videos(files):
    use(["tensorboard"], files)
    found = values_of_events(files / "tensorboard")
    assert [(step, tag) for step, tag, _ in found] == [
        (4, "loss"),
        (5, "validation/psnr"),
        (5, "curves"),
        (5, "video"),
    ]
    assert [value for *_, value in found[:2]] == [0.5, 20.0]
    with Image.open(io.BytesIO(found[2][2])) as picture, Image.open(files / "curves.png") as kept:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(kept))
    with Image.open(io.BytesIO(found[3][2])) as video:
        assert (video.format, video.n_frames, video.size) == ("GIF", 6, (32, 16))


def recorder(**changes):
    """Return a module like W&B's, and the list of its calls."""
    calls = []

    def note(name):
        return lambda *given, **more: calls.append((name, *given, more))

    module = SimpleNamespace(
        init=note("init"),
        log=note("log"),
        finish=note("finish"),
        Image=lambda value: ("image", value),
        Video=lambda value: ("video", value),
    )
    for name, value in changes.items():
        setattr(module, name, value)
    return module, calls


@pytest.mark.parametrize("name", ["wandb", "trackio", "swanlab"])
def test_services_get_figures_pictures_and_videos(name, files, monkeypatch):
    module, calls = recorder()
    monkeypatch.setitem(sys.modules, name, module)
    use([name], files)
    video = calls.pop(4)
    assert calls == [
        ("init", {"project": "mg", "name": "my_run", "config": {"lr": 1e-3}}),
        ("log", {"loss": 0.5}, {"step": 4}),
        ("log", {"validation/psnr": 20.0}, {"step": 5}),
        ("log", {"curves": ("image", str(files / "curves.png"))}, {"step": 5}),
        ("finish", {}),
    ]
    kind, value = video[1]["video"]
    assert kind == "video" and video[2] == {"step": 5}
    if name == "swanlab":
        with Image.open(io.BytesIO(value)) as gif:
            assert gif.n_frames == 6
    else:
        assert value == str(files / "video.mp4")


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(files, monkeypatch, caplog):
    def fail(*_, **__):
        raise ConnectionError("no route to host")

    broken, _ = recorder(log=fail)
    refused, _ = recorder(init=fail)
    sound, calls = recorder()
    for name, module in (("wandb", broken), ("trackio", refused), ("swanlab", sound)):
        monkeypatch.setitem(sys.modules, name, module)
    use(["wandb", "trackio", "swanlab"], files)
    assert [call[0] for call in calls] == ["init", "log", "log", "log", "log", "finish"]
    assert "trackio cannot be used and is left out: no route to host" in caplog.text
    assert caplog.text.count("wandb failed and is left out from here on: no route to host") == 1


def test_missing_packages_are_named(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_package("tensorboard") == "tensorboardX"
    with pytest.raises(ValueError, match="trackers: wandb needs a package; pip install wandb"):
        make_config(tmp_path, trackers=["wandb"])
    with pytest.raises(ValueError, match="pip install tensorboardX"):
        make_config(tmp_path, tensorboard=True)
    with pytest.raises(ValueError, match="trackers: 'wand'; expected some of tensorboard, wandb"):
        make_config(tmp_path, trackers=["wand"])


def test_the_older_spelling_stands_for_one_tracker(make_config, tmp_path):
    config = make_config(tmp_path, tensorboard=True, trackers=["tensorboard"])
    assert config.tracker_names == ["tensorboard"]


def test_a_run_sends_steps_validations_and_their_video(finished_run):
    found = values_of_events(finished_run.trainer.output / "tensorboard")
    assert [step for step, tag, _ in found if tag == "loss"] == [0, 1, 2, 3]
    assert [step for step, tag, _ in found if tag == "validation/psnr"] == [0, 2, 4]
    for tag in ("validation/curves", "validation/video"):
        assert [step for step, name, _ in found if name == tag] == [0, 2, 4]
