"""Embeddings of what a clip is given beside its latent: time, guidance and pooled text."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mg.models.hunyuan_transformer.config import HunyuanVideoConfig
from mg.models.layers.tokens import Linear, time_waves

__all__ = ["Conditions", "TimeAndText"]

WAVES = 256  # width of the embedding of a number


class NumberEmbedding(nn.Cell):
    """W_2 SiLU(W_1 waves(number)), (B, D) in fp32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(WAVES, width)
        self.linear_2 = Linear(width, width)

    def construct(self, number: Tensor) -> Tensor:
        return self.linear_2(ops.silu(self.linear_1(time_waves(number, WAVES))))


class VectorEmbedding(nn.Cell):
    """W_2 SiLU(W_1 x) of a vector per clip, (B, D) in fp32."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(in_width, width)
        self.linear_2 = Linear(width, width)

    def construct(self, x: Tensor) -> Tensor:
        return self.linear_2(ops.silu(self.linear_1(x.astype(ms.float32))))


class TimeAndText(nn.Cell):
    """Sum of the embeddings of the time and of the mean of the text's tokens."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.timestep_embedder = NumberEmbedding(config.dim)
        self.text_embedder = VectorEmbedding(config.text_embed_dim, config.dim)

    def construct(self, t: Tensor, text: Tensor) -> Tensor:
        return self.timestep_embedder(t) + self.text_embedder(text)


class Conditions(nn.Cell):
    """Sum of the embeddings of the time, the pooled text and the weight of guidance."""

    def __init__(self, config: HunyuanVideoConfig) -> None:
        super().__init__()
        self.timestep_embedder = NumberEmbedding(config.dim)
        self.has_guidance = config.guidance_embeds
        if config.guidance_embeds:
            self.guidance_embedder = NumberEmbedding(config.dim)
        self.text_embedder = VectorEmbedding(config.pooled_projection_dim, config.dim)

    def construct(self, t: Tensor, pooled: Tensor, guidance: Tensor) -> Tensor:
        """Return (B, D) of a time (B,), a pooled text (B, 1, P) and a weight (B,)."""
        time = self.timestep_embedder(t)
        if self.has_guidance:
            time = time + self.guidance_embedder(guidance)
        return time + self.text_embedder(pooled.reshape(pooled.shape[0], -1))
