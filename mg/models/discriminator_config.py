"""What a discriminator is made of: its config, checked on creation."""

import dataclasses

from mg.models.size_limits import MAX_WIDTH, check_num_parameters, check_sizes

__all__ = ["DISCRIMINATOR_KINDS", "DiscriminatorConfig"]

DISCRIMINATOR_KINDS = ("frames", "video")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The structure of a discriminator.

    A logit sees 7 * 2^num_layers - 2 pixels across: 54 with 3 layers.

    Args:
        kind: "frames" judges each frame by itself; "video" judges motion too: each layer that
            halves H and W also halves T, by a convolution over 3 frames that follows the spatial
            one (2.5-D, never a 3-D convolution). A logit then sees 2^(num_layers + 1) - 1 frames.
        ch: channels of the first layer; each further one has twice as many.
        num_layers: how many layers halve H and W.
        max_multiple: most channels of a layer, as a multiple of `ch`.
        norm_groups: groups of every GroupNorm; 0 for no normalisation.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    kind: str = "frames"
    ch: int = 64
    num_layers: int = 3
    max_multiple: int = 8
    norm_groups: int = 32

    def __post_init__(self) -> None:
        if self.kind not in DISCRIMINATOR_KINDS:
            raise ValueError(
                f"kind={self.kind!r}; expected one of {', '.join(DISCRIMINATOR_KINDS)}"
            )
        for name, least in (("ch", 1), ("num_layers", 1), ("max_multiple", 1), ("norm_groups", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r}; expected a whole number of {least} or more")
        check_sizes(self, {"ch": MAX_WIDTH, "num_layers": 16, "max_multiple": MAX_WIDTH})
        check_num_parameters(27 * max(self.widths) ** 2)
        wrong = [
            width for width in self.widths[1:] if self.norm_groups and width % self.norm_groups
        ]
        if wrong:
            raise ValueError(
                f"ch={self.ch} with max_multiple={self.max_multiple} gives layers of {wrong} "
                f"channels; GroupNorm needs multiples of norm_groups={self.norm_groups} "
                "(0 leaves it out)"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each layer but the last one, which gives the logits."""
        multiples = (min(2**layer, self.max_multiple) for layer in range(self.num_layers + 1))
        return tuple(self.ch * multiple for multiple in multiples)

    @property
    def min_size(self) -> int:
        """The smallest height and width, in pixels, that leave one logit."""
        return 2**self.num_layers
