"""Files that come from outside, checked for what they are before they are read.

A pipe would wait for ever, and a device never ends. What often is saved in place of a file, a Git
LFS pointer or a web page, is called what it is.
"""

import os
import re

from mg.files import open_regular_file

__all__ = ["check_input_file"]

NUM_HEAD_BYTES = 512

GIT_LFS = b"version https://git-lfs"
# Enough letters that no length at the beginning of a safetensors file can be taken for them.
WEB_PAGE = re.compile(rb"<(!doctype|!--|\?xml|html|head|body|script|title|meta)", re.IGNORECASE)


def check_input_file(path: str | os.PathLike) -> None:
    """Raise an error unless a path is a plain file, or a link to one, and what it seems to be.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is a folder, a pipe, a socket or a device; or a Git LFS pointer or a web page
            in place of the file.
    """
    with open_regular_file(path) as file:
        head = file.read(NUM_HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(GIT_LFS):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`,"
            " or download it again"
        )
    if WEB_PAGE.match(text):
        raise ValueError(
            f"{path} is a web page, not the file itself; download it again, by the link to the raw "
            "file"
        )
