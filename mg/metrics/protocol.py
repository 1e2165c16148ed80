"""A measuring protocol: all that figures of two folders of videos depend on, with its hash.

Figures of video autoencoders differ by what was measured and how: which frames, at what size,
resized how, with which backbone, as a mean over what. A protocol is a small YAML file that says all
of it; its hash stands beside every figure, and figures of different hashes are not compared.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from mg.known_names import did_you_mean

__all__ = [
    "DEFINITIONS",
    "FrameSettings",
    "MetricSettings",
    "Protocol",
    "SizeSettings",
    "read_protocol",
]

# Raised whenever the definition of a metric changes: figures before and after are not comparable.
DEFINITIONS = 1
LARGEST_FILE = 1 << 16  # bytes of a protocol's YAML file
CHOICES = {
    "frames.too_short": ("refuse", "cut"),
    "frames.sample_rate_applies_to": ("both", "real"),
    "size.fit": ("short_side", "cover"),
    "size.interpolation": ("area", "bilinear", "bilinear_antialias"),
    "size.rounding": ("bytes", "none"),
    "size.different": ("refuse", "resize"),
    "metrics.ssim_window": ("uniform", "gaussian"),
    "metrics.lpips_net": ("vgg", "alex"),
    "mean_over": ("clips", "frames"),
}
# Settings that came later: at these values they leave a hash as it was before.
LATER = {"size.fit": "short_side", "size.crop_multiple": 1}


@dataclasses.dataclass(frozen=True)
class FrameSettings:
    """Which frames of a video are measured.

    Args:
        num_frames: from the beginning; None takes all.
        sample_rate: take every n-th frame.
        sample_rate_applies_to: "both" videos, or the "real" one where generated videos hold
            only the sampled frames already.
        sample_fps: take the frame nearest to each 1 / sample_fps seconds, of each video by its own
            frame rate; None takes the frames as they are.
        too_short: "refuse" pairs of which one has fewer frames than wanted (with num_frames None:
            than the other), or "cut" both to what they have.
    """

    num_frames: int | None = 16
    sample_rate: int = 1
    sample_rate_applies_to: str = "both"
    sample_fps: float | None = None
    too_short: str = "refuse"


@dataclasses.dataclass(frozen=True)
class SizeSettings:
    """At what size, and as what numbers, frames are measured.

    Args:
        resolution: length that the shorter side is scaled to, pixels; None keeps it. None with
            "cover".
        crop_size: side of the square that is cut from the centre, or, with "cover", (height,
            width); None keeps all.
        interpolation: "area" (averages areas down, bicubic up), "bilinear" (four neighbours, as
            `torch.nn.functional.interpolate`) or "bilinear_antialias" (as Pillow).
        rounding: "bytes" rounds scaled frames to 0..255, "none" keeps floats.
        different: where real and generated frames are not of one size, "refuse" the pair, or
            "resize" the generated ones to the real one's size first.
        fit: "short_side" scales the shorter side to `resolution`; "cover" scales just enough to
            cover `crop_size`, as the frames that autoencoders train on.
        crop_multiple: with "cover" and no crop_size, frames keep their size, cut at the centre to
            a multiple of this, or of (height, width).
    """

    resolution: int | None = 256
    crop_size: int | tuple[int, int] | None = 256
    interpolation: str = "area"
    rounding: str = "bytes"
    different: str = "refuse"
    fit: str = "short_side"
    crop_multiple: int | tuple[int, int] = 1

    def __post_init__(self) -> None:
        for name in ("crop_size", "crop_multiple"):
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                pair = tuple(value)
                is_square = len(pair) == 2 and pair[0] == pair[1]
                object.__setattr__(self, name, pair[0] if is_square else pair)


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """How frames are measured.

    Args:
        psnr_cap: dB that no frame exceeds, so that identical ones have a figure; None leaves
            identical frames out of means and counts them.
        ssim_window: "uniform" 7x7 (scikit-image) or "gaussian" 11x11 (the paper).
        lpips_net: backbone that `lpips` stands for, "vgg" or "alex".
        min_clips: clips below which FVD and KVD are refused.
    """

    psnr_cap: float | None = None
    ssim_window: str = "uniform"
    lpips_net: str = "vgg"
    min_clips: int = 256


@dataclasses.dataclass(frozen=True)
class Protocol:
    """All that figures depend on, but for the videos.

    Args:
        name: of the protocol.
        version: of the protocol, raised by whoever changes it.
        about: what it is for and what it reproduces.
        frames, size, metrics: see there.
        mean_over: overall figures are the mean of the "clips" means or of all "frames".
        measured: metrics that are measured where the user names none.

    Raises:
        ValueError: a setting of the wrong type or out of range.
    """

    name: str = "mg"
    version: int = 1
    about: str = ""
    frames: FrameSettings = FrameSettings()
    size: SizeSettings = SizeSettings()
    metrics: MetricSettings = MetricSettings()
    mean_over: str = "clips"
    measured: tuple[str, ...] = ("psnr", "ssim")

    def __post_init__(self) -> None:
        flat = _flat(self)
        for key, allowed in CHOICES.items():
            if flat[key] not in allowed:
                raise ValueError(f"{key}={flat[key]!r}; expected one of {', '.join(allowed)}")
        for key in ("frames.num_frames", "size.resolution"):
            _check_number(key, flat[key], int, may_lack=True)
        for key in ("version", "frames.sample_rate", "metrics.min_clips"):
            _check_number(key, flat[key], int)
        for key in ("frames.sample_fps", "metrics.psnr_cap"):
            _check_number(key, flat[key], (int, float), may_lack=True)
        if self.frames.sample_fps is not None and self.frames.sample_rate != 1:
            raise ValueError("frames.sample_fps and frames.sample_rate exclude each other")
        _check_size(self.size)

    def hash(self) -> str:
        """Return 12 hexadecimal digits that differ if figures may; names and texts do not count."""
        content = {"definitions": DEFINITIONS, **_flat(self)}
        for key in ("name", "about", "measured", "metrics.min_clips"):
            del content[key]
        for key, value in LATER.items():
            if content[key] == value:
                del content[key]
        for key in ("frames.sample_fps", "metrics.psnr_cap"):  # 100 and 100.0 are the same
            content[key] = None if content[key] is None else float(content[key])
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def label(self) -> str:
        """Return name, version and hash, as they stand beside figures."""
        return f"{self.name} v{self.version} {self.hash()}"

    @classmethod
    def of_covering_frames(
        cls,
        name: str,
        *,
        num_frames: int | None,
        crop_size: int | tuple[int, int] | None,
        sample_rate: int = 1,
        crop_multiple: int | tuple[int, int] = 1,
    ) -> "Protocol":
        """Return the protocol of frames that are scaled and cropped as autoencoders see them."""
        return cls(
            name,
            frames=FrameSettings(num_frames=num_frames, sample_rate=sample_rate),
            size=SizeSettings(
                fit="cover", resolution=None, crop_size=crop_size, crop_multiple=crop_multiple
            ),
        )

    def record(self) -> dict:
        """Return what a report keeps of it: name, version, hash and all settings."""
        return {
            "name": self.name,
            "version": self.version,
            "hash": self.hash(),
            "settings": self.to_dict(),
        }

    def changed(self, **settings: Any) -> "Protocol":
        """Return a copy with some settings of `frames` and `size` replaced; None changes nothing.

        `num_frames=0` takes all frames. Its name ends in "+" if it then measures differently.

        Raises:
            ValueError: a value out of range.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        if given.get("num_frames") == 0:
            given["num_frames"] = None
        parts = {}
        for section in ("frames", "size"):
            part = getattr(self, section)
            fields = {f.name for f in dataclasses.fields(part)}
            parts[section] = dataclasses.replace(
                part, **{key: value for key, value in given.items() if key in fields}
            )
        changed = dataclasses.replace(self, **parts)
        if changed.hash() == self.hash():
            return self
        return dataclasses.replace(changed, name=f"{self.name}+")

    def to_dict(self) -> dict:
        """Return all settings as JSON can hold them."""
        return {**dataclasses.asdict(self), "measured": list(self.measured)}


def read_protocol(path: str | os.PathLike) -> Protocol:
    """Return the protocol in a YAML file; what the file leaves out has its default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or it has an unknown key (the nearest right one is named) or a wrong
            value.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such protocol: {path}")
    with open(path, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{path} is too large for a protocol (more than {LARGEST_FILE} bytes)")
    try:
        values = yaml.safe_load(content.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _protocol(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _protocol(values: Any) -> Protocol:
    _check_keys(values, Protocol, "")
    arguments = dict(values)
    for field in dataclasses.fields(Protocol):
        section = type(field.default)
        if dataclasses.is_dataclass(section) and field.name in arguments:
            _check_keys(arguments[field.name], section, f"{field.name}.")
            arguments[field.name] = section(**arguments[field.name])
    measured = arguments.get("measured", Protocol.measured)
    if not isinstance(measured, list | tuple) or not all(isinstance(m, str) for m in measured):
        raise ValueError(f"measured={measured!r}; expected a list of names of metrics")
    return Protocol(**{**arguments, "measured": tuple(measured)})


def _check_keys(values: Any, kind: type, prefix: str) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'a protocol'}: expected settings, got {values!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known, f"known are {', '.join(known)}", cutoff=0.5)
            raise ValueError(f"unknown setting {prefix + str(key)!r}; {hint}")


def _check_size(size: SizeSettings) -> None:
    """Raise ValueError unless the settings of the size go together."""
    is_cover = size.fit == "cover"
    for key in ("crop_size", "crop_multiple"):
        value = getattr(size, key)
        sides = value if isinstance(value, tuple) and is_cover and len(value) == 2 else (value,)
        for side in sides:
            _check_number(f"size.{key}", side, int, may_lack=key == "crop_size")
    if is_cover and size.resolution is not None:
        raise ValueError(
            f"size.resolution={size.resolution} has no effect with size.fit='cover', which scales "
            "frames to cover size.crop_size; set it to null"
        )
    if is_cover and (size.interpolation, size.rounding) != ("area", "bytes"):
        raise ValueError("size.fit='cover' takes size.interpolation='area' and rounding='bytes'")
    if size.crop_multiple != 1 and not (is_cover and size.crop_size is None):
        raise ValueError("size.crop_multiple needs size.fit='cover' and size.crop_size=null")
    has_both = size.resolution is not None and size.crop_size is not None
    if has_both and size.crop_size > size.resolution:
        raise ValueError(
            f"size.crop_size={size.crop_size} is larger than size.resolution={size.resolution}, "
            "the length of the shorter side"
        )


def _check_number(key: str, value: Any, kind: type | tuple, *, may_lack: bool = False) -> None:
    if value is None and may_lack:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < float("inf"):
        wanted = "a whole number above 0" if kind is int else "a number above 0"
        raise ValueError(f"{key}={value!r}; expected {wanted}{' or null' if may_lack else ''}")


def _flat(protocol: Protocol) -> dict[str, Any]:
    """Return the settings by their dotted names."""
    flat = {}
    for key, value in dataclasses.asdict(protocol).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            flat[key] = value
    return flat
