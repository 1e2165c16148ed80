"""AdamW whose moments are spread over the ranks (ZeRO stage 1), inside the compiled step."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mg.parallel.collectives import broadcast_array
from mg.parallel.ranks import Ranks
from mg.training.optimizer import AdamW, state_shapes

__all__ = ["ShardedAdamW", "owner_spans"]

PER_PARAMETER = ("lr_multipliers",)  # arguments of AdamW with one value for each parameter


def owner_spans(sizes: Sequence[int], num_ranks: int) -> list[tuple[int, int]]:
    """Return (start, stop) for each rank: which of the parameters, in their order, it owns.

    A parameter belongs to the rank in whose share of all elements its middle lies, so that a rank
    has at most one parameter's elements more than its share.

    Args:
        sizes: elements of each parameter.
        num_ranks: how many ranks share them.

    Raises:
        ValueError: a rank would own nothing.
    """
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    owners = np.minimum(middles * num_ranks / sum(sizes), num_ranks - 1).astype(int)
    bounds = np.searchsorted(owners, np.arange(num_ranks + 1)).tolist()
    spans = list(itertools.pairwise(bounds))
    idle = [rank for rank, (start, stop) in enumerate(spans) if start == stop]
    if idle:
        raise ValueError(
            f"the optimiser's state of {len(sizes)} parameters cannot be shared by {num_ranks} "
            f"ranks: {idle} would have none; use fewer ranks, or do not shard the optimiser"
        )
    return spans


class ShardedAdamW(nn.Cell):
    """`AdamW`, each parameter updated by one rank, its owner, and sent from there to all.

    The result is that of `AdamW`, while each rank holds the moments of its share of the parameters
    only (ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054, section 5.1). Weights, gradients and
    averaged weights stay whole on each rank.

    Args:
        parameters: all of them, the same on every rank.
        ranks: this one among all; one rank is plain `AdamW`.
        settings: the keyword arguments of `AdamW`.

    Raises:
        ValueError: more ranks than the parameters can be shared by.
    """

    def __init__(self, parameters: list[Parameter], ranks: Ranks, **settings: Any) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.parameters = ParameterTuple(parameters)
        self.ranks = ranks
        self.spans = owner_spans([p.size for p in parameters], ranks.size)
        self.start, self.stop = self.spans[ranks.rank]
        for name in PER_PARAMETER:
            if settings.get(name):
                settings[name] = settings[name][self.start : self.stop]
        self.optimizer = AdamW(parameters[self.start : self.stop], **settings)
        self.exchange = (
            _Exchange([parameters[start:stop] for start, stop in self.spans])
            if ranks.size > 1
            else None
        )

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        """Apply one update; return how many there were.

        Args:
            gradients: of all parameters, already averaged over the ranks.
            lr: learning rate, scalar.
        """
        num_updates = self.optimizer(gradients[self.start : self.stop], lr)
        if self.exchange is None:
            return num_updates
        return self.exchange(num_updates)

    def state(self) -> dict[str, np.ndarray]:
        """Return the state of all parameters, on every rank; all ranks must call it.

        Names and shapes are those of a plain `AdamW`, so that a checkpoint does not depend on the
        number of ranks.
        """
        self.ranks.barrier()
        own, state = self.optimizer.state(), {}
        for root, (start, stop) in enumerate(self.spans):
            for name, shape in state_shapes(self.parameters[start:stop]).items():
                mine = own.get(name, np.zeros(shape, np.float32)).reshape(-1)
                state[name] = broadcast_array(mine, self.ranks, root=root).reshape(shape).copy()
        return state

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `state`, by name."""
        return state_shapes(self.parameters)

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take this rank's part of a whole state; parameters that it lacks start anew."""
        self.optimizer.load_state(arrays)


class _Exchange(nn.Cell):
    """Sets the parameters of each owner on all ranks to its values; returns what it is given."""

    def __init__(self, groups: list[list[Parameter]]) -> None:
        super().__init__(auto_prefix=False)
        self.num_groups = len(groups)
        self.senders = nn.CellList(
            [_Sender(group, root) for root, group in enumerate(groups)], auto_prefix=False
        )

    def construct(self, after: Tensor) -> Tensor:
        # Each rank updates other parameters, so graphs differ, and with them the order that the
        # compiler gives to collectives that do not depend on each other.
        for root in range(self.num_groups):
            after = self.senders[root](after)
        return after


class _Sender(nn.Cell):
    """Sends parameters from one rank to all after a tensor exists; returns the tensor."""

    def __init__(self, parameters: list[Parameter], root: int) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.broadcast = ops.Broadcast(root)
        self.map = ops.HyperMap()

    def construct(self, after: Tensor) -> Tensor:
        values = self.broadcast(ops.depend(self.parameters, after))
        return ops.depend(after, self.map(_set, self.parameters, values))


def _set(parameter, value):
    return ops.assign(parameter, value)
