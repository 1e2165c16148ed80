"""VMAF and XPSNR, by the ffmpeg that comes with the package `imageio-ffmpeg`.

Both look at 8-bit YUV 4:2:0, which ffmpeg makes of the RGB frames (its own scaler, BT.601); so
figures depend on the size of the frames, and VMAF's model was made for 1080p seen from three
screen heights: compare figures of one size.
"""

import functools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from mg.metrics.frames import checked_pair

__all__ = ["VMAF_MODEL", "ffmpeg_version", "find_ffmpeg", "vmaf", "xpsnr"]

VMAF_MODEL = "vmaf_v0.6.1"
FILTERS = ("libvmaf", "xpsnr")
SECONDS_PER_FRAME, SECONDS_AT_LEAST = 5, 60  # after which ffmpeg counts as hung
XPSNR_LINE = re.compile(r"XPSNR y: *(inf|[\d.]+)", re.IGNORECASE)


@functools.cache
def find_ffmpeg() -> str:
    """Return the path of an ffmpeg that has VMAF and XPSNR.

    Raises:
        ValueError: `imageio-ffmpeg` is not installed, or its ffmpeg lacks them on this platform.
    """
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            "VMAF and XPSNR need the ffmpeg of the package imageio-ffmpeg, which is not here: "
            "pip install 'mg-video[vmaf]' (68 MB)"
        ) from error
    listed = _output([program, "-hide_banner", "-filters"])
    lacking = [name for name in FILTERS if not re.search(rf"\b{name}\b", listed)]
    if lacking:
        raise ValueError(
            f"the ffmpeg of imageio-ffmpeg, {program}, lacks {' and '.join(lacking)} on this "
            "platform; the Linux x86_64 package of version 0.8.1 has both"
        )
    return program


def ffmpeg_version() -> str:
    """Return what the ffmpeg calls itself, such as "ffmpeg n9.0.2"."""
    first = _output([find_ffmpeg(), "-version"]).splitlines()[0]
    return " ".join(first.split()[::2][:2]) if first.startswith("ffmpeg version") else first


def vmaf(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return the VMAF of each frame, 0 to 100 (equal frames: about 97 to 100), shape (T,).

    Args:
        reference: frames (T, H, W, 3), uint8, or floats in [0, 255], which are rounded.
        generated: frames of the same shape and kind.

    Raises:
        ValueError: the clips cannot be compared, or ffmpeg is missing or refuses them.
    """
    filter_text = f"libvmaf=log_fmt=json:log_path=log:n_threads=1:model=version={VMAF_MODEL}"
    log = json.loads(_run(reference, generated, filter_text))
    return np.array([frame["metrics"]["vmaf"] for frame in log["frames"]], np.float64)


def xpsnr(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return the XPSNR of each frame's luma in dB (Helmrich et al. 2020), shape (T,).

    Identical frames give infinity.

    Args:
        reference: frames (T, H, W, 3), uint8, or floats in [0, 255], which are rounded.
        generated: frames of the same shape and kind.

    Raises:
        ValueError: the clips cannot be compared, or ffmpeg is missing or refuses them.
    """
    log = _run(reference, generated, "xpsnr=stats_file=log")
    found = [float(match[1]) for line in log.splitlines() if (match := XPSNR_LINE.search(line))]
    return np.array(found[: len(reference)], np.float64)  # the averages are lines of their own


def _run(reference: np.ndarray, generated: np.ndarray, filter_text: str) -> str:
    """Return the log that a filter of ffmpeg has written about two clips."""
    num_frames, height, width = checked_pair(reference, generated)
    program = find_ffmpeg()
    kind = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25"]
    graph = f"[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]{filter_text}"
    command = [program, "-hide_banner", "-nostdin", "-v", "error"]
    command += [*kind, "-i", "generated", *kind, "-i", "reference"]
    command += ["-lavfi", graph, "-f", "null", "-"]
    with tempfile.TemporaryDirectory(prefix="mg_vmaf_") as folder:
        for name, frames in (("generated", generated), ("reference", reference)):
            with open(Path(folder) / name, "wb") as file:
                for frame in frames:
                    file.write(np.rint(np.clip(frame, 0, 255)).astype(np.uint8).tobytes())
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SECONDS_AT_LEAST + SECONDS_PER_FRAME * num_frames,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"ffmpeg did not finish {num_frames} frames in time") from error
        log = Path(folder) / "log"
        if result.returncode or not log.exists():
            reasons = result.stderr.strip().splitlines() or ["no reason given"]
            raise ValueError(f"ffmpeg could not measure {width}x{height} frames: {reasons[-1]}")
        return log.read_text(encoding="utf-8")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_AT_LEAST).stdout
