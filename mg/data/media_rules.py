"""What counts as video or image, by the content of a file, and how its frames are read."""

import re
from dataclasses import dataclass

from mg.data.media_source import MediaSource, open_media

__all__ = [
    "DEMUXERS",
    "MEDIA_SUFFIXES",
    "PREPARED_SUFFIX",
    "READING_VERSION",
    "VIDEO_SUFFIXES",
    "BrokenVideoError",
    "NoMediaError",
    "Reading",
    "image_format",
    "kind_of_file",
]

# To be raised whenever some file gives other frames than before: what was made of its frames, such
# as prepared clips and latents, is then made anew instead of being used on.
READING_VERSION = 2

# Decoded clips of `mg.data.prepare`: uint8 (T, H, W, 3), read through a memory map.
PREPARED_SUFFIX = ".npy"

# How the images begin that are opened; readers of other formats, as of PostScript, run programs.
IMAGE_STARTS = {
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM"),
}
PREPARED_START = b"\x93NUMPY"
# Images in containers of video; of large ones FFmpeg would show a single tile.
IMAGE_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"})

# FFmpeg's names of the containers that are opened: those that hold video in the file itself. Lists
# of other files (concat, hls, dash, image sequences), devices, network and text are not among them.
DEMUXERS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "asf", "asf_o", "flv"),
    *("live_flv", "kux", "mpeg", "mpegts", "mpegvideo", "ogg", "gif", "nut", "mxf", "gxf", "lxf"),
    *("rm", "ivr", "wtv", "ty", "pva", "nsv", "nuv", "dv", "dhav", "hxvs", "ifv", "luodat", "mxg"),
    *("smjpeg", "mjpeg", "mjpeg_2000", "ivf", "obu", "av1", "h261", "h263", "h264", "hevc", "vvc"),
    *("evc", "apv", "m4v", "vc1", "vc1test", "cavsvideo", "avs2", "avs3", "dirac", "dnxhd", "ipu"),
    *("yuv4mpegpipe", "cine", "ser", "r3d", "flic", "swf", "vivo", "smk", "bink", "roq", "usm"),
    *("film_cpk", "moflex", "mods", "thp", "xmv", "psxstr", "pmp", "mtv", "rpl", "filmstrip"),
)

# A file of another name is looked into all the same. These are for names that lack their suffix in
# a table, and tell what is listed by name if it cannot be read.
VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2", ".f4v", ".mkv", ".mk3d", ".webm"),
        *(".avi", ".divx", ".wmv", ".asf", ".flv", ".rm", ".rmvb", ".ogv", ".ogm", ".gif", ".nut"),
        *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".wtv"),
        *(".mxf", ".gxf", ".dv", ".ivf", ".obu", ".h264", ".h265", ".hevc", ".y4m"),
    )
)
IMAGE_SUFFIXES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".webp", ".bmp"})
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES | {PREPARED_SUFFIX}


class BrokenVideoError(ValueError):
    """A file that exists but cannot be read as video in full; the message says why."""


class NoMediaError(BrokenVideoError):
    """A file that is not a video or image of a kind that is read, or has no picture in it."""


@dataclass(frozen=True)
class Reading:
    """How the frames of a file are read.

    Attributes:
        max_pixels: files whose frames have more are refused before any is decoded. Decoders hold
            a dozen frames or more at once, each of 1.5 to 4 bytes per pixel. The default allows
            for 8K (7680x4320).
        square_pixels: whether frames with pixels that are wider or narrower than high are
            resampled to the width at which players show them.

    Raises:
        ValueError: `max_pixels` is not positive.
    """

    max_pixels: int = 2**25
    square_pixels: bool = True

    def __post_init__(self):
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, not {self.max_pixels}")

    def check_pixels(self, path: MediaSource, height: int, width: int) -> None:
        """Raise BrokenVideoError if frames of this size are too large."""
        if height * width > self.max_pixels:
            raise BrokenVideoError(
                f"{path.name}: frames of {width}x{height} have more than the {self.max_pixels} "
                "pixels that max_pixels allows"
            )


def image_format(head: bytes) -> str | None:
    """Return which of the image formats that are read begins like this; None for others."""
    return next((name for name, start in IMAGE_STARTS.items() if start.match(head)), None)


def kind_of_file(path: MediaSource) -> str:
    """Return "image", "prepared" or "video" (whatever is neither of the others), by the content.

    Of an array the name says so too: there is nothing else that a `.npy` file could be.

    Raises:
        FileNotFoundError: no such file.
        NoMediaError: an empty file, or an image of a format that is not read.
        ValueError: no regular file.
    """
    with open_media(path) as file:
        head = file.read(32)
    if not head:
        raise NoMediaError(f"{path.name}: the file is empty (0 bytes)")
    if head.startswith(PREPARED_START) or path.suffix.lower() == PREPARED_SUFFIX:
        return "prepared"
    if image_format(head) is not None:
        return "image"
    if head[4:8] == b"ftyp" and head[8:12] in IMAGE_BRANDS:
        raise NoMediaError(
            f"{path.name}: not a video but a HEIC or AVIF image, which is not read; "
            "convert it to PNG or JPEG"
        )
    return "video"
