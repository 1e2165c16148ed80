"""Small videos that the tests of this folder encode themselves."""

import importlib
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fault_experiments.corrupt_media import write_sound
from mg.data.captions import CaptionedVideo, CaptionTable
from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.pixel_conversion import to_rgb


def moving_frames(num_frames, height, width):
    """Return uint8 (T, H, W, 3): a bright square on a wandering gradient, no two frames alike."""
    rng = np.random.default_rng(num_frames)
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for t in range(num_frames):
        for channel in range(3):
            wave = np.sin((rows * (channel + 1) + columns + 5 * t) / 9.0)
            frames[t, :, :, channel] = 110 + 70 * wave + rng.integers(0, 8, (height, width))
        top, left = (3 * t) % (height - 8), (5 * t) % (width - 8)
        frames[t, top : top + 8, left : left + 8] = 255 - (t * 4) % 200
    return frames


def encode_video(
    path, frames, *, codec="libx264", options=None, pts=None, rotation=0, container_options=None
):
    """Encode frames; `pts` are times in ticks of 1/1000 s, instead of 25 frames per second."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if pts is None else int(pts[number])
            frame.time_base = Fraction(1, 25) if pts is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def decode_in_order(path):
    """Return all frames of a file by plain sequential decoding: the reference."""
    with av.open(str(path)) as container:
        frames = [to_rgb(frame) for frame in container.decode(video=0)]
    return np.stack(frames)


@pytest.fixture(scope="session")
def clips_folder():
    """Return the folder of the clips that ship with the project."""
    return Path(__file__).parents[2] / "assets" / "clips"


@pytest.fixture(scope="session")
def plain_video(tmp_path_factory):
    """Return an mp4 of 60 frames of 64x48 with B-frames and a key frame every 12."""
    path = tmp_path_factory.mktemp("video") / "plain.mp4"
    options = {"g": "12", "bf": "3", "movflags": "faststart"}
    return encode_video(path, moving_frames(60, 48, 64), options=options)


@pytest.fixture(scope="session")
def make_video():
    """Return the function `encode_video`."""
    return encode_video


@pytest.fixture(scope="session")
def make_frames():
    """Return the function `moving_frames`."""
    return moving_frames


@pytest.fixture(scope="session")
def reference_frames():
    """Return the function `decode_in_order`."""
    return decode_in_order


@pytest.fixture
def audio_file(tmp_path):
    """Return an mp4 that holds sound only."""
    path = tmp_path / "sound.mp4"
    write_sound(path)
    return path


HOSTILE = """
import os
import signal
import time

from mg.data.clips import ClipDataset


def misbehave(name):
    if "hangs" in name:
        if os.path.isabs(name):
            open(name, "w").close()
        time.sleep(1000)
    if "crashes" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "raises" in name:
        raise ZeroDivisionError("0 frames per second")
    if "slow" in name:
        time.sleep(0.1)
    return name.upper()


def os_getpid(_):
    return os.getpid()


def probe_task(task):
    from mg.data.manifest import _probe

    misbehave(task.entry.name)
    return _probe(task)


class HostileDataset(ClipDataset):
    def read(self, draw):
        with open(draw.clip.path.parent / "reads.txt", "a") as log:
            log.write(draw.clip.name + "\\n")
        misbehave(draw.clip.name)
        return super().read(draw)


class PartlyBadDataset(ClipDataset):
    # The same sample of a clip fails each time, others of it do not.
    def read(self, draw):
        frames = super().read(draw)
        if frames.sum() % 4 == 0:
            raise ValueError("damaged here")
        return frames


class FatalToLoad:
    def __reduce__(self):
        return os._exit, (3,)

    def __call__(self, argument):
        return argument
"""


@pytest.fixture
def hostile(tmp_path_factory, monkeypatch):
    """Return a module, for child processes to import, of functions that hang or crash."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "hostile_functions.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("hostile_functions")
    del sys.modules["hostile_functions"]


LATENT_CONFIG = {  # 2x2x2
    "z_channels": 3,
    "ch_mult": [1, 1],
    "temporal_downsample_level": [0],
    "scaling_factor": 2.0,
    "shift_factor": 0.5,
}


def write_latent_file(folder, name, size, *, weights="w" * 64, settings=None, config=None):
    """Write the latent of a video; its numbers are random but fixed by the name.

    `size` is that of the latent, frames, height and width. Returns (mean, logvar).
    """
    info = LatentInfo(
        num_frames=2 * size[0] - 1,
        height=2 * size[1],
        width=2 * size[2],
        fps=12.0,
        source=name,
        config={**LATENT_CONFIG, **(config or {})},
        config_hash=str(config),
        weights_hash=weights,
        settings=settings or {},
    )
    rng = np.random.default_rng(list(name.encode()))
    mean, logvar = rng.standard_normal((2, 3, *size)).astype(np.float32)
    with LatentWriter(folder / Path(name).with_suffix(".safetensors"), info) as writer:
        writer.write(mean, logvar)
    return mean, logvar


@pytest.fixture(scope="session")
def make_table():
    """Return a function that makes the table of captions of {name: caption}; "" for none."""

    def make(captions):
        videos = [CaptionedVideo(Path(name), name, text) for name, text in captions.items() if text]
        return CaptionTable(tuple(videos), tuple(name for name in captions if not captions[name]))

    return make


@pytest.fixture(scope="session")
def write_latent():
    """Return the function `write_latent_file`."""
    return write_latent_file
