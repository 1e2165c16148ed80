"""Weights by name: fetched from a hub that answers on this machine, kept, verified, refused."""

import hashlib
import http.server
import json
import sys
import threading
from pathlib import Path

import pytest

from mg.models.families import AUTOENCODERS
from mg.weights import hub
from mg.weights.hub import HUB_MODELS, fetch, find_model, is_hub_name, weights_folder
from mg.weights.lock_file import LOCK_NAME, read_lock, verify_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = b'{"_class_name": "AutoencoderKLCogVideoX"}'
WEIGHTS = bytes(range(256)) * 1000
REPOSITORY = "THUDM/CogVideoX-2b"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
FILES = {
    f"/{REPOSITORY}/vae/config.json": CONFIG,
    f"/{REPOSITORY}/vae/{WEIGHTS_NAME}": WEIGHTS,
}


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers HEAD and GET of /REPOSITORY/resolve/REVISION/FILE as the hub does."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        state = self.server
        requested = self.headers.get("Range", "")
        state.requests.append((self.command, self.path, requested))
        if self.path == "/" or state.error:
            self.send_response(state.status if self.path != "/" else 200)
            if state.error and self.path != "/":
                self.send_header("X-Error-Code", state.error)
            self.end_headers()
            return
        repository, _, rest = self.path.partition("/resolve/")
        content = state.files.get(f"{repository}/{rest.partition('/')[2]}")
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        start = int(requested.removeprefix("bytes=").split("-")[0]) if requested else 0
        self.send_response(206 if requested else 200)
        tag = state.tag or hashlib.sha256(content).hexdigest()
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body:
            self.wfile.write(content[start:])

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    """Return a hub on this machine that HF_ENDPOINT names; its attributes steer its answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.files, server.requests = dict(FILES), []
    server.status, server.error, server.tag = 200, "", ""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def nobody(monkeypatch) -> None:
    """The hub's address is a port where nobody answers."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def put_by_hand(folder: Path, weights: bytes = WEIGHTS) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    (folder / WEIGHTS_NAME).write_bytes(weights)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


# -- the table -------------------------------------------------------------------------------------


def test_each_model_has_a_config_weights_and_names_of_its_own():
    names = [name.lower() for model in HUB_MODELS for name in model.names]
    assert len(set(names)) == len(names)
    assert [model.name for model in HUB_MODELS] == [
        "opensora",
        "cogvideox-2b",
        "cogvideox-5b",
        "hunyuan",
        "wan-2.1",
        "wan-2.2",
        "video-dc-ae",
        "causal-vae-1.0",
        "causal-vae-1.1",
        "causal-vae-1.2",
        "sd-vae",
        "sdxl-vae",
        "sd3.5-vae",
    ]
    for model in HUB_MODELS:
        # A Video DC-AE's sizes are read off its tensors.
        assert model.files[0] == "config.json" or model.family == "dc_ae"
        assert len(model.files) == 1 + (model.files[0] == "config.json")
        assert model.family in AUTOENCODERS
        assert 100 < model.megabytes < 3000 and model.licence and model.purpose


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("hpcai-tech/OpenSora-VAE-v1.2", "opensora"),
        ("THUDM/CogVideoX-5b", "cogvideox-5b"),
        ("zai-org/CogVideoX-5b", "cogvideox-5b"),
        ("tencent/HunyuanVideo", "hunyuan"),
        ("stabilityai/sd-vae-ft-mse", "sd-vae"),
        ("stabilityai/SDXL-VAE", "sdxl-vae"),
        ("sd3.5-vae", "sd3.5-vae"),
    ],
)
def test_models_are_found_by_either_name(name, short):
    assert find_model(name).name == short
    assert is_hub_name(name) and not is_hub_name(f"{name}/x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cogvideox-3b", "did you mean 'cogvideox-[25]b'"),
        ("stabilityai/sd-vae-ft-ema", "did you mean 'stabilityai/sd-vae-ft-mse'"),
        ("???", "known are opensora, cogvideox-2b"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        fetch(name)


def test_paths_at_the_hub():
    assert find_model("hunyuan").path_at_hub("pytorch_model.pt") == (
        "hunyuan-video-t2v-720p/vae/pytorch_model.pt"
    )
    assert find_model("opensora").path_at_hub("model.safetensors") == "model.safetensors"


# -- fetching --------------------------------------------------------------------------------------


def test_a_model_is_fetched_recorded_and_then_needs_no_network(server, cache):
    folder = fetch("cogvideox-2b")
    assert folder == cache / "cogvideox-2b" == weights_folder() / "cogvideox-2b"
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / WEIGHTS_NAME).read_bytes() == WEIGHTS
    assert names_in(folder) == {"config.json", WEIGHTS_NAME, LOCK_NAME}
    assert read_lock(folder) == {
        name: {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "revision": COMMIT,
        }
        for name, content in (("config.json", CONFIG), (WEIGHTS_NAME, WEIGHTS))
    }
    assert json.loads((folder / LOCK_NAME).read_text())["source"] == REPOSITORY
    num_requests = len(server.requests)
    assert num_requests > 0  # the address of HF_ENDPOINT was asked
    assert fetch(REPOSITORY) == folder
    assert len(server.requests) == num_requests


def test_another_folder_may_be_given(server, tmp_path, cache):
    assert fetch("cogvideox-2b", cache_folder=tmp_path / "w") == tmp_path / "w" / "cogvideox-2b"
    assert not cache.exists()


def test_without_the_client_the_extra_is_named(server, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    with pytest.raises(ValueError, match=r"fetching cogvideox-2b.*install 'mg-video\[hub\]'"):
        fetch("cogvideox-2b")
    assert not (cache / "cogvideox-2b").exists()


def test_an_interrupted_download_goes_on_where_it_stopped(server, cache, monkeypatch):
    """The connection breaks in the weights; the second attempt asks for the rest alone."""
    half = len(WEIGHTS) // 2
    real = FakeHub.answer

    def broken(self, *, with_body):
        if with_body and self.path.endswith(WEIGHTS_NAME):
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(WEIGHTS).hexdigest()}"')
            self.send_header("Content-Length", str(len(WEIGHTS)))
            self.end_headers()
            self.wfile.write(WEIGHTS[:half])
            self.close_connection = True
            return
        real(self, with_body=with_body)

    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    monkeypatch.setattr(FakeHub, "answer", broken)
    with pytest.raises(ConnectionError, match="goes on where it stopped"):
        fetch("cogvideox-2b")
    folder = cache / "cogvideox-2b"
    assert not (folder / WEIGHTS_NAME).exists() and (folder / "config.json").exists()
    (incomplete,) = folder.rglob("*.incomplete")
    num_there = incomplete.stat().st_size
    assert 0 < num_there <= half
    monkeypatch.setattr(FakeHub, "answer", real)
    server.requests.clear()
    fetch("cogvideox-2b")
    assert (folder / WEIGHTS_NAME).read_bytes() == WEIGHTS
    ranges = [requested for command, _, requested in server.requests if command == "GET"]
    assert ranges == [f"bytes={num_there}-"]
    assert names_in(folder) == {"config.json", WEIGHTS_NAME, LOCK_NAME}


def test_only_what_is_missing_is_fetched(server, cache):
    folder = fetch("cogvideox-2b")
    (folder / "config.json").unlink()
    server.requests.clear()
    fetch("cogvideox-2b")
    assert (folder / "config.json").read_bytes() == CONFIG
    paths = {path for command, path, _ in server.requests if command == "GET"}
    assert paths == {f"/{REPOSITORY}/resolve/{COMMIT}/vae/config.json"}


def test_a_file_that_differs_from_the_hubs_own_hash_is_refused(server, cache):
    server.tag = "f" * 64
    with pytest.raises(OSError, match=r"config\.json .* came damaged.*instead of ffff"):
        fetch("cogvideox-2b")
    assert not list(cache.rglob("config.json"))


def test_a_file_that_is_fetched_again_must_be_the_recorded_one(server, cache):
    folder = fetch("cogvideox-2b")
    (folder / WEIGHTS_NAME).unlink()
    server.files[f"/{REPOSITORY}/vae/{WEIGHTS_NAME}"] = WEIGHTS[::-1]
    with pytest.raises(OSError, match="came damaged"):
        fetch("cogvideox-2b")
    assert not (folder / WEIGHTS_NAME).exists()


def test_two_at_once_fetch_each_file_once(server, cache):
    threads = [threading.Thread(target=fetch, args=("cogvideox-2b",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = cache / "cogvideox-2b"
    for name, record in read_lock(folder).items():
        verify_file(folder / name, record)
    fetched = [path for command, path, _ in server.requests if command == "GET"]
    assert len(fetched) == len(set(fetched)) == 2


# -- what the hub may answer instead ---------------------------------------------------------------


def test_offline_tells_how_to_do_it_by_hand(nobody, cache):
    with pytest.raises(ConnectionError) as caught:
        fetch("hunyuan")
    lines = str(caught.value).splitlines()
    assert lines[0] == "cannot fetch from http://127.0.0.1:9: Connection refused."
    prefix = "    http://127.0.0.1:9/tencent/HunyuanVideo/resolve/main/hunyuan-video-t2v-720p/vae/"
    assert lines[2:4] == [prefix + "config.json", prefix + "pytorch_model.pt"]
    assert lines[5].strip() == str(cache / "hunyuan")
    assert "HF_ENDPOINT" in lines[1]


def test_offline_names_only_what_is_missing(nobody, cache):
    put_by_hand(cache / "cogvideox-2b")
    (cache / "cogvideox-2b" / "config.json").unlink()
    with pytest.raises(ConnectionError) as caught:
        fetch("cogvideox-2b")
    assert "vae/config.json" in str(caught.value) and WEIGHTS_NAME not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (403, "GatedRepo", PermissionError, r"agree to its licence .*HF_TOKEN=hf_"),
        (401, "RepoNotFound", PermissionError, r"no repository stabilityai/.*HF_TOKEN"),
        (404, "EntryNotFound", FileNotFoundError, r"has no file vae/config\.json.*tree/main"),
    ],
)
def test_refusals_of_the_hub_are_explained(server, status, code, error, message):
    server.status, server.error = status, code
    with pytest.raises(error, match=message):
        fetch("sd3.5-vae")


def test_an_address_that_is_no_hub_is_told(server, cache, monkeypatch):
    monkeypatch.setattr(FakeHub, "send_header", lambda *_arguments: None)
    with pytest.raises(ConnectionError, match="download by hand"):
        fetch("cogvideox-2b")


def test_errors_of_the_disk_stay_what_they_are(server, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub, "_download", full)
    with pytest.raises(OSError, match="No space left"):
        fetch("cogvideox-2b")


# -- files that are there ----------------------------------------------------------------------


def test_files_put_by_hand_are_used_and_recorded(nobody, cache):
    put_by_hand(cache / "cogvideox-2b")
    folder = fetch("cogvideox-2b")
    assert read_lock(folder)[WEIGHTS_NAME] == {
        "size": len(WEIGHTS),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }
    assert fetch("cogvideox-2b") == folder


@pytest.mark.parametrize("change", ["flip", "shorten"])
def test_a_changed_file_is_refused(nobody, cache, change):
    put_by_hand(cache / "cogvideox-2b")
    folder = fetch("cogvideox-2b")
    content = bytearray(WEIGHTS)
    content[1234] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(content if change == "flip" else WEIGHTS[:-1])
    expected = "SHA-256 is" if change == "flip" else "255999 bytes instead of 256000"
    with pytest.raises(ValueError, match=rf"{WEIGHTS_NAME} is not the file.*{expected}"):
        fetch("cogvideox-2b")
    (folder / LOCK_NAME).unlink()  # the way out that the message offers
    assert fetch("cogvideox-2b") == folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html>", "web page"),
        (b"", "is empty"),
    ],
)
def test_what_often_is_saved_in_place_of_weights_is_refused(nobody, cache, content, message):
    put_by_hand(cache / "cogvideox-2b", content)
    with pytest.raises(ValueError, match=message):
        fetch("cogvideox-2b")
    assert not (cache / "cogvideox-2b" / LOCK_NAME).exists()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 9999,
        '{"files": []}',
        '{"files": {"a": 1}}',
        '{"files": {"a": {}}}',
        '{"files": {"a": {"size": "1", "sha256": "b"}}}',
        '{"files": {"a": {"size": 1, "sha256": "b"}, "a": {"size": 1, "sha256": "c"}}}',
    ],
)
def test_a_damaged_lock_file_is_refused(nobody, cache, text):
    put_by_hand(cache / "cogvideox-2b")
    (cache / "cogvideox-2b" / LOCK_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"mg_lock\.json is damaged; delete it"):
        fetch("cogvideox-2b")


def test_a_folder_without_lock_file_passes(tmp_path):
    put_by_hand(tmp_path / "x")
    assert read_lock(tmp_path / "x") == {} and names_in(tmp_path / "x") == {
        "config.json",
        WEIGHTS_NAME,
    }
