"""Which steps of a run are batches of images, among batches of videos."""

import dataclasses

import numpy as np

__all__ = ["ImageSteps"]

KIND_STREAM = 2  # of random numbers; see `mg/data/clips.py`
# Steps over which the share of image batches is exact.
STEPS_PER_BLOCK = 64


@dataclasses.dataclass(frozen=True)
class ImageSteps:
    """Image steps at random places of a run, all ranks alike, in an exact share.

    Args:
        share: of the steps, in [0, 1].
        seed: of the places.
    """

    share: float
    seed: int

    def is_image(self, step: int) -> bool:
        """Return whether the batch of `step` is one of images."""
        return bool(self._in_block(step // STEPS_PER_BLOCK)[step % STEPS_PER_BLOCK])

    def num_before(self, step: int, *, is_image: bool) -> int:
        """Return how many of the steps before `step` are image steps (or video steps)."""
        block, rest = divmod(step, STEPS_PER_BLOCK)
        num_images = self._num_until(block) + int(self._in_block(block)[:rest].sum())
        return num_images if is_image else step - num_images

    def _in_block(self, block: int) -> np.ndarray:
        """Return which of the steps of a block are image steps, bool (STEPS_PER_BLOCK,)."""
        num_images = self._num_until(block + 1) - self._num_until(block)
        rng = np.random.default_rng((KIND_STREAM, self.seed, block))
        return rng.permutation(STEPS_PER_BLOCK) < num_images

    def _num_until(self, block: int) -> int:
        """Return how many image steps the blocks before `block` have."""
        return round(block * STEPS_PER_BLOCK * self.share)
