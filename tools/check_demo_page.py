#!/usr/bin/env python
"""Check scripts/demo.py in a real browser, headless: videos are made and play, errors show.

    pip install -e ".[demo,browser]"    and a Chromium: apt-get install chromium
    python tools/check_demo_page.py --screenshot outputs/page.png
    python tools/check_demo_page.py --checkpoint outputs/movie_gen_demo/generator --steps 8

Starts the page on a tiny generator of random weights, or on the one given, and uses it as a person
would. Ends with exit code 1 at the first thing that is not as it should be; a request of the
browser to any other host than the page's is one.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from check_page_uploads import use_uploads
from mg.cli import run_main
from mg.models.families import autoencoder_family, denoiser_family
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.output_record import read_record
from mg.pipelines.training_scope import TrainingScope
from page_in_browser import VIDEO, CheckError, expect, field

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
PROMPT = "a red circle moving left on a black background"
SEED = 7
NUM_TRIALS, TRIAL_MILLISECONDS = 20, 3000
# Field, what is typed, and what the page has to answer.
WRONG = (
    ("prompt", "word " * 5000, "is too long for the encoder"),
    ("size", "17x64", "height=17 is not a multiple of"),
    ("num_frames", "100000", "100000 frames of"),
    ("num_frames", "1.5", "num_frames='1.5'; expected a whole number"),
    ("guidance", "-1", "guidance=-1; expected 0 or more"),
)
TINY_TAE = {
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "z_channels": 4,
    "attn_type": "spat_only",
    "temporal_downsample_level": [0],
    "temporal_upsample_level": [1],
}
TINY_TRANSFORMER = {
    "num_layers": 1,
    "dim": 32,
    "ffn_dim": 64,
    "num_heads": 2,
    "latent_channels": TINY_TAE["z_channels"],
    "position_table": [4, 8, 8],
    "text_encoders": [{"name": "word", "width": 32, "max_tokens": 12}],
    "timestep_width": 32,
}
TINY_DEFAULTS = {
    "num_frames": 8,
    "size": [64, 96],
    "fps": 8,
    "guidance": 3.0,
    "steps": 4,
    "schedule": "linear",
}


def main(argv: list[str] | None = None) -> None:
    """Parse, start the page, use it, tell what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a generator; default: a tiny random one")
    parser.add_argument("--steps", type=int, help="of the sampler; default: the generator's")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="of Chromium's family")
    parser.add_argument("--screenshot", type=Path, default=Path("outputs/page.png"))
    parser.add_argument("--timeout_seconds", type=float, default=600, help="of each single wait")
    options = parser.parse_args(argv)
    if options.browser is None:
        raise ValueError("no chromium on PATH; install it, or give --browser PROGRAM")
    with tempfile.TemporaryDirectory(prefix="mg_page_") as scratch:
        checkpoint = options.checkpoint or write_tiny_generator(Path(scratch) / "generator")
        videos = Path(scratch) / "videos"
        # gradio's copies go with the rest.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(scratch) / "copies")
        options.screenshot.parent.mkdir(parents=True, exist_ok=True)
        with (
            served_page(checkpoint, videos, options.timeout_seconds) as address,
            opened(address, options) as page,
        ):
            use(page, videos, options)
            use_uploads(page, videos, Path(scratch), PROMPT)
    print("all of the page works")


def write_tiny_generator(folder: Path) -> Path:
    """Return the folder, with a generator of random weights in it."""
    import mindspore as ms

    ms.set_seed(0)
    tae, movie_gen = autoencoder_family("tae"), denoiser_family("movie_gen")
    config = movie_gen.read_config(TINY_TRANSFORMER)
    rng = np.random.default_rng(0)
    save_generator(
        folder,
        transformer_tensors={
            name: 0.3 * rng.standard_normal(shape, np.float32)
            for name, shape in movie_gen.shapes(config).items()
        },
        transformer_config=config,
        autoencoder=tae.build(tae.read_config(TINY_TAE)),
        text_encoders=["word,width=32,max_tokens=12"],
        defaults=TINY_DEFAULTS,
        scope=TrainingScope(
            examples=(PROMPT, "a blue square moving up on a white background"),
            words=(),
            num_frames=(TINY_DEFAULTS["num_frames"],),
            sizes=(tuple(TINY_DEFAULTS["size"]),),
        ),
    )
    return folder


@contextlib.contextmanager
def served_page(checkpoint: Path, videos: Path, timeout_seconds: float) -> Iterator[str]:
    """Yield the address of the page, which a process of its own serves meanwhile."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "scripts" / "demo.py")]
    command += [f"--checkpoint={checkpoint}", f"--output_folder={videos}", f"--port={port}"]
    server = subprocess.Popen(command)
    address = f"http://{HOST}:{port}/"
    try:
        began = time.monotonic()
        while not answers(address):
            if server.poll() is not None:
                raise CheckError(f"scripts/demo.py ended with exit code {server.returncode}")
            if time.monotonic() - began > timeout_seconds:
                raise CheckError(f"no page at {address} after {timeout_seconds:g} seconds")
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def answers(address: str) -> bool:
    """Return whether something is served at an address."""
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextlib.contextmanager
def opened(address: str, options: argparse.Namespace) -> Iterator["Page"]:
    """Yield the page in a browser, whose picture is taken if something is wrong.

    Raises:
        CheckError: what was waited for did not come, or a request went to another host.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise ValueError(f'{error}; pip install -e ".[browser]"') from error
    # A browser refuses to start as root with its sandbox.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=options.browser, args=arguments)
        context = program.new_context(viewport={"width": 1200, "height": 1000})
        context.set_default_timeout(1000 * options.timeout_seconds)
        requests = logged_requests(context)
        page = context.new_page()
        try:
            page.goto(address)
            yield page
        except Error as error:
            take_picture(page, options.screenshot)
            raise CheckError(str(error)) from error
        except CheckError:
            take_picture(page, options.screenshot)
            raise
        finally:
            program.close()
    elsewhere = sorted({url for url in requests if not is_local(url)})
    expect(not elsewhere, f"requests to other hosts: {', '.join(elsewhere)}")
    print(f"{len(requests)} requests, all to {HOST}")


def take_picture(page: "Page", path: Path) -> None:
    """Write what the page looks like."""
    page.screenshot(path=path, full_page=True)
    print(f"what it looks like: {path}")


def logged_requests(context: "BrowserContext") -> list[str]:
    """Return a list that fills with the address of every request and socket of all pages."""
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on(
        "page", lambda page: page.on("websocket", lambda opened: requests.append(opened.url))
    )
    return requests


def is_local(url: str) -> bool:
    """Return whether an address is the page's host, or none of the network."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "about") or parts.hostname == HOST


def use(page: "Page", videos: Path, options: argparse.Namespace) -> None:
    """Use the page as a person would: first wrongly, then rightly, then save the video."""
    type_prompt(page)
    see_example_taken(page)
    see_seed_drawn(page)
    page.locator("#advanced button").first.click()
    if options.steps is not None:
        field(page, "steps").fill(str(options.steps))
    field(page, "seed").fill(str(SEED))
    for name, value, message in WRONG:
        see_refused(page, name, value, message)
    expect(not list(videos.iterdir()), "a refused request left files")

    page.locator("#generate").click()
    page.wait_for_function("document.querySelector('#video video')?.readyState >= 2")
    shown = page.evaluate(VIDEO)
    print(f"the video: {shown}")
    page.wait_for_function("document.querySelector('#video video').played.length > 0")
    expect(shown["width"] > 0 and shown["height"] > 0, "the video has no size")
    expect(shown["seconds"] > 0 and shown["error"] is None, "the video does not play")
    (path,) = videos.glob("*.mp4")
    metadata = read_record(path)
    made = {"prompt": PROMPT, "seed": SEED, "width": shown["width"], "height": shown["height"]}
    expect(made.items() <= metadata.items(), f"{made} was shown, {metadata} was made")
    page.locator("#made button").first.click()
    told = page.locator("#metadata").inner_text()
    expect(PROMPT in told and "sha256" in told, f"the page tells of the video: {told!r}")
    with page.expect_download() as download:
        page.locator("#video a[download]").click()
    saved = Path(download.value.path()).read_bytes()
    expect(saved == path.read_bytes(), f"what was downloaded is not {path.name}")
    print(f"the download is {path.name}, {len(saved)} bytes")
    page.locator("#history video, #history img").first.wait_for(state="attached")
    print("it is among the last videos")
    folds = [page.locator(f"#{name} button").first for name in ("made", "advanced")]
    for fold in folds:
        fold.click()
    take_picture(page, options.screenshot)
    for fold in folds:
        fold.click()
    # No machine is quick enough for so many; other generators may have a schedule that ends at 250.
    see_cancelled(page, videos, num_steps=20_000 if options.checkpoint is None else 250)


def type_prompt(page: "Page") -> None:
    """Type the prompt until it stays: what is typed while the page is still loading is lost."""
    for _ in range(NUM_TRIALS):
        field(page, "prompt").fill(PROMPT)
        page.wait_for_timeout(TRIAL_MILLISECONDS)
        if field(page, "prompt").input_value() == PROMPT:
            return
    raise CheckError("what is typed as the prompt does not stay")


def see_example_taken(page: "Page") -> None:
    """Click the second example, and type the prompt again."""
    examples = page.locator("#examples button")
    if examples.count() < 2:
        return  # a generator that says nothing of its training has none
    text = examples.nth(1).inner_text().strip()
    examples.nth(1).click()
    page.wait_for_function(
        "text => document.querySelector('#prompt textarea').value === text", arg=text
    )
    print(f"example: {text}")
    field(page, "prompt").fill(PROMPT)


def see_seed_drawn(page: "Page") -> None:
    """Press the button until the seed is another one."""
    before = field(page, "seed").input_value()
    page.locator("#draw_seed").click()
    page.wait_for_function(
        "seed => document.querySelector('#seed input').value !== seed", arg=before
    )
    print(f"random seed: {field(page, 'seed').input_value()}")


def see_cancelled(page: "Page", videos: Path, *, num_steps: int) -> None:
    """Start a video of many steps, cancel it, and see that it is not made."""
    before, steps = set(videos.iterdir()), field(page, "steps").input_value()
    field(page, "steps").fill(str(num_steps))
    page.locator("#generate").click()
    page.wait_for_timeout(TRIAL_MILLISECONDS if num_steps > 250 else 1000)
    page.locator("#cancel").click()
    page.locator("#problem").filter(has_text="Cancelled.").wait_for()
    expect(set(videos.iterdir()) == before, "a video that was cancelled left files")
    field(page, "steps").fill(steps)
    print("cancelled")


def see_refused(page: "Page", name: str, value: str, message: str) -> None:
    """Give a wrong value, see the page say so, and put back what was there."""
    before = field(page, name).input_value()
    field(page, name).fill(value)
    page.locator("#generate").click()
    told = page.locator("#problem").filter(has_text=message)
    told.wait_for()
    print(f"refused: {told.inner_text()}")
    field(page, name).fill(before)


if __name__ == "__main__":
    run_main(main)
