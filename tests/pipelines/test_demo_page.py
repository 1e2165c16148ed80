"""The page over HTTP, as gradio's own client uses it, with tiny networks."""

import dataclasses
import http.client
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from mg.conditions.text.encoder import TRUNCATE_HINT
from mg.data.video import VideoReader
from mg.pipelines import demo_page, page_actions
from mg.pipelines.demo_page import build_page, check_address, import_gradio, open_page
from mg.pipelines.generated_files import write_generated
from mg.pipelines.page_actions import as_text, build_actions
from mg.pipelines.page_limits import MAX_REQUEST_BYTES
from mg.pipelines.page_request import PageRequest, VideoMaker
from mg.pipelines.page_uploads import MAX_UPLOAD_BYTES, Uploads
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from mg.pipelines.training_scope import scope_of_captions

pytestmark = pytest.mark.usefixtures("pynative_mode")

HOST = "127.0.0.1"
FIELDS = {
    "prompt": "a red circle",
    "negative_prompt": "blue",
    "num_frames": 6,
    "size": "16x24",
    "steps": 2,
    "guidance": 2.5,
    "seed": 11,
}


@pytest.fixture(scope="module")
def generator(generator_folder):
    """Return the tiny random generator."""
    return TextToVideo.from_pretrained(generator_folder)


@pytest.fixture(scope="module")
def contacted():
    """Return the hosts that this process looks up or connects to, from now on."""
    hosts = set()
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def noted_look_up(host, *args, **options):
        hosts.add(host)
        return look_up(host, *args, **options)

    def noted_connect(self, address):
        hosts.add(address[0] if isinstance(address, tuple) else address)
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", noted_look_up)
        patch.setattr(socket.socket, "connect", noted_connect)
        yield hosts


@pytest.fixture(scope="module")
def served(generator, contacted, tmp_path_factory):
    """Return the address of the page and the folder of its videos."""
    folder = tmp_path_factory.mktemp("page") / "videos"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("copies")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
        patch.setenv("GRADIO_SHARE", "True")
        page = build_page(VideoMaker(generator, folder, origin={"checkpoint": "here"}))
        yield open_page(page, folder, host=HOST, port=free_port()), folder
        page.close()


@pytest.fixture(scope="module")
def client(served):
    """Return a client of the page, which tells nobody that it is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield Client(served[0], verbose=False, analytics_enabled=False)


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def get(address):
    with urllib.request.urlopen(address, timeout=120) as response:
        return response.read().decode()


def ask(client, **fields):
    video, metadata = client.predict(**FIELDS | fields, api_name="/generate")
    return Path(video), metadata


def test_the_page_makes_what_the_command_line_makes(client, served, generator, tmp_path):
    video, metadata = ask(client)
    (kept,) = served[1].glob(f"{video.stem}.mp4")
    assert json.loads(kept.with_suffix(".json").read_text()) == metadata
    assert video.read_bytes() == kept.read_bytes()
    settings = {k: v for k, v in FIELDS.items() if k not in ("prompt", "seed", "size")}
    again = write_generated(
        generator,
        [FIELDS["prompt"]],
        [tmp_path / "again.mp4"],
        seeds=[FIELDS["seed"]],
        settings=SamplingSettings.of(generator.defaults, height=16, width=24, **settings),
        origin={"checkpoint": "here"},
    )
    assert len(list(again)) == 1
    told = json.loads((tmp_path / "again.json").read_text())
    assert told.pop("output")["name"] == "again.mp4"
    assert told == {key: value for key, value in metadata.items() if key != "output"}
    with VideoReader(kept) as of_page, VideoReader(tmp_path / "again.mp4") as of_function:
        frames = of_page.read(range(6))
        assert frames.shape == (6, 16, 24, 3)
        np.testing.assert_array_equal(frames, of_function.read(range(6)))


def test_empty_fields_are_the_defaults_and_each_video_is_kept(client, served):
    names = ("num_frames", "size", "steps", "guidance")
    before = set(served[1].glob("*"))
    first, metadata = ask(client, negative_prompt="", **dict.fromkeys(names))
    second, _ = ask(client, negative_prompt="", **dict.fromkeys(names))
    expected = {"num_frames": 8, "height": 16, "width": 24, "steps": 3, "guidance": 3.0}
    assert expected.items() <= metadata.items()
    new = {path.name for path in set(served[1].glob("*")) - before}
    assert new == {f"{path.stem}{end}" for path in (first, second) for end in (".mp4", ".json")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "x" * 4001}, "prompt: expected text of at most 4000 characters, got 4001"),
        ({"negative_prompt": "x" * 4001}, "negative_prompt: expected text of at most 4000 char"),
        ({"steps": 10**9}, "steps=1000000000; at most 100000"),
        ({"prompt": "word " * 13}, "is too long for the encoder 'word': 14 tokens, at most 12"),
        ({"num_frames": 1000}, "1000 frames of 16x24 pixels: position_table"),
        ({"num_frames": 2.5}, "num_frames=2.5; expected a whole number of 1 or more"),
        ({"num_frames": "many"}, "num_frames='many'; expected a whole number"),
        ({"size": "17x24"}, "height=17 is not a multiple of 4"),
        ({"size": "16 by 24"}, "size='16 by 24'; expected height x width in pixels"),
        ({"steps": 0}, "steps=0; expected a whole number of 1 or more"),
        ({"guidance": -1}, "guidance=-1; expected 0 or more"),
        ({"guidance": 1}, "negative_prompt has no effect with guidance=1"),
        ({"seed": None}, "seed=None; expected a whole number from 0 to 9007199254740991"),
        ({"seed": 2**53}, "seed=9007199254740992; expected a whole number from 0"),
        ({"seed": 0.5}, "seed=0.5; expected a whole number"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(
    client, served, generator, monkeypatch, fields, message
):
    before = set(served[1].iterdir())
    monkeypatch.setattr(generator, "transformer", None)  # calling it would fail otherwise
    with pytest.raises(AppError) as told:
        ask(client, **fields)
    assert message in str(told.value)
    assert set(served[1].iterdir()) == before


def test_the_words_are_those_of_the_command_line_and_no_html(client, generator):
    prompt = "<b>a</b> & " * 9
    with pytest.raises(ValueError, match="too long") as of_command_line:
        check_request(generator, [prompt], SamplingSettings.of(generator.defaults))
    with pytest.raises(AppError) as of_page:
        ask(client, prompt=prompt)
    shown = str(of_page.value)
    assert "<" not in shown
    shown = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    # The page has no setting that cuts prompts.
    assert (
        shown == str(of_command_line.value).replace(TRUNCATE_HINT, "") != str(of_command_line.value)
    )


class Page:
    """The page of one visitor, pressed by functions in place of a browser."""

    def __init__(self, maker, visitor="one", uploads=None):
        gr = import_gradio()
        self.uploads = uploads or Uploads()
        self.shown = maker.folder.with_name("shown")
        self.actions = build_actions(gr, maker, self.uploads, self.shown)
        self.visitor = SimpleNamespace(session_hash=visitor)
        self.history = []

    def press_generate(self, progress=lambda *_, **__: None, **fields):
        """Return what the page shows then: video, JSON, problem; None where it stays as it was."""
        fields = FIELDS | {"negative_prompt": ""} | fields
        values = [fields[field.name] for field in dataclasses.fields(PageRequest)]
        is_right, problem = self.actions.text.check(self.visitor, *values)
        shown = self.actions.text.show(is_right, self.history, self.visitor, progress, *values)
        kept = [None if is_kept(part) else part for part in shown]
        if kept[2] is not None:
            self.history = kept[2]
            assert kept[3] == self.history
        problem = kept[4] if kept[4] is not None else problem
        return kept[0], kept[1], problem.value if problem.visible else ""

    def press_cancel(self):
        self.actions.cancel(self.visitor)


def is_kept(part):
    return isinstance(part, dict) and part == import_gradio().skip()


def test_a_problem_is_shown_in_its_place_until_it_is_gone(generator, tmp_path):
    page = Page(VideoMaker(generator, tmp_path))
    video, metadata, problem = page.press_generate(size="17x24")
    assert (video, metadata) == (None, None) and "height=17 is not a multiple of 4" in problem
    video, metadata, problem = page.press_generate()
    assert Path(video).is_file() and metadata["height"] == 16 and problem == ""


def test_the_last_videos_stay_on_the_page(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(page_actions, "NUM_REMEMBERED", 2)
    page = Page(VideoMaker(generator, tmp_path))
    made = [page.press_generate(prompt=f"a circle {n}", num_frames="8")[0] for n in range(3)]
    assert page.history == [(made[2], "a circle 2"), (made[1], "a circle 1")]


def test_a_video_that_is_wanted_no_longer_ends(generator, tmp_path):
    """Another visitor's cancel has no effect."""
    maker = VideoMaker(generator, tmp_path)
    page, other = Page(maker), Page(maker, "other")
    steps = []

    def press(presser):
        def progress(position, desc):
            steps.append(position[0])
            if position[0] == 1:
                presser.press_cancel()

        return progress

    video, _, problem = page.press_generate(press(page))
    assert video is None and problem == "Cancelled." and steps == [0, 1]
    assert list(tmp_path.iterdir()) == []
    video, _, problem = page.press_generate(press(other))
    assert Path(video).is_file() and problem == ""
    page.press_cancel()  # of nothing


def test_what_is_new_to_the_generator_is_told_on_the_page(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "scope", scope_of_captions(["a circle"], [8], [(16, 24)]))
    page = Page(VideoMaker(generator, tmp_path))
    video, _, problem = page.press_generate(prompt="a <circle> dog")
    assert Path(video).is_file() and "the word 'dog'; " in problem


def test_the_page_says_what_it_was_made_for(generator, tmp_path, monkeypatch):
    assert "does not say what it was trained on" in demo_page.introduction(generator)
    scope = scope_of_captions(["a <circle>", "a square"], [6, 8], [(16, 24), (16, 16)])
    monkeypatch.setattr(generator, "scope", scope)
    text = demo_page.introduction(generator)
    assert "16x16, 16x24 pixels and 6, 8 frames" in text and "a &lt;circle&gt;" in text
    assert text.endswith("It knows these words: a, circle, square.")
    parts = build_page(VideoMaker(generator, tmp_path)).config["components"]
    by_id = {part["props"].get("elem_id"): part["props"] for part in parts}
    assert by_id["size"]["choices"] == [("16x24", "16x24"), ("16x16", "16x16")]
    assert by_id["num_frames"]["choices"] == [("8", 8), ("6", 6)]
    samples = [part["props"]["samples"] for part in parts if "samples" in part["props"]]
    assert samples == [[["a <circle>"], ["a square"]]]


def test_marks_of_markdown_are_shown_as_they_are():
    assert as_text("<b> *a* [x](y)") == r"&lt;b&gt; \*a\* \[x\](y)"


def test_a_failure_leaves_the_page_at_work(generator, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    page = Page(VideoMaker(generator, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(generator, "transformer", fail)
        assert page.press_generate()[2] == "RuntimeError: out of memory"
    assert page.press_generate()[2] == ""


def test_a_failure_of_ours_is_told_too(client, generator, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(generator, "transformer", fail)
    with pytest.raises(AppError, match="out of memory"):
        ask(client)


@pytest.mark.parametrize(
    ("path", "num_bytes", "is_chunked", "status", "reason"),
    [
        ("upload", MAX_UPLOAD_BYTES + 10**6, False, 413, b"the video is too long"),
        ("upload/", MAX_UPLOAD_BYTES + 10**6, False, 413, b"the video is too long"),
        ("queue/join", 10**8, False, 413, b"the request is too long"),
        ("queue/join", MAX_REQUEST_BYTES + 1, True, 400, b""),
    ],
)
def test_endless_uploads_and_requests_are_refused(
    served, path, num_bytes, is_chunked, status, reason
):
    """The long request states its length, and is answered before any of it is sent."""
    port = urlsplit(served[0]).port
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    connection.putrequest("POST", f"/gradio_api/{path}")
    connection.putheader("Content-Type", "application/json")
    if is_chunked:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(iter([b"x" * num_bytes]), encode_chunked=True)
    else:
        connection.putheader("Content-Length", str(num_bytes))
        connection.endheaders()
    with connection.getresponse() as response:
        assert response.status == status and reason in response.read()
    connection.close()


def test_the_page_is_served_from_here_alone(client, served, contacted):
    address = served[0]
    assert get(address + "config").count('"analytics_enabled":false') == 1
    for part in ("", "theme.css"):
        text = get(address + part).replace(address, "/")
        assert re.findall(r"""(?:src=|href=|url\(|@import) *["']?(?:https?:)?//.*""", text) == []
    ask(client)
    assert HOST in contacted
    assert contacted <= {HOST, "localhost", "::1", None}
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(f"{address}gradio_api/file={Path(__file__)}")


def test_one_video_at_a_time_and_each_step_is_told(generator, tmp_path, monkeypatch):
    running, most = [], []

    def velocity(latent, t, *text):
        running.append(None)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return latent

    monkeypatch.setattr(generator, "transformer", velocity)
    monkeypatch.setattr(generator, "decode", lambda latent, t: np.zeros((t, 16, 24, 3), np.uint8))
    maker = VideoMaker(generator, tmp_path / "new")
    steps = []
    request = PageRequest(prompt="a")
    settings = request.settings(generator)
    threads = [
        threading.Thread(target=maker.make, args=(request, settings, steps.append))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "new").glob("*.mp4"))) == 3
    assert max(most) == 1 and len(most) == 9
    assert steps == [1, 2, 3] * 3


def test_addresses_that_cannot_be(monkeypatch):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"{HOST}, port {port}: Address already in use"):
            check_address(HOST, port)
    check_address(HOST, port)
    with pytest.raises(ValueError, match="port=0; expected 1 to 65535"):
        check_address(HOST, 0)
    with pytest.raises(ValueError, match=r"served at 203\.0\.113\.1, port .*choose another"):
        check_address("203.0.113.1", port)


def test_without_gradio_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"gradio.*pip install 'mg-video\[demo\]'"):
        import_gradio()
