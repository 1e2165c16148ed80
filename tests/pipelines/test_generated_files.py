"""Files of generated videos: names, metadata, latents, and that nothing is overwritten unasked."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mindspore import Tensor

from mg.data.image_writer import write_png
from mg.data.latent_files import read_latent
from mg.data.video import probe_video
from mg.pipelines import generated_files
from mg.pipelines.decode import decode_latent_files
from mg.pipelines.generated_files import (
    check_outputs,
    describe_videos,
    numbered_paths,
    read_prompts,
    unfinished,
    write_generated,
)
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from mg.tiling.sizes import Tiling


@pytest.fixture(scope="module")
def generator(generator_folder):
    """Return a generator whose networks are stood in for."""
    generator = TextToVideo.from_pretrained(generator_folder)
    generator.transformer = lambda latent, t, *text: latent
    generator.autoencoder.frames_from = lambda z, num_frames: Tensor(
        np.tanh(z.asnumpy()[:, :3]).repeat(2, axis=2).repeat(2, axis=3).repeat(2, axis=4)
    )
    return generator


@pytest.fixture
def write(generator):
    """Return a function that writes videos of two prompts and returns their frames."""

    def write(paths, prompts=("one", "two"), settings=None, **options):
        settings = SamplingSettings.of(generator.defaults, **(settings or {}))
        options = {"seeds": range(4, 4 + len(paths))} | options
        videos = write_generated(generator, prompts, paths, settings=settings, **options)
        return list(videos)

    return write


def test_videos_and_what_is_said_of_them(write, tmp_path, generator):
    paths = [tmp_path / "a.mp4", tmp_path / "sub" / "b.mov"]
    frames = write(paths, batch_size=2, origin={"checkpoint": "here"})
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert files == ["a.json", "a.mp4", "sub/b.json", "sub/b.mov"]
    video = probe_video(paths[1])
    assert (video.num_frames, video.height, video.width) == (8, 16, 24)
    assert video.fps == pytest.approx(12)
    assert frames[0].shape == (8, 16, 24, 3)
    metadata = json.loads((tmp_path / "sub" / "b.json").read_text())
    assert (metadata["prompt"], metadata["text"], metadata["seed"]) == ("two", "two", 5)
    assert metadata["sha256"] == generator.sha256 and len(metadata["sha256"]) == 2
    assert metadata["text_encoders"] == ["word,width=32,max_tokens=12,version=1"]
    assert set(metadata["versions"]) == {"mg", "mindspore", "numpy", "python"}
    expected = {"guidance": 3.0, "steps": 3, "negative_prompt": "", "checkpoint": "here"}
    assert expected.items() <= metadata.items()


def test_a_video_can_be_made_again_from_its_metadata(write, tmp_path, generator):
    (frames,) = write([tmp_path / "a.mp4"], ["one"], {"guidance": 2.0, "num_frames": 5})
    metadata = json.loads((tmp_path / "a.json").read_text())
    names = ("num_frames", "height", "width", "fps", "steps", "guidance", "seed", "schedule")
    again = generator(metadata["prompt"], **{name: metadata[name] for name in names})
    np.testing.assert_array_equal(again.frames[0], frames)


def test_images_are_stored_bit_for_bit(write, tmp_path):
    paths = numbered_paths(tmp_path, 2, 1)
    assert [path.name for path in paths] == ["0000.png", "0001.png"]
    frames = write(paths, settings={"num_frames": 1})
    stored = cv2.cvtColor(cv2.imread(str(paths[1])), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(stored, frames[1][0])


def test_kept_latents_decode_to_the_same_video(write, tmp_path, generator):
    (frames,) = write([tmp_path / "a.mp4"], ["one"], {"num_frames": 7}, keep_latents=True)
    file = tmp_path / "a.latent.safetensors"
    latent = read_latent(file)
    assert {"prompt": "one", "seed": 4, "steps": 3}.items() <= latent.info.settings.items()
    assert latent.info.num_frames == 7
    np.testing.assert_array_equal(generator.decode(latent.mean, 7), frames)
    assert decode_latent_files(generator.autoencoder, file, tmp_path / "decoded").failed == {}
    assert (tmp_path / "decoded" / "a.latent.mp4").exists()


def test_the_latent_is_there_when_decoding_fails(write, tmp_path, generator, monkeypatch):
    monkeypatch.setattr(generator.autoencoder, "frames_from", lambda z, _: z[:, :3] * np.nan)
    with pytest.raises(ValueError, match="decoder gave NaN"):
        write([tmp_path / "a.mp4"], ["one"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.latent.safetensors"]


@pytest.mark.parametrize("name", ["a.mp4", "a.json", "a.latent.safetensors"])
def test_nothing_is_overwritten_unasked(write, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name} exists already; .*--overwrite"):
        write([tmp_path / "a.mp4"], ["one"])
    assert (tmp_path / name).read_text() == "mine"
    write([tmp_path / "a.mp4"], ["one"], overwrite=True, keep_latents=True)
    assert (tmp_path / name).read_bytes() != b"mine"


@pytest.fixture
def still_to_make(generator, tmp_path):
    """Return a function that says which videos of two prompts a run would have to make."""

    def still_to_make(prompts=("one", "two"), settings=None, keep_latents=False, **options):
        options = {"dtype": "float32", "decode_dtype": "float32", "tiling": Tiling()} | options
        settings = SamplingSettings.of(generator.defaults, **(settings or {}))
        descriptions = describe_videos(generator, prompts, (4, 5), settings, **options)
        paths = numbered_paths(tmp_path, 2, settings.num_frames)
        return unfinished(paths, descriptions, keep_latents=keep_latents)

    return still_to_make


def test_what_is_there_is_not_made_again(write, still_to_make, tmp_path):
    paths = numbered_paths(tmp_path, 2, 8)
    assert still_to_make() == [0, 1]
    write(paths[:1], ["one"])
    assert still_to_make() == [1]
    assert still_to_make(keep_latents=True) == [0, 1]
    write(paths, overwrite=True, keep_latents=True)
    assert still_to_make() == still_to_make(keep_latents=True) == []
    paths[0].unlink()
    assert still_to_make() == [0]


@pytest.mark.parametrize("keep_latents", [False, True])
@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"prompts": ("one", "other")}, "prompt, text"),
        ({"settings": {"steps": 4, "guidance": 2.0}}, "steps, guidance"),
        ({"settings": {"num_frames": 1}}, "num_frames"),
        ({"dtype": "float16"}, "dtype"),
        (
            {"tiling": Tiling(frames=16, overlap_frames=8)},
            r"tiling\.frames, tiling\.overlap_frames",
        ),
    ],
)
def test_other_settings_are_refused(write, still_to_make, tmp_path, keep_latents, changed, names):
    write(numbered_paths(tmp_path, 2, 8), keep_latents=keep_latents)
    end = r"latent\.safetensors" if keep_latents else "json"
    with pytest.raises(ValueError, match=rf"{end} exists, .* \({names} differ\); .*--overwrite"):
        still_to_make(**changed)


def test_other_weights_and_what_is_none_of_ours_are_refused(
    write, still_to_make, tmp_path, generator, monkeypatch
):
    paths = numbered_paths(tmp_path, 2, 8)
    write(paths)
    with monkeypatch.context() as patch:
        patch.setattr(generator, "sha256", {"transformer": "other"})
        with pytest.raises(ValueError, match=r"0000\.json .* settings \(sha256\.transformer, "):
            still_to_make()
    (tmp_path / "0001.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"0001\.json holds no JSON object"):
        still_to_make()
    (tmp_path / "0001.json").write_text("{")
    with pytest.raises(ValueError, match=r"0001\.json is not JSON"):
        still_to_make()
    (tmp_path / "0001.json").unlink()
    with pytest.raises(FileExistsError, match=r"0001\.mp4 exists, without 0001\.json"):
        still_to_make()


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_in_second_call(function):
    """Return the function; its second call raises Killed."""
    calls = []

    def call(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return function(*args, **options)

    return call


@pytest.mark.parametrize("step", ["decode", "write_video", "mark_finished"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_goes_on_where_it_was_stopped(
    write, still_to_make, tmp_path, generator, monkeypatch, step, replaced
):
    paths = numbered_paths(tmp_path, 2, 8)
    if replaced:
        write(paths, settings={"steps": 1})
    owner = generator if step == "decode" else generated_files
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, killed_in_second_call(getattr(owner, step)))
        with pytest.raises(Killed):
            write(paths, settings={"steps": 2}, overwrite=replaced)
    assert (tmp_path / "0001.latent.safetensors").exists()
    with pytest.raises(ValueError, match=r"made with other inputs or settings \(steps differ\)"):
        still_to_make(settings={"steps": 1})
    assert still_to_make(settings={"steps": 2}) == [1]
    write(paths[1:], ["two"], seeds=[5], settings={"steps": 2}, overwrite=True)
    assert still_to_make(settings={"steps": 2}) == []
    assert not list(tmp_path.glob("*.latent.safetensors"))


@pytest.mark.parametrize(
    ("name", "num_frames", "message"),
    [
        ("a.png", 8, "num_frames=8; give num_frames=1"),
        ("a.gif", 8, "expected a name that ends in .mp4, .mkv, .mov"),
        ("folder", 1, "expected a name that ends in"),
    ],
)
def test_names_of_no_video_are_refused(name, num_frames, message):
    with pytest.raises(ValueError, match=message):
        check_outputs([Path(name)], num_frames, overwrite=False)


def test_prompts_of_a_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa caf\u00e9\r\n\r\n  b  \n".encode())
    assert read_prompts(file) == ["a caf\u00e9", "b"]
    file.write_text("\n \n")
    with pytest.raises(ValueError, match="has no prompts"):
        read_prompts(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_prompts(file)
    with pytest.raises(FileNotFoundError, match="prompts_file not found"):
        read_prompts(tmp_path / "none.txt")


def test_prompts_are_read_from_regular_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a named pipe; a regular file is expected"):
        read_prompts(tmp_path / "pipe")


def test_a_png_is_a_frame_under_a_fitting_name(tmp_path):
    frame = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r"ends in \.png"):
        write_png(tmp_path / "a.jpg", frame)
    with pytest.raises(ValueError, match="uint8 frame"):
        write_png(tmp_path / "a.png", frame.astype(np.float32))
    write_png(tmp_path / "a.png", frame)
    with pytest.raises(FileExistsError):
        write_png(tmp_path / "a.png", frame)
