"""What every denoiser's config says, whichever family it belongs to; needs no MindSpore."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mg.size_limits import MAX_WIDTH, check_sizes
from mg.type_checks import check_positive, check_whole

__all__ = [
    "DenoiserConfig",
    "TextInput",
    "check_positive",
    "check_whole",
    "equal_share",
    "grid_and_text",
    "grid_of_patches",
    "text_input",
]

MAX_TOKENS = 1 << 16  # of a text


def grid_of_patches(
    latent_shape: Sequence[int], channels: int, patch: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return the patches of a latent (B, C, T, H, W) along frames, height and width.

    Raises:
        ValueError: another number of axes or channels, or a size that the patch does not divide.
    """
    shape = tuple(latent_shape)
    if len(shape) != 5 or shape[1] != channels or min(shape) < 1:
        raise ValueError(
            f"expected a latent (batch, {channels}, frames, height, width), got {shape}"
        )
    for axis, size, side in zip(("frames", "height", "width"), shape[2:], patch, strict=True):
        if size % side:
            raise ValueError(
                f"the latent's {axis} {size} is not a multiple of the patch's {side}; the latent "
                f"is {shape}, the patch {tuple(patch)}"
            )
    return tuple(size // side for size, side in zip(shape[2:], patch, strict=True))


def grid_and_text(
    config: "DenoiserConfig", latent: Sequence[int], t: Sequence[int], *conditions: Sequence[int]
) -> tuple[tuple[int, int, int], tuple[Sequence[int], ...]]:
    """Return the token grid of a latent and the shapes of the conditions that are text.

    Args:
        config: of the network.
        latent, t, conditions: shapes of the network's inputs.

    Raises:
        ValueError: latent, t, or the condition on the latent's channel axis does not fit.
    """
    grid = config.token_grid(latent)
    if tuple(t) != (latent[0],):
        raise ValueError(f"t has the shape {tuple(t)}, expected ({latent[0]},): one per clip")
    if not config.condition_channels:
        return grid, conditions
    expected = (latent[0], config.condition_channels, *latent[2:])
    found = tuple(conditions[-1]) if conditions else None
    if found != expected:
        raise ValueError(
            f"the last condition lies on the latent's channel axis: expected {expected}, got "
            f"{found}"
        )
    return grid, conditions[:-1]


def equal_share(num_tokens: int, num_ranks: int, **heads: int) -> int:
    """Return how many tokens each of so many ranks has, which share the heads as well.

    Args:
        num_tokens: of an input.
        num_ranks: 1 or more.
        heads: their number, by its name in the config.

    Raises:
        ValueError: they cannot share the heads or the tokens equally.
    """
    for what, number in {**heads, "number of tokens": num_tokens}.items():
        if number % num_ranks:
            raise ValueError(
                f"the {what}, {number}, cannot be shared equally by sequence_parallel="
                f"{num_ranks} ranks; take a number of ranks that divides it"
            )
    return num_tokens // num_ranks


@dataclasses.dataclass(frozen=True)
class TextInput:
    """One text encoder, as the network sees it.

    Args:
        name: name of the encoder.
        width: numbers per token.
        max_tokens: longest text, in tokens.
    """

    name: str
    width: int
    max_tokens: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a text encoder's name is {self.name!r}; expected text")
        check_whole(self, ("width", "max_tokens"), f"text encoder {self.name}: ")
        check_sizes(self, {"width": MAX_WIDTH, "max_tokens": MAX_TOKENS})


def text_input(item: object) -> TextInput:
    """Return a `TextInput` from one, or from a mapping with its fields.

    Raises:
        ValueError: neither.
    """
    if isinstance(item, TextInput):
        return item
    known = [field.name for field in dataclasses.fields(TextInput)]
    if not isinstance(item, Mapping) or set(item) != set(known):
        raise ValueError(f"a text encoder is {item!r}; expected a mapping with the keys {known}")
    return TextInput(**item)


class DenoiserConfig(Protocol):
    """What training and generation need to know of a denoiser; a frozen dataclass has it.

    Attributes:
        latent_channels: C of the latents that it denoises.
        patch: latent pixels per token along frames, height and width; sizes of latents are
            multiples of these.
        text_encoders: what it is conditioned on, in the order of its arguments.
        condition_channels: of the condition beside the latent, its last argument; 0 for none.
    """

    latent_channels: int
    patch: tuple[int, int, int]
    text_encoders: tuple[TextInput, ...]
    condition_channels: int

    def token_grid(self, latent_shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the tokens of a latent (B, C, T, H, W) along frames, height and width.

        Raises:
            ValueError: a latent that the network cannot take, with what would fit.
        """

    def tokens_per_rank(self, num_tokens: int, num_ranks: int) -> int:
        """Return how many tokens of an input each of so many ranks has (sequence parallel).

        Raises:
            ValueError: they cannot share the tokens, or the network's heads, equally.
        """

    def check_inputs(
        self, latent: Sequence[int], t: Sequence[int], *conditions: Sequence[int]
    ) -> tuple[int, int, int]:
        """Return `token_grid` of a latent if tensors of these shapes fit the network.

        Raises:
            ValueError: they do not; the message names the tensor, its shape and the right one.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that YAML and JSON can hold."""
