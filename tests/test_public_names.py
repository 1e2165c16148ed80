"""What `import mg` offers: names that are imported when asked for, videos in and out."""

import subprocess
import sys

import numpy as np
import pytest

import mg
from mg import export_to_video, load_video
from mg.shipped import find_shipped, shipped_root
from tests.tiny import TAE


def test_importing_the_package_loads_no_mindspore():
    program = (
        "import sys, mg; mg.load_video; "
        "assert 'mindspore' not in sys.modules; assert set(mg.__all__) <= set(dir(mg))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", mg.__all__)
def test_every_public_name_is_there(name):
    assert getattr(mg, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'TextToAudio'"):
        mg.TextToAudio  # noqa: B018


def test_a_video_comes_back_as_it_was_written(tmp_path):
    video = np.zeros((1, 3, 5, 32, 48), np.float32)
    video[:, :, :, 8:24] = 0.5
    path = export_to_video(video, tmp_path / "a.mp4", fps=8)
    again = load_video(path)
    assert again.shape == video.shape and again.dtype == np.float32
    assert np.abs(again - video).mean() < 0.02
    assert load_video(path, num_frames=2, size=16, start=1, stride=2).shape == (1, 3, 2, 16, 16)
    assert load_video(path, size=(16, 24)).shape == (1, 3, 5, 16, 24)


def test_frames_may_be_bytes_a_list_or_a_tensor(tmp_path):
    import mindspore as ms

    frames = np.full((3, 16, 16, 3), 200, np.uint8)
    floats = np.full((3, 3, 16, 16), 200 / 127.5 - 1, np.float32)
    for number, video in enumerate((frames, list(frames), floats, ms.Tensor(floats[None]))):
        path = export_to_video(video, tmp_path / f"{number}.mp4")
        assert load_video(path) == pytest.approx(200 / 127.5 - 1, abs=0.02)
    with pytest.raises(FileExistsError):
        export_to_video(frames, tmp_path / "0.mp4")
    export_to_video(frames, tmp_path / "0.mp4", overwrite=True)


@pytest.mark.parametrize("shape", [(2, 3, 4, 8, 8), (4, 8, 8), (4, 8, 8, 3)])
def test_other_arrays_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match=r"expected floats in \[-1, 1\]"):
        export_to_video(np.zeros(shape, np.float32), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 6}, "5 frames; start=0 and stride=1 leave 5 of them, expected 6"),
        ({"start": 9}, "leave 0 of them, expected 1"),
        ({"stride": 0}, "expected start of 0 or more"),
        ({"size": 0}, "size must be"),
    ],
)
def test_what_cannot_be_loaded_is_refused(tmp_path, options, message):
    path = export_to_video(np.zeros((3, 5, 16, 16), np.float32), tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=message):
        load_video(path, **options)


def test_autoencoders_take_arrays(pynative_mode):
    tae = mg.TemporalAutoencoder(TAE.to_dict())
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 16, 16)).astype(np.float32)
    mean, _ = tae.posterior(video)
    assert tae.decode(mean.asnumpy(), 4).shape == tae(video).shape == video.shape
    with pytest.raises(TypeError, match="video is list; expected a MindSpore tensor"):
        tae.encode([1, 2])


def test_shipped_files_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "configs/tae/train/demo.yaml"
    assert find_shipped(name) == str(shipped_root() / name)
    assert find_shipped("configs/none.yaml") == "configs/none.yaml"
    assert find_shipped("assets/../setup.py") == "assets/../setup.py"
    (tmp_path / "configs" / "tae" / "train").mkdir(parents=True)
    (tmp_path / name).touch()
    assert find_shipped(name) == name
