"""What an encoder says of a video: a Gaussian over latents, one mean and variance per number."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from mg.latent_spec import LOGVAR_MAX, LOGVAR_MIN

__all__ = ["Posterior"]


class Posterior:
    """The posterior N(mean, exp(logvar)) of a video's latent, unscaled.

    Args:
        mean: (B, C, T', H', W') float32.
        logvar: the same shape; it is clamped to [-30, 20].
        num_frames: frames of the video that was encoded, so that decoding gives as many; None if
            it is not known.

    Raises:
        ValueError: the two shapes differ.
    """

    def __init__(self, mean: Tensor, logvar: Tensor, *, num_frames: int | None = None) -> None:
        if tuple(mean.shape) != tuple(logvar.shape):
            raise ValueError(
                f"mean is {tuple(mean.shape)} and logvar is {tuple(logvar.shape)}; expected the "
                "same shape"
            )
        self.mean = mean.astype(ms.float32)
        self.logvar = ops.clamp(logvar.astype(ms.float32), LOGVAR_MIN, LOGVAR_MAX)
        self.num_frames = num_frames

    @property
    def std(self) -> Tensor:
        """Standard deviations, (B, C, T', H', W')."""
        return ops.exp(0.5 * self.logvar)

    def sample(self, seed: int) -> Tensor:
        """Return a latent drawn from the posterior; the same for the same seed, on every device.

        Args:
            seed: a whole number of 0 or more.
        """
        # Philox is keyed, not stepped: neighbouring seeds give unrelated noise.
        generator = np.random.Generator(np.random.Philox(key=seed))
        noise = generator.standard_normal(tuple(self.mean.shape), np.float32)
        return self.mean + self.std * Tensor(noise)

    def mode(self) -> Tensor:
        """Return the most probable latent: the mean."""
        return self.mean
