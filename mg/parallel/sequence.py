"""Sequence parallel (DeepSpeed-Ulysses, arXiv 2309.14509): ranks that share one batch's tokens.

Each rank has a part of the tokens. Around self-attention, where each token meets all others, the
ranks exchange (all-to-all) tokens for heads: there each has all tokens of a part of the heads.
Where text tokens attend together with those of the video, each rank has all of the text.
"""

from mindspore import Tensor, nn, ops

from mg.parallel.device_collectives import AllToAll, Group, GroupGather
from mg.parallel.ranks import Ranks

__all__ = ["JointExchange", "SequenceParallel", "data_ranks"]


def data_ranks(ranks: Ranks, size: int) -> Ranks:
    """Return which group of ranks this one is in, among all groups that have a batch each.

    Args:
        ranks: all of them.
        size: ranks of a group; they have the same data.

    Raises:
        ValueError: the ranks do not make whole groups.
    """
    if ranks.size % size:
        raise ValueError(
            f"sequence_parallel={size} with {ranks.size} ranks: their number must be a multiple "
            "of it, since so many ranks share each batch; start more, or lower sequence_parallel"
        )
    return Ranks(ranks.rank // size, ranks.size // size)


class SequenceParallel(nn.Cell):
    """The exchanges of a group of ranks, all parts of which have equally many tokens and heads.

    Gradients: the loss of a group is computed on each of its ranks from all tokens, and the
    gradients of parameters on one rank come from its own tokens alone. They are made `size` times
    as large (in `gather`), so that their mean over all ranks is that of the groups' gradients.

    Args:
        ranks: all of them; groups are `size` in a row.
        size: ranks of a group, 2 or more.

    Raises:
        ValueError: the ranks do not make whole groups.
    """

    def __init__(self, ranks: Ranks, size: int) -> None:
        super().__init__(auto_prefix=False)
        data_ranks(ranks, size)  # which refuses
        group = Group(ranks, size)
        self.size, self.rank = size, group.rank
        # Tokens are axis 1, heads axis 2.
        self.tokens_to_heads = AllToAll(group, split_axis=2, join_axis=1)
        self.heads_to_tokens = AllToAll(group, split_axis=1, join_axis=2)
        self.gather_tokens = _GatherTokens(group)

    def own(self, tokens: Tensor, num_tokens: int) -> Tensor:
        """Return this rank's part of tokens (B, L, D), which has `num_tokens`, L / size."""
        return tokens[:, self.rank * num_tokens : (self.rank + 1) * num_tokens]

    def gather(self, tokens: Tensor) -> Tensor:
        """Return all tokens (B, L, D) from each rank's part (B, L / size, D)."""
        return self.gather_tokens(tokens)

    def to_heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Return all three as (B, L, H / size, d); they are (B, L / size, H, d)."""
        # As one, so that ranks cannot exchange them in different orders.
        joined = self.tokens_to_heads(ops.concat((query, key, value), axis=0))
        return ops.split(joined, query.shape[0], axis=0)

    def to_tokens(self, mixed: Tensor, num_heads: int) -> Tensor:
        """Return (B, L / size, D) of what attention gave for this rank's heads (B, L, D / size)."""
        batch, length, width = mixed.shape
        own_heads = num_heads // self.size
        mixed = mixed.reshape(batch, length, own_heads, width // own_heads)
        mixed = self.heads_to_tokens(mixed)  # (B, L / size, H, d)
        return mixed.reshape(batch, length // self.size, width * self.size)


class JointExchange(nn.Cell):
    """The exchanges around attention of the video's tokens and the text's to all of them.

    Outside of attention a rank has its part of the video's tokens and all of the text's. In it, it
    has all of both, of its heads; afterwards it needs what the other ranks' heads gave the text.

    Gradients: the text is the same on each rank, its gradient there a part of the whole: what
    comes through the rank's own video tokens and heads. Like those of parameters these parts are
    `size` times as large, and their mean over the ranks is the whole. In between, the exchange
    back gives each rank the sum of all parts for its heads.

    Args:
        sequence: the ranks.
        num_heads: H, of all ranks.
        text_first: whether the text's tokens come before the video's, or after them.
    """

    def __init__(self, sequence: SequenceParallel, num_heads: int, *, text_first: bool) -> None:
        super().__init__(auto_prefix=False)
        self.sequence = sequence
        self.size, self.num_heads, self.text_first = sequence.size, num_heads, text_first
        own_heads = num_heads // sequence.size
        self.first, self.last = sequence.rank * own_heads, (sequence.rank + 1) * own_heads

    def to_heads(
        self, query: Tensor, key: Tensor, value: Tensor, num_text: int
    ) -> tuple[Tensor, ...]:
        """Return all three as (B, L + L_t, H / size, d); they are (B, L / size + L_t, H, d)."""
        joined = ops.concat((query, key, value), axis=0)
        video, text = self.apart(joined, num_text)
        video = self.sequence.tokens_to_heads(video)
        joined = self.together(video, text[:, :, self.first : self.last])
        return ops.split(joined, query.shape[0], axis=0)

    def to_tokens(self, mixed: Tensor, num_text: int) -> Tensor:
        """Return (B, L / size + L_t, D) of what attention gave for this rank's heads.

        Args:
            mixed: (B, L + L_t, D / size).
            num_text: L_t.
        """
        video, text = self.apart(mixed, num_text)
        batch, length, width = video.shape
        # As one exchange: to each rank its part of the video, and all of the text.
        parts = video.reshape(batch, self.size, length // self.size, width)
        copies = ops.broadcast_to(
            text.reshape(batch, 1, num_text, width), (batch, self.size, num_text, width)
        )
        mixed = ops.concat((copies, parts) if self.text_first else (parts, copies), axis=2)
        return self.sequence.to_tokens(mixed.reshape(batch, -1, width), self.num_heads)

    def apart(self, tokens: Tensor, num_text: int) -> tuple[Tensor, Tensor]:
        """Return the tokens of the video and of the text, of both in a row."""
        if self.text_first:
            return tokens[:, num_text:], tokens[:, :num_text]
        num_video = tokens.shape[1] - num_text
        return tokens[:, :num_video], tokens[:, num_video:]

    def together(self, video: Tensor, text: Tensor) -> Tensor:
        """Return both in a row; undoes `apart`."""
        return ops.concat((text, video) if self.text_first else (video, text), axis=1)


class _GatherTokens(nn.Cell):
    """All tokens of the group; the gradient is `size` times that of this rank's part."""

    def __init__(self, group: Group) -> None:
        super().__init__(auto_prefix=False)
        self.rank, self.size = group.rank, group.size
        self.all_gather = GroupGather(group)
        self.split = ops.Split(axis=1, output_num=group.size)

    def construct(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        parts = self.all_gather(tokens).reshape(self.size, batch, length, width)
        return ops.transpose(parts, (1, 0, 2, 3)).reshape(batch, self.size * length, width)

    def bprop(self, tokens: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.split(dout)[self.rank] * self.size,)
