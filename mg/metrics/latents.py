"""Statistics of latents per channel, with a count of the outliers that the outlier penalty is for.

Shapes: latents (C, T', H', W'). An outlier is a value more than r standard deviations from the mean
of its own map (one channel of one latent frame), as in `mg.losses.outlier`.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["LatentReport"]

# As in the loss: a map that is constant has no outliers.
VARIANCE_FLOOR = 1e-12
HEADINGS = ("channel", "mean", "std", "outliers", "share", "furthest", "penalty")


class LatentReport:
    """Mean, standard deviation and outliers of each channel, over all latents that were added.

    Of normally distributed values 0.27 % lie beyond 3 standard deviations. A map of n values can
    have none beyond sqrt(n - 1), so maps of ten values or fewer have none beyond 3.
    """

    def __init__(self, *, r: float = 3.0) -> None:
        """Start an empty report.

        Args:
            r: how many standard deviations are free, more than 0; the paper's penalty uses 3.

        Raises:
            ValueError: `r` is not above 0.
        """
        if not r > 0:
            raise ValueError(f"r={r}; expected more than 0 standard deviations (the paper has 3)")
        self.r = r
        self._names: set[str] = set()
        self._largest_map = 0
        self._num_values = 0  # per channel
        # One entry per channel, made when the number of channels is known.
        self._sum: np.ndarray | None = None
        self._square_sum = self._num_outliers = self._furthest = self._excess = np.zeros(0)

    def add(self, name: str, latent: np.ndarray) -> None:
        """Take a latent, or a piece of one along time, into the statistics; it is not kept.

        Args:
            name: of the latent; pieces of one share it.
            latent: (C, T', H', W'), unscaled or scaled, all of one report alike.

        Raises:
            ValueError: another number of axes or of channels, an empty latent, or NaN or infinity.
        """
        self._check(name, latent)
        if self._sum is None:
            self._sum, self._square_sum, self._num_outliers, self._furthest, self._excess = (
                np.zeros((5, len(latent)))
            )
        self._names.add(name)
        self._largest_map = max(self._largest_map, latent.shape[2] * latent.shape[3])
        self._num_values += latent[0].size
        for index in range(latent.shape[1]):  # frame by frame: a mapped file stays on disk
            maps = np.asarray(latent[:, index], np.float64).reshape(len(latent), -1)  # (C, H'*W')
            self._sum += maps.sum(1)
            self._square_sum += np.square(maps).sum(1)
            distance = np.abs(maps - maps.mean(1, keepdims=True))
            deviation = np.sqrt(np.square(distance).mean(1, keepdims=True) + VARIANCE_FLOOR)
            excess = np.maximum(distance - self.r * deviation, 0)
            self._num_outliers += (excess > 0).sum(1)
            self._excess += excess.sum(1)
            self._furthest = np.maximum(self._furthest, (distance / deviation).max(1))

    def _check(self, name: str, latent: np.ndarray) -> None:
        if latent.ndim != 4 or not latent.size:
            raise ValueError(f"{name}: expected a latent (C, T', H', W'), got {latent.shape}")
        if self._sum is not None and len(latent) != len(self._sum):
            raise ValueError(
                f"{name} has {len(latent)} channels, the latents before it {len(self._sum)}; "
                "latents of different autoencoders belong in reports of their own"
            )
        if not np.isfinite(latent).all():
            raise ValueError(f"{name} holds NaN or infinity")

    def summary(self) -> dict:
        """Return the figures of each channel and of all together.

        Keys: `r`, `num_latents`, `largest_map` (values of the largest map), then `all` and the list
        `channels`, each with `num_values`, `mean`, `std` (population), `num_outliers`,
        `outlier_share`, `furthest` (largest distance from a map's mean, in its standard deviations)
        and `penalty` (what `outlier_penalty_loss` gives for these values).

        Raises:
            ValueError: no latent was added.
        """
        if self._sum is None:
            raise ValueError("the report is empty: no latent was added")
        num_channels = len(self._sum)
        channels = [{"channel": c, **self._figures(slice(c, c + 1))} for c in range(num_channels)]
        return {
            "r": self.r,
            "num_latents": len(self._names),
            "largest_map": self._largest_map,
            "all": self._figures(slice(None)),
            "channels": channels,
        }

    def _figures(self, channels: slice) -> dict:
        """Return the figures of some channels taken together."""
        num_values = self._num_values * len(self._sum[channels])
        mean = self._sum[channels].sum() / num_values
        variance = self._square_sum[channels].sum() / num_values - mean**2
        num_outliers = int(self._num_outliers[channels].sum())
        return {
            "num_values": num_values,
            "mean": float(mean),
            "std": float(np.sqrt(max(variance, 0.0))),
            "num_outliers": num_outliers,
            "outlier_share": num_outliers / num_values,
            "furthest": float(self._furthest[channels].max()),
            "penalty": float(self._excess[channels].sum() / num_values),
        }

    def table(self) -> str:
        """Return the figures as text, a line per channel and one for all."""
        summary = self.summary()
        rows = [(str(entry["channel"]), entry) for entry in summary["channels"]]
        lines = [
            HEADINGS,
            *(_cells(name, entry) for name, entry in (*rows, ("all", summary["all"]))),
        ]
        return _aligned(lines)


def _cells(name: str, figures: dict) -> tuple[str, ...]:
    return (
        name,
        f"{figures['mean']:.4f}",
        f"{figures['std']:.4f}",
        str(figures["num_outliers"]),
        f"{100 * figures['outlier_share']:.4f} %",
        f"{figures['furthest']:.2f} std",
        f"{figures['penalty']:.3e}",
    )


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
