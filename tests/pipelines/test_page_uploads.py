"""Uploads of the page: what is taken, what is made of it, and that nothing of it stays."""

import dataclasses
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from mg.conditions.visual import ChannelConditions
from mg.data.video import VideoReader, probe_video
from mg.data.video_writer import write_video
from mg.pipelines import page_uploads
from mg.pipelines.demo_page import build_page, open_page
from mg.pipelines.page_request import EditRequest, VideoMaker
from mg.pipelines.page_uploads import Uploads
from mg.pipelines.video_to_video import VideoToVideo
from tests.pipelines.conftest import smooth_frames
from tests.pipelines.test_demo_page import FIELDS, HOST, Page, free_port

pytestmark = pytest.mark.usefixtures("pynative_mode")

EDIT = {"strength": 0.5, **FIELDS, "negative_prompt": ""}


@pytest.fixture(scope="module")
def generator(generator_folder):
    """Return the tiny random generator."""
    return VideoToVideo.from_pretrained(generator_folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a video of 12 frames of 40x48 pixels."""
    path = tmp_path_factory.mktemp("clip") / "my clip.mp4"
    write_video(path, smooth_frames(12, 40, 48), fps=10, lossless=True)
    return path


@pytest.fixture(scope="module")
def uploads():
    uploads = Uploads()
    yield uploads
    uploads.close()


@pytest.fixture
def arrive(clip, tmp_path):
    """Return a function that has a file arrive as from a browser: under a path of its own."""

    def arrive(content=None, name=clip.name):
        path = tmp_path / "gradio" / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            shutil.copy(clip, path)
        else:
            path.write_bytes(content)
        return path

    return arrive


def files_of(uploads):
    return list(uploads._folder.iterdir())


def test_an_upload_is_moved_away_read_once_and_deleted(uploads, arrive, clip):
    path = arrive()
    upload = uploads.take(path)
    assert not path.exists() and files_of(uploads) == [upload.path]
    assert upload.path.stat().st_mode & 0o077 == 0 or uploads._folder.stat().st_mode & 0o077 == 0
    assert upload.summary() == "my clip.mp4: 12 frames of 48x40 pixels, 10 per second"
    frames = uploads.frames(upload, 8, (40, 48))
    with VideoReader(clip) as reader:
        np.testing.assert_array_equal(frames, reader.read(range(8)))
    assert files_of(uploads) == []
    with pytest.raises(ValueError, match=r"my clip\.mp4 is deleted by now; upload it again"):
        uploads.frames(upload, 8, (40, 48))


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_UPLOAD_BYTES", 1000, r"my clip\.mp4 has 0\.\d MB; at most 0 MB are taken"),
        ("MAX_SECONDS", 1.0, r"has 12 frames and takes 1 seconds; at most .* 1 seconds are taken"),
        ("MAX_FRAMES", 11, r"has 12 frames .* at most 11 frames"),
    ],
)
def test_what_is_too_much_is_refused_and_deleted(
    uploads, arrive, monkeypatch, limit, value, message
):
    monkeypatch.setattr(page_uploads, limit, value)
    path = arrive()
    with pytest.raises(ValueError, match=message):
        uploads.take(path)
    assert not path.exists() and files_of(uploads) == []


def test_too_many_pixels_are_refused_before_they_are_decoded(uploads, arrive, tmp_path):
    write_video(tmp_path / "wide.mp4", np.zeros((1, 1200, 2000, 3), np.uint8), fps=1)
    path = arrive((tmp_path / "wide.mp4").read_bytes(), "wide.mp4")
    with pytest.raises(ValueError, match=r"wide\.mp4: frames of 2000x1200 have more than"):
        uploads.take(path)
    assert files_of(uploads) == []


@pytest.mark.parametrize("content", [b"", b"no video" * 100, b"#EXTM3U\n/etc/passwd\n"])
def test_what_is_no_video_is_refused_by_its_own_name(uploads, arrive, content):
    path = arrive(content, "odd name.mp4")
    with pytest.raises(ValueError, match=r"^odd name\.mp4: "):
        uploads.take(path)
    assert not path.exists() and files_of(uploads) == []


def test_uploads_that_are_forgotten_go(uploads, arrive, monkeypatch):
    first = uploads.take(arrive())
    monkeypatch.setattr(page_uploads, "KEEP_SECONDS", -1.0)
    second = uploads.take(arrive())
    assert not first.path.exists() and second.path.exists()
    uploads.discard(second)
    uploads.discard(second)
    uploads.discard(None)
    others = Uploads()
    folder = others.take(arrive()).path.parent
    others.close()
    assert not folder.exists()


# -- the page, pressed by functions ----------------------------------------------------------------


class UploadPage(Page):
    """The same page; a visitor uploads, presses a tab's button, and sees what comes of it."""

    def upload(self, path):
        cleared, upload, status, problem = self.actions.take(str(path))
        assert cleared is None
        return upload, status, problem.value

    def press(self, job, *values):
        """Return the video, its JSON and the problem."""
        is_right, problem = job.check(self.visitor, *values)
        shown = job.show(is_right, self.history, self.visitor, lambda *_, **__: None, *values)
        video, metadata, history, _, said = shown
        if not is_right:
            return None, None, problem.value
        if isinstance(history, list):
            self.history = history
        self.state, _ = self.actions.release(is_right, values[0])
        return video, metadata, said.value if said.visible else ""


@pytest.fixture
def page(generator, uploads, tmp_path):
    yield UploadPage(VideoMaker(generator, tmp_path / "videos"), uploads=uploads)
    for path in files_of(uploads):
        path.unlink()


def test_a_video_is_made_of_an_upload_as_by_the_pipeline(page, arrive, generator, clip):
    upload, status, problem = page.upload(arrive())
    assert "12 frames" in status and problem == ""
    video, metadata, problem = page.press(page.actions.edit, upload, *EDIT.values())
    assert problem == "" and page.state is None
    assert metadata["strength"] == 0.5 and list(metadata["inputs"]) == ["source"]
    assert page.history == [(video, EDIT["prompt"])]
    assert files_of(page.uploads) == []
    settings = {key: EDIT[key] for key in ("num_frames", "steps", "guidance", "seed", "strength")}
    expected = generator(clip, EDIT["prompt"], height=16, width=24, **settings).frames[0]
    write_video(Path(video).with_name("again.mp4"), expected, fps=generator.defaults.fps)
    with VideoReader(video) as made, VideoReader(Path(video).with_name("again.mp4")) as again:
        np.testing.assert_array_equal(made.read(range(6)), again.read(range(6)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": 1.0}, "source has no effect with strength=1"),
        ({"strength": 0}, "strength=0; expected more than 0"),
        ({"strength": "all"}, "strength='all'; expected a number"),
        ({"size": "17x24"}, "height=17 is not a multiple of 4"),
        ({"upload": None}, "no video to start from; upload one first"),
        ({"upload": {"path": "/etc/passwd"}}, "no video to start from; upload one first"),
    ],
)
def test_what_cannot_be_edited_is_told_and_the_upload_stays_for_another_try(
    page, arrive, changes, message
):
    upload, _, _ = page.upload(arrive())
    values = {"upload": upload, **EDIT} | changes
    video, _, problem = page.press(page.actions.edit, *values.values())
    assert video is None and message in problem.replace("\\", "")
    assert files_of(page.uploads) == [upload.path]


def test_fields_that_were_not_opened_are_empty(page, arrive, generator):
    upload, _, _ = page.upload(arrive())
    values = {"upload": upload, **EDIT, "negative_prompt": None, "prompt": None}
    assert page.actions.edit.check(page.visitor, *values.values())[0]


def test_a_source_must_be_long_enough(page, arrive, generator):
    upload = dataclasses.replace(page.upload(arrive())[0], num_frames=5)
    request = EditRequest(prompt="a", upload=upload, num_frames=6, strength=0.5)
    with pytest.raises(ValueError, match="has 5 frames and the video is to have 6; take fewer"):
        request.settings(generator)


def test_a_generator_that_knows_sources_edits_with_full_strength(page, arrive, generator):
    upload, _, _ = page.upload(arrive())
    request = EditRequest(prompt="a", upload=upload, num_frames=8, strength=1.0)
    with pytest.raises(ValueError, match="was not trained with one"):
        request.settings(generator)
    stand_in = SimpleNamespace(
        **{name: getattr(generator, name) for name in ("defaults", "autoencoder", "scheduler")},
        transformer_config=generator.transformer_config,
        text_encoders=generator.text_encoders,
        conditions=ChannelConditions(has_source=True),
    )
    assert request.settings(stand_in).strength == 1.0


def test_a_published_scheduler_takes_the_last_steps_at_a_strength(generator, page, arrive):
    upload, _, _ = page.upload(arrive())
    defaults = dataclasses.replace(generator.defaults, schedule="published")
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    stand_in = SimpleNamespace(**vars(generator) | {"defaults": defaults, "scheduler": scheduler})
    request = EditRequest(prompt="a", upload=upload, num_frames=8, steps=4, strength=0.5)
    settings = request.settings(stand_in)
    assert settings.schedule == "published"
    assert (settings.first_step, request.num_steps(settings)) == (2, 2)


def test_an_upload_goes_through_the_autoencoder_and_is_measured(page, arrive, clip):
    upload, _, _ = page.upload(arrive())
    video, figures, problem = page.press(page.actions.reconstruction, upload, "6", "40x48")
    assert problem == "" and page.state is None and page.history == []
    assert files_of(page.uploads) == []
    info = probe_video(video)
    assert (info.num_frames, info.height, info.width, info.fps) == (6, 40, 96, 10.0)
    shown = {key: figures[key] for key in ("num_frames", "height", "width")}
    assert shown == {"num_frames": 6, "height": 40, "width": 48}
    assert 5 < figures["psnr"] < 40 and -1 < figures["ssim"] < 1
    assert Path(video).parents[1] == page.shown  # not among what is kept


@pytest.mark.parametrize(
    ("num_frames", "size", "message"),
    [
        (13, "40x48", "num_frames=13; my clip.mp4 has 12"),
        ("many", "40x48", "num_frames='many'; expected a whole number"),
        (0, "40x48", "num_frames=0; expected a whole number"),
        (4, "41x48", "41"),
        (4, "40 by 48", "expected height x width"),
        (12, "8000x8000", "more than the 67108864 pixels"),
        (12, "99999x8", "99999"),
    ],
)
def test_what_cannot_be_reconstructed(page, arrive, num_frames, size, message):
    upload, _, _ = page.upload(arrive())
    _, _, problem = page.press(page.actions.reconstruction, upload, num_frames, size)
    assert message in problem.replace("\\", "")


def test_a_cancelled_job_deletes_its_upload(page, arrive):
    upload, _, _ = page.upload(arrive())
    values = (upload, *EDIT.values())
    is_right, _ = page.actions.edit.check(page.visitor, *values)
    page.press_cancel()
    shown = page.actions.edit.show(is_right, [], page.visitor, lambda *_, **__: None, *values)
    assert shown[-1].value == "Cancelled."
    page.actions.release(is_right, upload)
    assert files_of(page.uploads) == []


def test_a_broken_upload_is_told_on_the_page(page, arrive):
    upload, status, problem = page.upload(arrive(b"no video" * 9, "a_b.mp4"))
    assert upload is None and status == "" and problem.startswith(r"a\_b.mp4: ")


# -- the page, over HTTP ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(generator, tmp_path_factory):
    """Return (client, address, folder of gradio's copies, folder of uploads)."""
    copies = tmp_path_factory.mktemp("copies")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(copies))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setattr("mg.pipelines.demo_page.Uploads", lambda: made.append(Uploads()) or made[0])
        folder = tmp_path_factory.mktemp("page") / "videos"
        page = build_page(VideoMaker(generator, folder))
        address = open_page(page, folder, host=HOST, port=free_port())
        client = Client(address, verbose=False, analytics_enabled=False)
        yield client, address, copies, made[0]
        page.close()
        made[0].close()


def contents(folder):
    return {path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_programs_upload_too_and_nothing_of_it_stays(served, clip, tmp_path):
    client, _, copies, uploads = served
    video, figures = client.predict(
        handle_file(str(clip)), num_frames=6, size="40x48", api_name="/reconstruct"
    )
    assert probe_video(video).width == 96 and figures["num_frames"] == 6
    video, metadata = client.predict(handle_file(str(clip)), **EDIT, api_name="/edit")
    assert probe_video(video).num_frames == 6 and metadata["strength"] == 0.5
    assert clip.read_bytes() not in contents(copies)
    assert files_of(uploads) == []
    with pytest.raises(AppError, match="no file is given"):
        client.predict(None, num_frames=6, size="40x48", api_name="/reconstruct")
    with pytest.raises(AppError, match="is not a multiple of"):
        client.predict(handle_file(str(clip)), **EDIT | {"size": "17x24"}, api_name="/edit")
    assert files_of(uploads) == []


def test_an_upload_is_served_to_nobody(served, arrive):
    _, address, _, uploads = served
    upload = uploads.take(arrive())
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}gradio_api/file={upload.path}", timeout=60)
    uploads.discard(upload)


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.mp4", None])
def test_the_page_fetches_nothing_and_takes_no_file_of_this_machine(served, clip, path):
    """Asked for without gradio's client, which would upload the file."""
    address = f"{served[1]}gradio_api/call/reconstruct"
    given = {"path": path or str(clip), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [given, 6, "40x48"]}).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as response:
        event = json.load(response)["event_id"]
    with urllib.request.urlopen(f"{address}/{event}", timeout=60) as response:
        assert response.read().startswith(b"event: error")
    assert clip.exists() and files_of(served[3]) == []
