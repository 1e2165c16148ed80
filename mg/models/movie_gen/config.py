"""What a Movie Gen transformer is made of: its config, checked on creation, and the presets.

Source: Movie Gen (arXiv 2410.13720) sections 3.1.3 and 3.1.4, and its table of architectures.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mg.known_names import check_known
from mg.models.denoiser_config import (
    TextInput,
    check_whole,
    equal_share,
    grid_and_text,
    grid_of_patches,
    text_input,
)
from mg.size_limits import MAX_LAYERS, MAX_WIDTH, check_num_parameters, check_sizes

__all__ = ["PRESETS", "MovieGenConfig"]

MAX_ROWS = 1 << 16  # of a position table


# The encoders of the paper. Those weights of MetaCLIP were never released; any CLIP text model of
# this width stands in.
PAPER_TEXT_ENCODERS = (
    TextInput("ul2", 4096, 512),
    TextInput("metaclip", 1280, 256),
    TextInput("byt5", 1472, 100),
)


@dataclasses.dataclass(frozen=True)
class MovieGenConfig:
    """The structure of a Movie Gen transformer; all fields are honoured by the network.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    num_layers: int = 48  # transformer blocks
    dim: int = 6144  # width of a token
    ffn_dim: int = 16384  # inner width of the feed-forward layers
    num_heads: int = 48  # heads of every attention
    latent_channels: int = 16  # channels of the latent
    # Channels of the condition beside the latent, such as a source video's (Movie Gen 5.1.1).
    condition_channels: int = 0
    patch_size: tuple[int, int, int] = (1, 2, 2)  # latent pixels per token: frames, height, width
    # Rows of the position tables, in tokens: frames, height, width. This one is for 256 frames of
    # 768x768 pixels and any aspect ratio of the same area up to 4:1.
    position_table: tuple[int, int, int] = (32, 96, 96)
    # Name, width and longest text of each text encoder.
    text_encoders: tuple[TextInput, ...] = PAPER_TEXT_ENCODERS
    timestep_width: int = 256  # width of the sinusoidal embedding of t
    norm_eps: float = 1e-5  # epsilon of every RMSNorm and LayerNorm
    # Not in the paper: RMSNorm of each head's queries and keys, against logits that grow.
    qk_norm: bool = False
    # Not in the paper: rotary positions in self-attention, on top of the learned ones.
    rope: bool = False

    def __post_init__(self) -> None:
        whole = ("num_layers", "dim", "ffn_dim", "num_heads", "latent_channels", "timestep_width")
        check_whole(self, whole)
        channels = self.condition_channels
        if type(channels) is not int or channels < 0:
            raise ValueError(f"condition_channels={channels!r}; expected 0 or more")
        for name in ("qk_norm", "rope"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; expected true or false")
        for name in ("patch_size", "position_table"):
            self._check_triple(name)
        self._check_text_encoders()
        self._check_sizes()
        eps = self.norm_eps
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
            raise ValueError(f"norm_eps={self.norm_eps!r}; expected a number between 0 and 1")
        if self.dim % self.num_heads:
            raise ValueError(
                f"dim={self.dim} is not a multiple of num_heads={self.num_heads}; every head needs "
                "the same width"
            )
        if self.timestep_width % 2:
            raise ValueError(f"timestep_width={self.timestep_width}; expected an even number")
        if self.rope and (self.head_dim % 2 or self.head_dim < 6):
            raise ValueError(
                f"rope needs heads of an even width of 6 or more, to turn pairs along 3 axes; "
                f"dim={self.dim} with num_heads={self.num_heads} gives {self.head_dim}"
            )

    def _check_sizes(self) -> None:
        widths = ("dim", "ffn_dim", "num_heads", "latent_channels", "timestep_width", "patch_size")
        widths += ("condition_channels",)
        check_sizes(self, dict.fromkeys(widths, MAX_WIDTH))
        check_sizes(self, {"num_layers": MAX_LAYERS, "position_table": MAX_ROWS})
        # Self- and cross-attention and the gated feed-forward layers; the modulation from t.
        layer = 8 * self.dim**2 + 3 * self.dim * self.ffn_dim
        inputs = sum(encoder.width for encoder in self.text_encoders) + 2 * self.patch_values
        check_num_parameters(self.num_layers * layer + (8 * self.dim + inputs) * self.dim)

    def _check_triple(self, name: str) -> None:
        value = getattr(self, name)
        right = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3
        if not right or any(type(item) is not int or item < 1 for item in value):
            raise ValueError(f"{name}={value!r}; expected three whole numbers of 1 or more")
        object.__setattr__(self, name, tuple(value))

    def _check_text_encoders(self) -> None:
        given = self.text_encoders
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ValueError(f"text_encoders={given!r}; expected a list of at least one")
        encoders = tuple(text_input(item) for item in given)
        names = [encoder.name for encoder in encoders]
        if len(set(names)) < len(names):
            raise ValueError(f"text_encoders has a name twice: {names}")
        object.__setattr__(self, "text_encoders", encoders)

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def patch(self) -> tuple[int, int, int]:
        return self.patch_size

    @property
    def patch_values(self) -> int:
        """Numbers of the latent in one token."""
        return self.latent_channels * math.prod(self.patch_size)

    @property
    def condition_values(self) -> int:
        """Numbers of the condition beside the latent in one token."""
        return self.condition_channels * math.prod(self.patch_size)

    def token_grid(self, latent_shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the tokens of a latent along frames, height and width.

        Args:
            latent_shape: (B, C, T, H, W).

        Raises:
            ValueError: another number of axes or channels, a size that is not a multiple of the
                patch, or a position table smaller than the input.
        """
        grid = grid_of_patches(latent_shape, self.latent_channels, self.patch)
        if any(size > rows for size, rows in zip(grid, self.position_table, strict=True)):
            raise ValueError(
                f"position_table={self.position_table} is smaller than the input's {grid} tokens "
                f"(frames, height, width; a latent of {tuple(latent_shape)}): take smaller "
                "videos (--buckets of mg encode), or set a larger --model.position_table"
            )
        return grid

    def tokens_per_rank(self, num_tokens: int, num_ranks: int) -> int:
        """Return how many tokens of an input each of so many ranks has (sequence parallel).

        Raises:
            ValueError: they cannot share the tokens, or the network's heads, equally.
        """
        return equal_share(num_tokens, num_ranks, num_heads=self.num_heads)

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
        batch_size = latent[0]
        names = [encoder.name for encoder in self.text_encoders]
        if len(text) != 2 * len(names):
            raise ValueError(
                f"expected {2 * len(names)} text tensors, an embedding and a mask for each of "
                f"{names}, got {len(text)}"
            )
        for encoder, values, mask in zip(self.text_encoders, text[::2], text[1::2], strict=True):
            values, mask = tuple(values), tuple(mask)
            right = len(values) == 3 and values[::2] == (batch_size, encoder.width)
            if not right or mask != values[:2] or not 1 <= values[1] <= encoder.max_tokens:
                raise ValueError(
                    f"{encoder.name}: expected an embedding (batch {batch_size}, at most "
                    f"{encoder.max_tokens} tokens, width {encoder.width}) and a mask (batch, "
                    f"tokens), got {values} and {mask}"
                )
        return grid

    @classmethod
    def from_mapping(cls, mapping: "Mapping | MovieGenConfig") -> "MovieGenConfig":
        """Return the config that a mapping with the fields' names describes.

        Args:
            mapping: may have the key `preset` (one of `PRESETS`), which the other keys change.

        Raises:
            ValueError: an unknown key or preset (the nearest right one is named), a wrong value.
        """
        if isinstance(mapping, cls):
            return mapping
        fields = dict(mapping)
        preset = str(fields.pop("preset", "")).lower()  # 5B is 5b
        known = [field.name for field in dataclasses.fields(cls)]
        check_known(fields, known, kind="key", place="in the transformer's config")
        if not preset:
            return cls(**fields)
        check_known([preset], list(PRESETS), kind="preset", place="in the transformer's config")
        return dataclasses.replace(PRESETS[preset], **fields)

    def to_dict(self) -> dict:
        """Return plain values (lists for tuples) that YAML and JSON can hold."""
        values = dataclasses.asdict(self)  # text encoders become mappings
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


# The encoder of words needs no weights of its own, so the small presets run anywhere.
_SMALL_TEXT = (TextInput("word", 256, 16),)

# tiny learns on one CPU core in minutes; 100m is for measurements; the others are the paper's.
PRESETS: dict[str, MovieGenConfig] = {
    "tiny": MovieGenConfig(6, 256, 512, 4, position_table=(8, 16, 16), text_encoders=_SMALL_TEXT),
    "100m": MovieGenConfig(
        10, 768, 2048, 12, position_table=(32, 32, 32), text_encoders=_SMALL_TEXT
    ),
    "1b": MovieGenConfig(24, 1536, 4096, 16),
    "5b": MovieGenConfig(32, 3072, 8192, 24),
    "30b": MovieGenConfig(48, 6144, 16384, 48),
}
