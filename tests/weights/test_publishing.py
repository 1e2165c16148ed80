"""Folders given to a hub that answers on this machine, and taken from there again."""

import base64
import http.server
import json
import threading

import numpy as np
import pytest

from mg.models.denoiser import Denoiser
from mg.models.families import denoiser_family
from mg.models.tae.tae import TemporalAutoencoder
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.text_to_video import TextToVideo
from mg.vaes.tae import TAEVideoVAE
from mg.vaes.video_vae import VideoVAE
from mg.weights.publishing import model_card, push_folder
from tests.tiny import DENOISERS, TAE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that uploads use; weights go apart from small files."""

    def do_POST(self):
        self.take()

    def do_PUT(self):
        self.take()

    def do_GET(self):
        self.take()

    def take(self):
        state = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state.requests.append((self.command, self.path))
        if state.status != 200:
            return self.answer({"error": "no"}, status=state.status)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            state.private = asked.get("private")
            state.token = self.headers.get("Authorization")
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            return self.answer({"url": f"{state.address}/{name}"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            return self.answer({"files": modes})
        if self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [
                {**each, "actions": {"upload": {"href": f"{state.address}/blob/{each['oid']}"}}}
                for each in wanted
            ]
            return self.answer({"objects": objects})
        if self.path.startswith("/blob/"):
            state.blobs[self.path.removeprefix("/blob/")] = body
            return self.answer({})
        if "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    state.message = value["summary"]
                elif entry["key"] == "file":
                    state.files[value["path"]] = base64.b64decode(value["content"])
                else:
                    state.files[value["path"]] = state.blobs[value["oid"]]
            url = f"{state.address}/me/model/commit/{COMMIT}"
            return self.answer({"commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        return self.answer({"error": f"unexpected {self.command} {self.path}"}, status=404)

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a hub that takes uploads: its `files` after them."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.requests, server.files, server.blobs = [], {}, {}
    server.status, server.private, server.message, server.token = 200, None, None, None
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    # Read once, when the client is imported, which another test may have done.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def vae(pynative_mode):
    """Return a tiny VAE with random weights."""
    return TAEVideoVAE(TemporalAutoencoder(TAE))


def write_folder(path):
    (path / "part").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "part" / "weights.safetensors").write_bytes(bytes(range(256)))
    return path


def test_all_of_a_folder_arrives(hub, tmp_path):
    folder = write_folder(tmp_path / "model")
    address = push_folder(folder, "me/model", private=True, commit_message="First")
    assert address == f"{hub.address}/me/model"
    assert hub.files == {
        "config.json": b"{}",
        "part/weights.safetensors": bytes(range(256)),
    }
    assert (hub.private, hub.message, hub.token) == (True, "First", "Bearer hf_secret")


def test_a_vae_with_its_card_comes_back_the_same(hub, tmp_path, vae):
    vae.push_to_hub("me/model")
    assert sorted(hub.files) == ["README.md", "config.json", vae.weights_file]
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: mg\n") and "VideoVAE.from_pretrained" in card
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    again = VideoVAE.from_pretrained(tmp_path)
    assert again.family == "tae"
    for name, tensor in vae.tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], tensor)


def test_a_tae_with_its_card_comes_back_the_same(hub, tmp_path, pynative_mode):
    tae = TemporalAutoencoder(TAE)
    tae.push_to_hub("me/model")
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: mg\n")
    for again in (
        TemporalAutoencoder.from_pretrained(tmp_path),
        VideoVAE.from_pretrained(tmp_path),
    ):
        assert again.tensors().keys() == tae.tensors().keys()
        for name, tensor in tae.tensors().items():
            np.testing.assert_array_equal(again.tensors()[name], tensor)
    with pytest.raises(FileExistsError, match=r"config\.json already"):
        tae.save_pretrained(tmp_path)


def test_a_denoiser_with_its_card_comes_back_the_same(hub, tmp_path, pynative_mode):
    family = denoiser_family("unet")
    network = family.build(family.read_config({**DENOISERS["unet"], "latent_channels": 4}))
    network.push_to_hub("me/model")
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    assert "Denoiser.from_pretrained" in (tmp_path / "README.md").read_text()
    again = Denoiser.from_pretrained(tmp_path)
    for name, tensor in network.tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], tensor)


def test_a_generator_with_its_card_comes_back_the_same(hub, tmp_path, pynative_mode):
    generator = TextToVideo.from_pretrained("assets/shapes_generator")
    generator.push_to_hub("me/model")
    for name, content in hub.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mg\npipeline_tag: text-to-video\n")
    assert "captions like 'a blue circle moving down on a black background'" in card
    again = load_generator(tmp_path)
    for name, tensor in generator.transformer.tensors().items():
        np.testing.assert_array_equal(again.transformer_tensors[name], tensor)
    (tmp_path / "README.md").write_text("mine")
    generator.save_pretrained(tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_card_that_is_there_stays(tmp_path, vae):
    (tmp_path / "README.md").write_text("mine")
    vae.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("status", [401, 403])
def test_a_user_who_may_not_write_is_told(hub, tmp_path, status):
    hub.status = status
    with pytest.raises(PermissionError, match=r"takes nothing for me/model .* set HF_TOKEN"):
        push_folder(write_folder(tmp_path / "model"), "me/model")


def test_other_answers_of_the_hub_are_told(hub, tmp_path):
    hub.status = 404
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:.* answered: 404"):
        push_folder(write_folder(tmp_path / "model"), "me/model")


def test_a_hub_that_is_not_there_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        push_folder(write_folder(tmp_path / "model"), "me/model")


def test_names_of_another_form_are_refused(hub, tmp_path):
    with pytest.raises(ValueError, match="repository='a/b/c'; expected OWNER/NAME"):
        push_folder(write_folder(tmp_path / "model"), "a/b/c")


def test_a_card_lists_the_sizes():
    card = model_card(
        "Mine", pipeline_tag="text-to-video", about="About.", usage="code", config={"ch": [1, 2]}
    )
    assert "# Mine\n\nAbout.\n\n```python\ncode\n```" in card and "| ch | [1, 2] |" in card
