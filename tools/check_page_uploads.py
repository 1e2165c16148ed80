"""The tabs of the page that take a video, in a real browser: a part of check_demo_page.py."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mg.data.video_writer import write_video
from mg.pipelines.output_record import read_record
from mg.pipelines.page_uploads import MAX_UPLOAD_BYTES
from page_in_browser import OTHER_VIDEO, VIDEO, expect, field

if TYPE_CHECKING:
    from playwright.sync_api import Page

NUM_FRAMES, SIDE = 64, 128  # longer and larger than what small generators make
STRENGTH = 0.5


def use_uploads(page: "Page", videos: Path, scratch: Path, prompt: str) -> None:
    """Upload what is refused, edit a video, reconstruct it, and see that no upload stays.

    Args:
        page: in a browser.
        videos: folder that the page keeps its videos in.
        scratch: folder for files; gradio's copies are in `copies` there.
        prompt: of the edit.
    """
    clip = scratch / "moving square.mp4"
    write_video(clip, moving_square(), fps=16)
    page.get_by_role("tab", name="Video to video").click()
    see_refused_uploads(page, scratch)
    before = page.evaluate(VIDEO)["source"]
    upload(page, "edit", clip)
    field(page, "edit_prompt").fill(prompt)
    page.locator("#edit_strength input[type=number]").fill(str(STRENGTH))
    kept = set(videos.glob("*.mp4"))
    page.locator("#remake").click()
    page.wait_for_function(OTHER_VIDEO, arg=before)
    (path,) = set(videos.glob("*.mp4")) - kept
    metadata = read_record(path)
    made = {"prompt": prompt, "strength": STRENGTH}
    expect(made.items() <= metadata.items(), f"{made} was asked for, {metadata} was made")
    expect("source" in metadata["inputs"], f"{path.name} was not made of a source")
    print(f"edited: {page.evaluate(VIDEO)}")

    before = page.evaluate(VIDEO)["source"]
    page.get_by_role("tab", name="Reconstruction").click()
    upload(page, "reconstruction", clip)
    page.locator("#reconstruct").click()
    page.wait_for_function(OTHER_VIDEO, arg=before)
    page.locator("#metadata").filter(has_text="psnr").wait_for()
    shown = page.evaluate(VIDEO)
    expect(shown["width"] > shown["height"] * 1.5, f"no original beside it: {shown}")
    print(f"reconstructed: {shown}")
    expect(set(videos.glob("*.mp4")) == kept | {path}, "a reconstruction is kept")
    content = clip.read_bytes()
    copies = [file for file in (scratch / "copies").rglob("*") if file.is_file()]
    left = [file for file in copies if file.read_bytes() == content]
    expect(not left, f"an upload stays: {left}")
    print("no upload stays")
    page.get_by_role("tab", name="Text to video").click()  # as the picture is to show it


def see_refused_uploads(page: "Page", scratch: Path) -> None:
    """Upload a text and a file that is too large, and see the page say so."""
    text = scratch / "text.mp4"
    text.write_text("no video\n" * 100)
    choose(page, "edit", text)
    told = page.locator("#problem").filter(has_text="not a video")
    told.wait_for()
    print(f"refused: {told.inner_text()}")
    large = scratch / "large.mp4"
    with open(large, "wb") as file:
        file.truncate(2 * MAX_UPLOAD_BYTES)
    choose(page, "edit", large)
    told = page.get_by_text("maximum allowed size").first
    told.wait_for()
    print(f"refused: {told.inner_text()}")
    page.get_by_role("tab", name="Video to video").click()


def upload(page: "Page", tab: str, clip: Path) -> None:
    """Upload a video, and see the page say what it is."""
    choose(page, tab, clip)
    told = page.locator(f"#{tab}_status").filter(has_text=f"{NUM_FRAMES} frames")
    told.wait_for()
    print(f"uploaded: {told.inner_text()}")


def choose(page: "Page", tab: str, file: Path) -> None:
    """Choose a file as a person would in the dialog."""
    page.locator(f"#{tab}_upload input[type=file]").set_input_files(file)


def moving_square() -> np.ndarray:
    """Return uint8 (T, H, W, 3) of a red square that moves to the right."""
    frames = np.zeros((NUM_FRAMES, SIDE, SIDE, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[48:80, number : number + 32] = (220, 40, 40)
    return frames
