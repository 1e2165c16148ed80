"""In which order batches are drawn from buckets, and clips from each bucket."""

import dataclasses
import functools

import numpy as np

from mg.data.buckets import Bucket

__all__ = ["BUCKET_STREAM", "BucketOrder", "clip_order"]

# Streams of random numbers; 0 to 3 belong to clips and to the noise of the TAE's training.
BUCKET_STREAM, CLIP_STREAM = 4, 5


@dataclasses.dataclass(frozen=True)
class BucketOrder:
    """Every bucket's batches once per epoch, shuffled anew for each epoch, one bucket at a time.

    Args:
        num_batches: (bucket, batches per epoch) of each bucket, at least 1 each.
        seed: of the order.
    """

    num_batches: tuple[tuple[Bucket, int], ...]
    seed: int

    @property
    def num_batches_per_epoch(self) -> int:
        return sum(number for _, number in self.num_batches)

    def place(self, number: int) -> tuple[Bucket, int]:
        """Return (bucket of batch `number` of the run, how many of its batches came before)."""
        epoch, place = divmod(number, self.num_batches_per_epoch)
        order = _epoch_order(self, epoch)
        index = order[place]
        bucket, num_of_bucket = self.num_batches[index]
        return bucket, epoch * num_of_bucket + int(np.count_nonzero(order[:place] == index))


@functools.lru_cache(maxsize=4)
def _epoch_order(buckets: BucketOrder, epoch: int) -> np.ndarray:
    """Return the indices of the buckets that the batches of an epoch come from."""
    numbers = [number for _, number in buckets.num_batches]
    is_image = [bucket.is_image for bucket, _ in buckets.num_batches]
    rng = np.random.default_rng((BUCKET_STREAM, buckets.seed, epoch, int(all(is_image))))
    return rng.permutation(np.repeat(np.arange(len(numbers)), numbers))


@functools.lru_cache(maxsize=64)  # buckets are drawn from in turn
def clip_order(seed: int, bucket: Bucket, *, epoch: int, num_clips: int) -> np.ndarray:
    """Return the order in which the clips of a bucket are drawn, indices (num_clips,).

    Args:
        seed: of the run.
        bucket: each has an order of its own.
        epoch: how often all its clips have been drawn before.
        num_clips: in the bucket.
    """
    size = (bucket.num_frames, bucket.height, bucket.width)
    return np.random.default_rng((CLIP_STREAM, seed, *size, epoch)).permutation(num_clips)
