"""What every condition is: `Condition`.

A network takes the tensors of its conditions in a fixed order behind latent and time: of each text
encoder in turn, then those that lie on the latent's channel axis.
"""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Condition"]

LatentShape = tuple[int, int, int, int]  # (C, T', H', W') of one clip


class Condition(abc.ABC):
    """One thing that a video depends on, as the network gets it.

    Attributes:
        name: what settings and messages call it.
        identity: all that decides its tensors, for records; conditions of one identity are equal.
    """

    name: str
    identity: str

    @abc.abstractmethod
    def check(self, given: Sequence[Any]) -> None:
        """Raise ValueError or FileNotFoundError unless a batch of these can be made.

        Args:
            given: one per clip, None where the clip is without.
        """

    @abc.abstractmethod
    def batch(self, given: Sequence[Any], latent_shape: LatentShape) -> tuple[np.ndarray, ...]:
        """Return the tensors of a batch, clips along the first axis.

        Args:
            given: one per clip; where it is None the condition is dropped.
            latent_shape: (C, T', H', W') of the clips.
        """

    def empty(self, num_clips: int, latent_shape: LatentShape) -> tuple[np.ndarray, ...]:
        """Return the tensors of clips that are all without the condition."""
        return self.batch([None] * num_clips, latent_shape)
