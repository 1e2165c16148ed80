"""What encoder and decoder share: the blocks of a level, and the middle."""

from mindspore import Tensor, nn

from mg.models.tae.config import TAEConfig
from mg.models.tae.layers import ResnetBlock, make_attention

__all__ = ["Level", "Middle"]


def norm_options(config: TAEConfig) -> dict:
    """Return what the config says of normalisation, as keyword arguments of a block."""
    return {"norm_groups": config.norm_groups, "norm_per_frame": config.norm_per_frame}


class Level(nn.Cell):
    """The residual blocks of one level, each followed by attention if the config asks for it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int,
        level: int,
        config: TAEConfig,
    ) -> None:
        super().__init__()
        self.num_blocks = num_blocks
        norm = norm_options(config)
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.CellList(
            [
                ResnetBlock(widths[i], widths[i + 1], dropout=config.dropout, **norm)
                for i in range(num_blocks)
            ]
        )
        self.attn = None
        if config.resolution // 2**level in config.attn_resolutions:
            self.attn = nn.CellList(
                [make_attention(out_channels, config.attn_type, **norm) for _ in range(num_blocks)]
            )

    def through_blocks(self, x: Tensor, num_frames: int) -> Tensor:
        for i in range(self.num_blocks):
            x = self.block[i](x, num_frames)
            if self.attn is not None:
                for attention in self.attn[i]:
                    x = attention(x, num_frames)
        return x


class Middle(nn.Cell):
    """Block, attention over space and time, block; in the middle of encoder and decoder."""

    def __init__(self, channels: int, *, config: TAEConfig) -> None:
        super().__init__()
        norm = norm_options(config)
        self.block_1 = ResnetBlock(channels, channels, dropout=config.dropout, **norm)
        self.attn_1 = make_attention(channels, config.attn_type, **norm)
        self.block_2 = ResnetBlock(channels, channels, dropout=config.dropout, **norm)

    def construct(self, x: Tensor, num_frames: int) -> Tensor:
        x = self.block_1(x, num_frames)
        for attention in self.attn_1:
            x = attention(x, num_frames)
        return self.block_2(x, num_frames)
