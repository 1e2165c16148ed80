"""Which of how many processes this one is."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["ONE_RANK", "Ranks", "init_ranks"]

logger = logging.getLogger("mg")

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process's number among those that work together; alone by default.

    Args:
        rank: from 0.
        size: how many there are.

    Raises:
        ValueError: no such rank.
    """

    rank: int = 0
    size: int = 1

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


ONE_RANK = Ranks()


def init_ranks() -> Ranks:
    """Return this process's rank, after connecting it to the others if there are any.

    Call it right after the device is set (`setup_device`), before any tensor is made. From then
    on ranks other than 0 log warnings and errors only. Several ranks are started by
    scripts/launch.py or by msrun; msrun runs the program once more as its scheduler, where this
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
                "scripts/launch.py or msrun, or unset RANK_SIZE to use one device"
            )
        return ONE_RANK
    expected = _expected_size(role)
    from mindspore import communication

    communication.init()  # takes hccl on Ascend, nccl on GPU, mccl on CPU
    ranks = Ranks(communication.get_rank(), communication.get_group_size())
    if ranks.size != expected:
        raise ValueError(f"MS_WORKER_NUM={expected}, but {ranks.size} ranks came together")
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
                f"MS_ROLE is set, but {name} is not; start with scripts/launch.py or msrun, or "
                "unset MS_ROLE to use one device"
            )
    size = os.environ["MS_WORKER_NUM"]
    if not size.isdigit() or int(size) < 1:
        raise ValueError(f"MS_WORKER_NUM={size!r}; expected the number of ranks")
    return int(size)
