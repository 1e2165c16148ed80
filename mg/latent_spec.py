"""What a latent is, whichever autoencoder made it: its size, and the scale a generator sees it at.

Layouts
    video    (B, 3, T, H, W)            in [-1, 1]
    latent   (B, C, T', H / h, W / w)   T' by the rule of frames below

The rule of frames: `head` frames at the front have a latent frame each, every `t` further ones
share one. A network that codes `chunk` frames at a time applies it to each chunk.

    autoencoder                          C        t, h, w     head  step  chunk   T'
    TAE                                  16       8, 8, 8     0     1     -       ceil(T / 8)
    CogVideoX                            16       4, 8, 8     1     8     -       1 + (T - 1) / 4
    HunyuanVideo, Wan, CausalVideoVAE    16 or 4  4, 8, 8     1     4     -       1 + (T - 1) / 4
    Video DC-AE                          128      4, 32, 32   0     1     -       ceil(T / 4)
    Open-Sora v1.2                       4        4, 8, 8     0     1     17      5 per 17 frames
    image VAEs, frame by frame           4 or 16  1, 8, 8     0     1     -       T

The rule of scaling: a generator sees `factor * z + offset`, of every autoencoder. Configs state it
in two ways: `scaling_factor` and `shift_factor` of a TAE's config *are* factor and offset; those
of a config that diffusers wrote mean something else (`diffusers_scaling`).

This module needs no MindSpore; numpy arrays and MindSpore tensors are scaled alike.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mg.known_names import check_known

__all__ = ["LOGVAR_MAX", "LOGVAR_MIN", "LatentSpec", "diffusers_scaling"]

# Log variances are clamped to these wherever their exponential is taken: outside of them it says no
# more than "certain", or overflows.
LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0

Array = TypeVar("Array")  # numpy's, or a MindSpore tensor
Scaling = float | tuple[float, ...]  # for all channels, or of each


@dataclasses.dataclass(frozen=True)
class LatentSpec:
    """The latents of one autoencoder.

    Attributes:
        channels: C of the latent.
        t, h, w: frames, rows and columns of video per frame, row and column of latent.
        factor, offset: `factor * z + offset` is what a generator sees; a number, or one per
            channel.
        head: 1 if the first frame has a latent frame of its own, else 0.
        step: the frames behind the head come in multiples of this; 1 if any number will do.
        chunk: frames that are coded together, each chunk by itself; None codes all in one.
        video_channels: of the video going in and coming out.

    Raises:
        ValueError: a value that no autoencoder has.
    """

    channels: int
    t: int
    h: int
    w: int
    factor: Scaling = 1.0
    offset: Scaling = 0.0
    head: int = 0
    step: int = 1
    chunk: int | None = None
    video_channels: int = 3

    def __post_init__(self) -> None:
        for name in ("channels", "t", "h", "w", "step", "video_channels"):
            _check_count(name, getattr(self, name))
        if type(self.head) is not int or self.head not in (0, 1):
            raise ValueError(f"head={self.head!r}; expected 0, or 1 (the first frame by itself)")
        if self.step != 1 and self.step % self.t:
            raise ValueError(f"step={self.step}; expected 1 or a multiple of t={self.t}")
        if self.chunk is not None:
            _check_count("chunk", self.chunk)
            if self.head or self.step != 1:
                raise ValueError(
                    f"chunk={self.chunk} with head={self.head} and step={self.step}: a network "
                    "that codes chunk by chunk takes any number of frames; leave head and step away"
                )
        for name in ("factor", "offset"):
            object.__setattr__(self, name, self._checked_scaling(name))
        if not np.all(self.factor):
            raise ValueError("factor=0 would erase the latent; Stable Diffusion 3.5 has 1.5305")

    def _checked_scaling(self, name: str) -> Scaling:
        """Return factor or offset as floats."""
        given = getattr(self, name)
        values = tuple(given) if isinstance(given, list | tuple) else (given,)
        if not all(type(value) in (int, float) and _is_finite(value) for value in values):
            raise ValueError(
                f"{name}={_short(given)}; expected a finite number, or one per channel"
            )
        if not isinstance(given, list | tuple):
            return float(given)
        if len(values) != self.channels:
            raise ValueError(
                f"{name} has {len(values)} values; expected one number, or one for each of the "
                f"{self.channels} channels"
            )
        return tuple(float(value) for value in values)

    # -- frames and sizes ------------------------------------------------------------------------

    def valid_frames(self, num_frames: int) -> int:
        """Return the smallest number of frames >= `num_frames` that the network takes."""
        _check_count("num_frames", num_frames)
        behind_head = max(num_frames - self.head, 0)
        return self.head + -(-behind_head // self.step) * self.step

    def latent_frames(self, num_frames: int) -> int:
        """Return T' of the latent of a video of `num_frames` frames, completed if need be."""
        behind_head = self.valid_frames(num_frames) - self.head
        if self.chunk is None:
            return self.head + -(-behind_head // self.t)
        num_full, rest = divmod(behind_head, self.chunk)
        return num_full * -(-self.chunk // self.t) + -(-rest // self.t)

    def decoded_frames(self, latent_frames: int) -> int:
        """Return the length of the longest video whose latent has `latent_frames` frames."""
        _check_count("latent_frames", latent_frames)
        if self.chunk is None:
            return self.head + (latent_frames - self.head) * self.t
        num_full, rest = divmod(latent_frames, -(-self.chunk // self.t))
        return num_full * self.chunk + rest * self.t

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (C, T', H', W') of the latent of a video of this length and size in pixels.

        Raises:
            ValueError: height or width is not a multiple of the compression; the nearest is named.
        """
        self._check_size(height, width)
        frames = self.latent_frames(num_frames)
        return self.channels, frames, height // self.h, width // self.w

    def check_video(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless a video of this shape can be encoded.

        Args:
            shape: (B, 3, T, H, W); T may be any number, see `valid_frames`.
        """
        if len(shape) != 5 or shape[1] != self.video_channels or min(shape) < 1:
            raise ValueError(
                f"expected a video (batch, {self.video_channels}, frames, height, width), got "
                f"{tuple(shape)}"
            )
        self._check_size(*shape[3:])

    def _check_size(self, height: int, width: int) -> None:
        for name, size, factor in (("height", height, self.h), ("width", width, self.w)):
            _check_count(name, size)
            if size % factor:
                below = size // factor * factor
                legal = f"{below} or {below + factor}" if below else f"{factor}"
                raise ValueError(
                    f"{name} {size} is not a multiple of {factor}; resize or crop to {legal}"
                )

    def check_latent(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless (B, C, T', H', W') is the shape of such a latent."""
        if len(shape) != 5 or shape[1] != self.channels or min(shape) < 1:
            raise ValueError(
                f"expected a latent (batch, {self.channels}, frames, height, width), got "
                f"{tuple(shape)}"
            )

    # -- scaling ---------------------------------------------------------------------------------

    def scale(self, latent: Array) -> Array:
        """Return the latent as a generator sees it: factor * z + offset.

        Args:
            latent: (..., C, T', H', W'), a numpy array or a MindSpore tensor.

        Raises:
            ValueError: another number of channels.
        """
        factor, offset = self._operands(latent)
        return latent * factor + offset

    def scale_std(self, std: Array) -> Array:
        """Return the standard deviation of a scaled latent: |factor| * std.

        Args:
            std: of the latent, as for `scale`.
        """
        return abs(self._operands(std)[0]) * std

    def unscale(self, latent: Array) -> Array:
        """Return a generator's latent as the decoder takes it; the inverse of `scale`.

        Args:
            latent: as for `scale`.

        Raises:
            ValueError: another number of channels.
        """
        factor, offset = self._operands(latent)
        return (latent - offset) / factor

    def _operands(self, latent: Array) -> tuple[Any, Any]:
        """Return factor and offset, numbers or arrays (C, 1, 1, 1) of the latent's own kind."""
        if len(latent.shape) < 4 or latent.shape[-4] != self.channels:
            raise ValueError(
                f"expected a latent (..., {self.channels}, frames, height, width), got "
                f"{tuple(latent.shape)}"
            )
        return tuple(
            value if isinstance(value, float) else _per_channel(value, latent)
            for value in (self.factor, self.offset)
        )

    # -- as JSON ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (lists for tuples) that JSON and YAML can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "LatentSpec":
        """Return the spec that a mapping describes, such as what `to_dict` gave.

        Raises:
            ValueError: no mapping, an unknown or a missing field, or a wrong value.
        """
        if not isinstance(mapping, Mapping):
            raise ValueError(f"latent spec: expected an object, got {_short(mapping)}")
        fields = dataclasses.fields(cls)
        names = [field.name for field in fields]
        check_known(mapping, names, kind="field", place="in a latent spec")
        required = [field.name for field in fields if field.default is dataclasses.MISSING]
        missing = [name for name in required if name not in mapping]
        if missing:
            raise ValueError(f"latent spec: {', '.join(missing)} must be given")
        return cls(**mapping)


def diffusers_scaling(config: Mapping[str, Any]) -> dict[str, Scaling]:
    """Return {"factor": ..., "offset": ...} of a VAE's config as diffusers reads it.

    A generator sees (z - shift_factor) * scaling_factor, or, where there are `latents_mean` and
    `latents_std`, (z - mean) / std * scaling_factor. Fields that are absent or null are 1 and 0.
    `invert_scale_latents` does not matter: diffusers reads it for the latent of the image alone
    that CogVideoX's image-to-video starts from.

    Raises:
        ValueError: a value is not a finite number, or a standard deviation is 0.
    """
    factor = _number(config, "scaling_factor", 1.0)
    means, stds = config.get("latents_mean"), config.get("latents_std")
    if means is None or stds is None:
        return {"factor": factor, "offset": -_number(config, "shift_factor", 0.0) * factor}
    for name, values in (("latents_mean", means), ("latents_std", stds)):
        right = isinstance(values, list | tuple) and all(map(_is_finite, values))
        if not right or len(means) != len(stds) or (values is stds and not all(stds)):
            raise ValueError(
                f"{name}={_short(values)}; expected one finite number per channel, and no standard "
                "deviation of 0"
            )
    factors = tuple(factor / std for std in stds)
    offsets = tuple(-mean * each for mean, each in zip(means, factors, strict=True))
    return {"factor": factors, "offset": offsets}


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    value = default if value is None else value
    if not _is_finite(value):
        raise ValueError(f"{name}={_short(value)}; expected a finite number")
    return float(value)


def _is_finite(value: object) -> bool:
    # A whole number in JSON may be too large for a float, which math.isfinite raises about.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e308 < value < 1e308 if isinstance(value, int) else math.isfinite(value)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name}={_short(value)}; expected a whole number of 1 or more")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _per_channel(values: tuple[float, ...], latent: Any) -> Any:
    """Return one number per channel as an array (C, 1, 1, 1) of the latent's kind."""
    array = np.array(values, np.float32).reshape(-1, 1, 1, 1)
    return array if isinstance(latent, np.ndarray) else type(latent)(array)
