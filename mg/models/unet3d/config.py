"""What a 3-D U-Net is made of: its config, checked on creation, and the presets.

Source: Video Diffusion Models (arXiv 2204.03458) section 3; spatial and temporal attention and the
attention to text as in latent video diffusion (arXiv 2304.08818).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mg.known_names import check_known
from mg.models.denoiser_config import (
    TextInput,
    check_whole,
    grid_and_text,
    grid_of_patches,
    text_input,
)
from mg.size_limits import MAX_LAYERS, MAX_WIDTH, check_num_parameters, check_sizes

__all__ = ["PRESETS", "UNet3DConfig"]

MAX_LEVELS = 8


@dataclasses.dataclass(frozen=True)
class UNet3DConfig:
    """The structure of a 3-D U-Net.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    channels: int = 128  # channels of the first level
    channel_mult: tuple[int, ...] = (1, 2, 4)  # channels of each level / channels
    num_res_blocks: int = 2  # residual blocks of each level
    attention_levels: tuple[int, ...] = (1, 2)  # levels with attention, from 0
    num_heads: int = 8  # heads of every attention
    norm_groups: int = 32  # groups of every GroupNorm
    latent_channels: int = 16  # channels of the latent
    condition_channels: int = 0  # channels of the condition beside the latent
    text_encoders: tuple[TextInput, ...] = (TextInput("word", 256, 16),)
    timestep_width: int = 256  # width of the sinusoidal embedding of t

    def __post_init__(self) -> None:
        whole = ("channels", "num_res_blocks", "num_heads", "norm_groups", "latent_channels")
        check_whole(self, (*whole, "timestep_width"))
        if type(self.condition_channels) is not int or self.condition_channels < 0:
            raise ValueError(f"condition_channels={self.condition_channels!r}; expected 0 or more")
        for name, least in (("channel_mult", 1), ("attention_levels", 0)):
            self._check_list(name, least)
        if not 1 <= len(self.channel_mult) <= MAX_LEVELS:
            raise ValueError(f"channel_mult={self.channel_mult}; expected 1 to {MAX_LEVELS} levels")
        if any(level >= len(self.channel_mult) for level in self.attention_levels):
            raise ValueError(
                f"attention_levels={self.attention_levels}: there are {len(self.channel_mult)} "
                "levels, from 0"
            )
        given = self.text_encoders
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ValueError(f"text_encoders={given!r}; expected a list of at least one")
        object.__setattr__(self, "text_encoders", tuple(map(text_input, given)))
        self._check_sizes()

    def _check_list(self, name: str, least: int) -> None:
        value = getattr(self, name)
        right = isinstance(value, Sequence) and not isinstance(value, str)
        if not right or any(type(item) is not int or item < least for item in value):
            raise ValueError(f"{name}={value!r}; expected whole numbers of {least} or more")
        object.__setattr__(self, name, tuple(value))

    def _check_sizes(self) -> None:
        widths = ("channels", "channel_mult", "num_heads", "latent_channels", "condition_channels")
        check_sizes(self, dict.fromkeys((*widths, "timestep_width"), MAX_WIDTH))
        check_sizes(self, {"num_res_blocks": MAX_LAYERS})
        check_num_parameters(sum(100 * self.num_res_blocks * width**2 for width in self.widths))
        for width in self.widths:
            for name in ("norm_groups", "num_heads"):
                if width % getattr(self, name):
                    raise ValueError(
                        f"{name}={getattr(self, name)} does not divide the {width} channels of a "
                        "level (channels x channel_mult)"
                    )
        if self.timestep_width % 2:
            raise ValueError(f"timestep_width={self.timestep_width}; expected an even number")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * factor for factor in self.channel_mult)

    @property
    def dim(self) -> int:
        """Width of the embeddings of time and text."""
        return 4 * self.channels

    @property
    def norm_eps(self) -> float:
        return 1e-5

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent pixels per pixel of the lowest level: frames, rows, columns."""
        side = 2 ** (len(self.channel_mult) - 1)
        return 1, side, side

    def token_grid(self, latent_shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the pixels of the lowest level along frames, height and width.

        Raises:
            ValueError: another number of axes or channels, or a size that the levels do not halve.
        """
        return grid_of_patches(latent_shape, self.latent_channels, self.patch)

    def tokens_per_rank(self, num_tokens: int, num_ranks: int) -> int:
        """Return how many tokens each rank has; only one rank can have them all.

        Raises:
            ValueError: more than one rank.
        """
        if num_ranks != 1:
            raise ValueError(
                f"sequence_parallel={num_ranks}: ranks cannot share the frames of a U-Net; use 1"
            )
        return num_tokens

    def check_inputs(
        self, latent: Sequence[int], t: Sequence[int], *conditions: Sequence[int]
    ) -> tuple[int, int, int]:
        """Return `token_grid` of a latent if tensors of these shapes fit the network.

        Args:
            latent: (B, C, T, H, W).
            t: (B,).
            conditions: for each of `text_encoders` (B, L, width), then (B, L), L <= max_tokens;
                at last, with `condition_channels`, (B, C_c, T, H, W).

        Raises:
            ValueError: they do not; the message names the tensor, its shape and the right one.
        """
        grid, text = grid_and_text(self, latent, t, *conditions)
        if len(text) != 2 * len(self.text_encoders):
            raise ValueError(
                f"expected {2 * len(self.text_encoders)} text tensors, an embedding and a mask of "
                f"each encoder, got {len(text)}"
            )
        for encoder, values, mask in zip(self.text_encoders, text[::2], text[1::2], strict=True):
            values, mask = tuple(values), tuple(mask)
            right = len(values) == 3 and values[::2] == (latent[0], encoder.width)
            if not right or mask != values[:2] or not 1 <= values[1] <= encoder.max_tokens:
                raise ValueError(
                    f"{encoder.name}: expected an embedding (batch {latent[0]}, at most "
                    f"{encoder.max_tokens} tokens, width {encoder.width}) and a mask (batch, "
                    f"tokens), got {values} and {mask}"
                )
        return grid

    @classmethod
    def from_mapping(cls, mapping: "Mapping[str, Any] | UNet3DConfig") -> "UNet3DConfig":
        """Return the config that a mapping with the fields' names describes.

        Args:
            mapping: may have the key `preset` (one of `PRESETS`), which the other keys change.

        Raises:
            ValueError: an unknown key or preset (the nearest right one is named), a wrong value.
        """
        if isinstance(mapping, cls):
            return mapping
        fields = {name: value for name, value in mapping.items() if not name.startswith("_")}
        preset = fields.pop("preset", None)
        known = [field.name for field in dataclasses.fields(cls)]
        check_known(fields, known, kind="key", place="in the U-Net's config")
        if preset is None:
            return cls(**fields)
        check_known([preset], list(PRESETS), kind="preset", place="in the U-Net's config")
        return dataclasses.replace(PRESETS[preset], **fields)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values (lists for tuples) that YAML and JSON can hold."""
        values = dataclasses.asdict(self)  # text encoders become mappings
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


# tiny learns on one CPU core; the next one is about as large as a small latent video model.
PRESETS: dict[str, UNet3DConfig] = {
    "tiny": UNet3DConfig(
        channels=64, channel_mult=(1, 2), num_res_blocks=1, attention_levels=(0, 1), num_heads=4
    ),
    "100m": UNet3DConfig(channels=128, channel_mult=(1, 2, 4), num_res_blocks=2),
}
