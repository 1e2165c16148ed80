"""Which of how many processes this one is."""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from mg.parallel.channel import Channel
from mg.parallel.end_with_parent import end_with_msrun

__all__ = ["ONE_RANK", "Ranks", "init_ranks"]

logger = logging.getLogger("mg")

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process's number among those that work together; alone by default.

    Args:
        rank: from 0.
        size: how many there are.
        channel: messages to the others; `init_ranks` makes it.

    Raises:
        ValueError: no such rank.
    """

    rank: int = 0
    size: int = 1
    channel: Channel | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must lie in [0, {self.size}), not {self.rank}")

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone logs and writes what all share."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return every `size`-th item from number `rank` on: this rank's part of the work."""
        return list(items[self.rank :: self.size])

    def gather_json(self, value: Any) -> list[Any]:
        """Return the values of all ranks in their order, on each rank; all ranks must call it.

        Args:
            value: anything that JSON can hold.
        """
        if self.channel is None:
            return [value]
        return [json.loads(text) for text in self.channel.gather(json.dumps(value).encode())]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any rank; all ranks must call it, and get one answer.

        So that one that got a signal to stop and those that did not stop after the same step.
        """
        return any(self.gather_json(flag))

    def barrier(self) -> None:
        """Return once all ranks have called it, however long that takes."""
        self.gather_json(None)


ONE_RANK = Ranks()


def init_ranks() -> Ranks:
    """Return this process's rank, after connecting it to the others if there are any.

    Call it right after the device is set (`setup_device`), before any tensor is made. From then
    on ranks other than 0 log warnings and errors only. Several ranks are started by
    mg launch or by msrun; msrun runs the program once more as its scheduler, where this
    call does not return: the process ends in it with the run.

    Raises:
        ValueError: variables of the launcher that are missing or wrong, or several processes
            that were started otherwise.
    """
    role = os.environ.get("MS_ROLE")
    if role is None:
        size = os.environ.get("RANK_SIZE", "1")
        if size != "1":
            raise ValueError(
                f"RANK_SIZE={size}, but this process was not started by msrun; start it with "
                "mg launch or msrun, or unset RANK_SIZE to use one device"
            )
        return ONE_RANK
    expected = _expected_size(role)
    end_with_msrun()
    from mindspore import communication

    communication.init()  # takes hccl on Ascend, nccl on GPU, mccl on CPU
    rank, size = communication.get_rank(), communication.get_group_size()
    if size != expected:
        raise ValueError(f"MS_WORKER_NUM={expected}, but {size} ranks came together")
    channel = Channel(rank, size, os.environ["MS_SCHED_HOST"]) if size > 1 else None
    ranks = Ranks(rank, size, channel)
    if not ranks.is_main:
        logger.setLevel(logging.WARNING)
    logger.info("Running on %d ranks.", ranks.size)
    return ranks


def _expected_size(role: str) -> int:
    """Return the number of ranks that msrun has announced, after checking its variables."""
    if role not in ("MS_WORKER", "MS_SCHED"):
        raise ValueError(f"MS_ROLE={role!r}; expected MS_WORKER or MS_SCHED, as msrun sets it")
    for name in ("MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT"):
        if not os.environ.get(name):
            raise ValueError(
                f"MS_ROLE is set, but {name} is not; start with mg launch or msrun, or "
                "unset MS_ROLE to use one device"
            )
    size = os.environ["MS_WORKER_NUM"]
    if not size.isdigit() or int(size) < 1:
        raise ValueError(f"MS_WORKER_NUM={size!r}; expected the number of ranks")
    return int(size)
