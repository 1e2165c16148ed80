"""What stands before a prompt when an encoder sees it."""

import math
import re

__all__ = ["with_fps", "without_fps"]

PREFIX = re.compile(r"FPS-\d+\b")


def with_fps(prompt: str, fps: float) -> str:
    """Return the prompt with the frame rate in front, "FPS-16 a red circle ...".

    Movie Gen, section 3.1 ("Controlling FPS"). The empty prompt stays empty: it stands for no text
    at all.

    Args:
        prompt: without such a prefix.
        fps: frames per second; the nearest whole number is written.

    Raises:
        ValueError: fps is not positive, or the prompt has the prefix already.
    """
    if not (math.isfinite(fps) and fps >= 0.5):
        raise ValueError(f"fps={fps}; expected frames per second, 1 or more")
    if PREFIX.match(prompt):
        raise ValueError(f"the prompt {prompt!r} has its frame rate already; leave it out")
    return f"FPS-{round(fps)} {prompt}" if prompt else ""


def without_fps(text: str) -> str:
    """Return a text of `with_fps` without its frame rate; another text as it is."""
    return PREFIX.sub("", text, count=1).lstrip() if PREFIX.match(text) else text
