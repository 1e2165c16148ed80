"""What the configs of diffusers' video transformers have in common; needs no MindSpore."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mg.known_names import check_known
from mg.models.denoiser_config import TextInput, equal_share, grid_of_patches, text_input

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DiffusersTransformerConfig"]


class DiffusersTransformerConfig:
    """Base of the configs: frozen dataclasses with the fields of a transformer's config.json.

    Subclasses have the fields `in_channels`, `out_channels`, `num_attention_heads` and
    `attention_head_dim` and the property `patch`, and implement `presets` and `text_fields`.

    Attributes:
        NAME: of the network, for messages.
        FIXED: fields that are accepted with the one value that is implemented.
    """

    NAME: ClassVar[str] = ""
    FIXED: ClassVar[Mapping[str, Any]] = {}

    in_channels: int
    out_channels: int
    num_attention_heads: int
    attention_head_dim: int

    @classmethod
    def presets(cls) -> "Mapping[str, Self]":
        """Return configs by the name of a preset."""
        raise NotImplementedError

    @staticmethod
    def text_fields(encoders: Sequence[TextInput]) -> dict[str, Any]:
        """Return the config's fields about text, for these text encoders.

        Raises:
            ValueError: the network takes other ones.
        """
        raise NotImplementedError

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the latent in one token."""
        raise NotImplementedError

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def latent_channels(self) -> int:
        return self.out_channels

    @property
    def condition_channels(self) -> int:
        """Of the condition beside the latent: what goes in and does not come out."""
        return self.in_channels - self.out_channels

    def check_channels(self) -> None:
        """Raise ValueError unless the latent that comes out is one that goes in."""
        if self.in_channels < self.out_channels:
            raise ValueError(
                f"in_channels={self.in_channels} is less than out_channels={self.out_channels}; "
                "the latent goes in, and with it what it is conditioned on"
            )

    def token_grid(self, latent_shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the tokens of a latent (B, C, T, H, W) along frames, height and width.

        Raises:
            ValueError: another number of axes or channels, or a size that the patch does not
                divide.
        """
        return grid_of_patches(latent_shape, self.latent_channels, self.patch)

    def tokens_per_rank(self, num_tokens: int, num_ranks: int) -> int:
        """Return how many of the video's tokens each of so many ranks has (sequence parallel).

        Raises:
            ValueError: they cannot share the tokens, or the network's heads, equally.
        """
        return equal_share(num_tokens, num_ranks, num_attention_heads=self.num_attention_heads)

    @classmethod
    def from_mapping(cls, mapping: "Mapping[str, Any] | Self") -> "Self":
        """Return the config that a config.json, or the settings of a run, describes.

        Keys that begin with an underscore only say who wrote a file. `latent_channels`,
        `condition_channels` and `text_encoders` are what a run says in place of the fields of a
        network's own that mean it.

        Args:
            mapping: may have `preset`, one of `presets`, which the other keys change.

        Raises:
            ValueError: an unknown key or preset (the nearest right one is named), a wrong value,
                or another value of a fixed field.
        """
        if isinstance(mapping, cls):
            return mapping
        fields = {key: value for key, value in mapping.items() if not key.startswith("_")}
        for name, value in cls.FIXED.items():
            if fields.pop(name, value) != value:
                raise ValueError(f"{name}={mapping[name]!r} is not implemented; expected {value!r}")
        if "latent_channels" in fields:
            fields["in_channels"] = fields["out_channels"] = fields.pop("latent_channels")
        beside = fields.pop("condition_channels", 0)
        if "text_encoders" in fields:
            fields |= cls.text_fields([text_input(item) for item in fields.pop("text_encoders")])
        known = [field.name for field in dataclasses.fields(cls)]
        place = f"in {cls.NAME}'s config"
        check_known(fields, [*known, "preset"], kind="key", place=place)
        preset = fields.pop("preset", None)
        if preset is None:
            config = cls(**fields)
        else:
            presets = cls.presets()
            check_known([preset], list(presets), kind="preset", place=place)
            config = dataclasses.replace(presets[preset], **fields)
        if not beside:
            return config
        return dataclasses.replace(config, in_channels=config.out_channels + beside)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of config.json: plain values (lists for tuples) that JSON can hold."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return {**fields, **self.FIXED}
