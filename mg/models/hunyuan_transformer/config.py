"""What a HunyuanVideo transformer is made of: its config, as diffusers writes it, and the presets.

Source: HunyuanVideo (arXiv 2412.03603) section 4.2; the fields are those of its config.json.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mg.models.denoiser_config import TextInput, check_positive, check_whole, grid_and_text
from mg.models.diffusers_transformer_config import DiffusersTransformerConfig

__all__ = ["PRESETS", "HunyuanVideoConfig"]

MAX_TEXT_TOKENS = 256


@dataclasses.dataclass(frozen=True)
class HunyuanVideoConfig(DiffusersTransformerConfig):
    """The structure of a HunyuanVideo transformer; the fields are those of its config.json.

    Attributes:
        in_channels: channels that go in: the latent's, and those of a condition beside it.
        out_channels: channels of the latent.
        num_attention_heads: heads of every attention; the width of a token is their number times
            `attention_head_dim`.
        attention_head_dim: width of a head.
        num_layers: blocks in which text and video have weights of their own.
        num_single_layers: blocks in which text and video share weights.
        num_refiner_layers: blocks that refine the text before it meets the video.
        mlp_ratio: inner width of the feed-forward layers, as a multiple of a token's width.
        patch_size: side of a token's patch along height and width, in pixels of the latent.
        patch_size_t: frames of the latent in a token.
        guidance_embeds: whether the weight of guidance is an input.
        text_embed_dim: width of the first text encoder's embedding.
        pooled_projection_dim: width of the second text encoder's pooled embedding.
        rope_theta: base of the frequencies of rotary positions.
        rope_axes_dim: numbers of a head that rotary positions turn by frames, rows and columns.
        qk_norm: normalisation of queries and keys; fixed.
        image_condition_type: kind of image-to-video conditioning; fixed.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    NAME: ClassVar[str] = "HunyuanVideo"
    FIXED: ClassVar[Mapping[str, Any]] = {"qk_norm": "rms_norm", "image_condition_type": None}

    in_channels: int = 16
    out_channels: int = 16
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    num_layers: int = 20
    num_single_layers: int = 40
    num_refiner_layers: int = 2
    mlp_ratio: float = 4.0
    patch_size: int = 2
    patch_size_t: int = 1
    guidance_embeds: bool = True
    text_embed_dim: int = 4096
    pooled_projection_dim: int = 768
    rope_theta: float = 256.0
    rope_axes_dim: tuple[int, int, int] = (16, 56, 56)

    def __post_init__(self) -> None:
        check_whole(
            self,
            (
                *("in_channels", "out_channels", "num_attention_heads", "attention_head_dim"),
                *("num_layers", "num_single_layers", "num_refiner_layers", "patch_size"),
                *("patch_size_t", "text_embed_dim", "pooled_projection_dim"),
            ),
        )
        self.check_channels()
        if not isinstance(self.guidance_embeds, bool):
            raise ValueError(f"guidance_embeds={self.guidance_embeds!r}; expected true or false")
        check_positive(self, ("mlp_ratio", "rope_theta"))
        axes = self.rope_axes_dim
        right = isinstance(axes, Sequence) and not isinstance(axes, str) and len(axes) == 3
        if not right or any(type(size) is not int or size < 2 or size % 2 for size in axes):
            raise ValueError(f"rope_axes_dim={axes!r}; expected three even whole numbers")
        object.__setattr__(self, "rope_axes_dim", tuple(axes))
        if sum(axes) != self.attention_head_dim:
            raise ValueError(
                f"rope_axes_dim={tuple(axes)} sums to {sum(axes)}; expected attention_head_dim="
                f"{self.attention_head_dim}"
            )

    @property
    def mlp_dim(self) -> int:
        """Inner width of the feed-forward layers."""
        return int(self.dim * self.mlp_ratio)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the latent in one token."""
        return self.patch_size_t, self.patch_size, self.patch_size

    @property
    def text_encoders(self) -> tuple[TextInput, ...]:
        return (
            TextInput("llama", self.text_embed_dim, MAX_TEXT_TOKENS),
            TextInput("clip", self.pooled_projection_dim, 1),
        )

    def check_inputs(
        self, latent: Sequence[int], t: Sequence[int], *conditions: Sequence[int]
    ) -> tuple[int, int, int]:
        """Return `token_grid` of a latent if tensors of these shapes fit the network.

        Args:
            latent: (B, C, T, H, W).
            t: (B,).
            conditions: text embedding (B, L, text_embed_dim) and mask (B, L); pooled embedding
                (B, 1, pooled_projection_dim) and mask (B, 1); the weight of guidance (B,), if any;
                with more channels in than out the condition beside the latent (B, C_c, T, H, W).

        Raises:
            ValueError: they do not; the message names the tensor, its shape and the right one.
        """
        grid, conditions = grid_and_text(self, latent, t, *conditions)
        batch = latent[0]
        if len(conditions) not in (4, 5):
            raise ValueError(
                "expected embedding and mask of the text, and of the pooled text, got "
                f"{len(conditions)} tensors"
            )
        for encoder, values, mask in zip(
            self.text_encoders, conditions[0:4:2], conditions[1:4:2], strict=True
        ):
            values, mask = tuple(values), tuple(mask)
            right = len(values) == 3 and values[::2] == (batch, encoder.width)
            pooled = encoder.max_tokens == 1
            if not right or mask != values[:2] or (pooled and values[1] != 1):
                raise ValueError(
                    f"{encoder.name}: expected an embedding (batch {batch}, "
                    f"{'1 token' if pooled else 'tokens'}, width {encoder.width}) and a mask "
                    f"(batch, tokens), got {values} and {mask}"
                )
        return grid

    @classmethod
    def presets(cls) -> "dict[str, HunyuanVideoConfig]":
        return PRESETS

    @staticmethod
    def text_fields(encoders: Sequence[TextInput]) -> dict[str, int]:
        if len(encoders) != 2 or encoders[1].max_tokens != 1:
            raise ValueError(
                "HunyuanVideo takes two text encoders, the second one with a single token "
                f"(pooled); got {[(encoder.name, encoder.max_tokens) for encoder in encoders]}"
            )
        return {
            "text_embed_dim": encoders[0].width,
            "pooled_projection_dim": encoders[1].width,
        }


PRESETS: dict[str, HunyuanVideoConfig] = {
    "tiny": HunyuanVideoConfig(
        num_attention_heads=4,
        attention_head_dim=64,
        num_layers=2,
        num_single_layers=3,
        num_refiner_layers=1,
        guidance_embeds=False,
        text_embed_dim=256,
        pooled_projection_dim=256,
        rope_axes_dim=(16, 24, 24),
    ),
    "100m": HunyuanVideoConfig(
        num_attention_heads=6,
        num_layers=4,
        num_single_layers=6,
        num_refiner_layers=1,
        text_embed_dim=256,
        pooled_projection_dim=256,
    ),
    "13b": HunyuanVideoConfig(),
}
