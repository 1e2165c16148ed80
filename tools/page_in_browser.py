"""What the checks of the page have in common: fields, and what is expected of them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# How the video that is shown looks to the browser.
VIDEO = """() => {
    const video = document.querySelector("#video video");
    return {
        source: video.currentSrc,
        width: video.videoWidth,
        height: video.videoHeight,
        seconds: video.duration,
        error: video.error && video.error.message,
    };
}"""
OTHER_VIDEO = """before => {
    const video = document.querySelector("#video video");
    return video && video.readyState >= 2 && video.currentSrc !== before;
}"""


class CheckError(ValueError):
    """Something of the page is not as it should be."""


def expect(is_right: bool, message: str) -> None:
    """Raise CheckError with the message unless all is right."""
    if not is_right:
        raise CheckError(message)


def field(page: "Page", name: str) -> "Locator":
    """Return where the value of a field is typed."""
    return page.locator(f"#{name} input, #{name} textarea")
