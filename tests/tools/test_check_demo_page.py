"""What the check of the page can do without a browser; with one it is a program of its own."""

import http.server
import threading

import pytest

import check_demo_page
from mg.pipelines.generator_folder import load_generator


def test_requests_to_other_hosts_are_told_from_own_ones():
    local = ["http://127.0.0.1:7860/a", "ws://127.0.0.1:7860/", "data:image/png;base64,", "blob:a"]
    elsewhere = [
        "https://fonts.googleapis.com/css2?family=Inter",
        "http://127.0.0.1.example.com/",
        "wss://example.com/",
        "http://localhost:7860/",
    ]
    assert [check_demo_page.is_local(url) for url in local] == [True] * 4
    assert [check_demo_page.is_local(url) for url in elsewhere] == [False] * 4


def test_the_tiny_generator_loads(tmp_path):
    parts = load_generator(check_demo_page.write_tiny_generator(tmp_path / "generator"))
    assert parts.defaults.size == (64, 96)
    assert parts.autoencoder.config.spatial_compression == 8


def test_a_server_is_waited_for_until_it_answers():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    assert check_demo_page.answers(address)
    thread.join()
    server.server_close()
    assert not check_demo_page.answers(address)


def test_without_a_browser_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no chromium on PATH; install it, or give --browser"):
        check_demo_page.main([])
