"""What a CogVideoX transformer is made of: its config, as diffusers writes it, and the presets.

Source: CogVideoX (arXiv 2408.06072) section 2.3; the fields are those of its config.json.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mg.models.denoiser_config import TextInput, check_positive, check_whole, grid_and_text
from mg.models.diffusers_transformer_config import DiffusersTransformerConfig

__all__ = ["PRESETS", "CogVideoXConfig"]


@dataclasses.dataclass(frozen=True)
class CogVideoXConfig(DiffusersTransformerConfig):
    """The structure of a CogVideoX transformer; the fields are those of its config.json.

    Attributes:
        num_layers: transformer blocks.
        num_attention_heads: heads of every attention; the width of a token is their number times
            `attention_head_dim`.
        attention_head_dim: width of a head.
        in_channels: channels that go in: the latent's, and those of a condition beside it.
        out_channels: channels of the latent.
        time_embed_dim: width of the embedding of the time.
        ofs_embed_dim: width of the embedding of the image-to-video offset (CogVideoX 1.5); null
            for none.
        text_embed_dim: width of the text encoder's embedding.
        max_text_seq_length: longest text, in tokens.
        patch_size: side of a token's patch along height and width, in pixels of the latent.
        patch_size_t: frames of the latent in a token (CogVideoX 1.5: 2); null for one.
        patch_bias: whether the layer that makes tokens of patches has a bias.
        sample_width, sample_height: size of the latents that the network was trained on.
        sample_frames: frames of the videos that the network was trained on.
        temporal_compression_ratio: frames of video per frame of the latent.
        spatial_interpolation_scale, temporal_interpolation_scale: divisors of the places of
            sinusoidal positions, in space and in time.
        use_rotary_positional_embeddings: whether positions are rotary, in place of sinusoidal
            ones that are added.
        dropout: dropout rate, always 0.
        norm_eps: epsilon of every LayerNorm.
        flip_sin_to_cos, freq_shift: layout of the embedding of the time; fixed.
        activation_fn: activation of the feed-forward layers; fixed.
        timestep_activation_fn: activation in the embedding of the time; fixed.
        norm_elementwise_affine: whether a LayerNorm has weights; fixed.
        use_learned_positional_embeddings: whether positions are learned; fixed.
        attention_bias: whether queries, keys and values have a bias; fixed.

    Raises:
        ValueError: a value that no network can be built from, with what to change.
    """

    NAME: ClassVar[str] = "CogVideoX"
    FIXED: ClassVar[Mapping[str, Any]] = {
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "activation_fn": "gelu-approximate",
        "timestep_activation_fn": "silu",
        "norm_elementwise_affine": True,
        "use_learned_positional_embeddings": False,
        "attention_bias": True,
    }

    num_layers: int = 30
    num_attention_heads: int = 30
    attention_head_dim: int = 64
    in_channels: int = 16
    out_channels: int = 16
    time_embed_dim: int = 512
    ofs_embed_dim: int | None = None
    text_embed_dim: int = 4096
    max_text_seq_length: int = 226
    patch_size: int = 2
    patch_size_t: int | None = None
    patch_bias: bool = True
    sample_width: int = 90
    sample_height: int = 60
    sample_frames: int = 49
    temporal_compression_ratio: int = 4
    spatial_interpolation_scale: float = 1.875
    temporal_interpolation_scale: float = 1.0
    use_rotary_positional_embeddings: bool = False
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        whole = [
            *("num_layers", "num_attention_heads", "attention_head_dim", "in_channels"),
            *("out_channels", "time_embed_dim", "text_embed_dim", "max_text_seq_length"),
            *("patch_size", "sample_width", "sample_height", "sample_frames"),
            "temporal_compression_ratio",
        ]
        optional = [n for n in ("ofs_embed_dim", "patch_size_t") if getattr(self, n) is not None]
        check_whole(self, [*whole, *optional])
        self.check_channels()
        for name in ("patch_bias", "use_rotary_positional_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; expected true or false")
        check_positive(
            self, ("spatial_interpolation_scale", "temporal_interpolation_scale", "norm_eps")
        )
        if self.dropout != 0:
            raise ValueError(f"dropout={self.dropout!r}; the published networks have 0")
        if self.use_rotary_positional_embeddings and self.attention_head_dim % 16:
            raise ValueError(
                f"attention_head_dim={self.attention_head_dim}: rotary positions share it as "
                "1/4, 3/8, 3/8, so it must be a multiple of 16"
            )
        if not self.use_rotary_positional_embeddings and self.dim % 16:
            raise ValueError(
                f"the width {self.dim} (heads x head_dim) must be a multiple of 16 for the "
                "positions of frames, rows and columns"
            )
        if self.ofs_embed_dim is not None and self.ofs_embed_dim != self.time_embed_dim:
            raise ValueError(
                f"ofs_embed_dim={self.ofs_embed_dim} differs from time_embed_dim="
                f"{self.time_embed_dim}; the two embeddings are added"
            )

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the latent in one token."""
        return self.patch_size_t or 1, self.patch_size, self.patch_size

    @property
    def text_encoders(self) -> tuple[TextInput, ...]:
        return (TextInput("t5", self.text_embed_dim, self.max_text_seq_length),)

    def check_inputs(
        self, latent: Sequence[int], t: Sequence[int], *conditions: Sequence[int]
    ) -> tuple[int, int, int]:
        """Return `token_grid` of a latent if tensors of these shapes fit the network.

        Args:
            latent: (B, C, T, H, W).
            t: (B,).
            conditions: embedding (B, L, text_embed_dim); its mask (B, L), which is not used; the
                offset (B,) of a network that has one; with more channels in than out the condition
                beside the latent (B, C_c, T, H, W).

        Raises:
            ValueError: they do not; the message names the tensor, its shape and the right one.
        """
        grid, text = grid_and_text(self, latent, t, *conditions)
        if len(text) not in (1, 2, 3):
            raise ValueError(f"expected a text embedding and its mask, got {len(text)} tensors")
        values = tuple(text[0])
        right = len(values) == 3 and values[::2] == (latent[0], self.text_embed_dim)
        if not right or not 1 <= values[1] <= self.max_text_seq_length:
            raise ValueError(
                f"expected a text embedding (batch {latent[0]}, at most "
                f"{self.max_text_seq_length} tokens, width {self.text_embed_dim}), got {values}"
            )
        return grid

    @classmethod
    def presets(cls) -> "dict[str, CogVideoXConfig]":
        return PRESETS

    @staticmethod
    def text_fields(encoders: Sequence[TextInput]) -> dict[str, int]:
        if len(encoders) != 1:
            raise ValueError(f"CogVideoX takes one text encoder, got {len(encoders)}")
        return {
            "text_embed_dim": encoders[0].width,
            "max_text_seq_length": encoders[0].max_tokens,
        }


PRESETS: dict[str, CogVideoXConfig] = {
    "tiny": CogVideoXConfig(
        num_layers=4,
        num_attention_heads=4,
        time_embed_dim=128,
        text_embed_dim=256,
        max_text_seq_length=16,
        sample_width=8,
        sample_height=8,
        sample_frames=16,
        use_rotary_positional_embeddings=True,
    ),
    "100m": CogVideoXConfig(num_layers=8, num_attention_heads=16, text_embed_dim=256),
    "2b": CogVideoXConfig(),
    "5b": CogVideoXConfig(
        num_layers=42, num_attention_heads=48, use_rotary_positional_embeddings=True
    ),
    "1.5-5b": CogVideoXConfig(
        num_layers=42,
        num_attention_heads=48,
        use_rotary_positional_embeddings=True,
        patch_size_t=2,
        patch_bias=False,
        sample_width=300,
        sample_height=300,
        sample_frames=81,
    ),
}
