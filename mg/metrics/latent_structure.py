"""How latents are built: what a generator finds easy or hard to learn of them.

Local correlation, spectra in space and time, and the eigenspectrum of the channels: latents whose
neighbours agree, whose power lies in low frequencies and in few channels' directions are learnt
faster by diffusion models (SSVAE, arXiv 2512.05394).

Shapes: latents (C, T', H', W'), or pieces of one along time.
"""

import numpy as np

__all__ = ["LatentStructure", "local_correlation"]

WINDOW = 2  # latent frames, rows and columns of a window of local correlation
NUM_SPACE_BINS, NUM_TIME_BINS = 16, 8  # of frequency, from 0 to half a cycle per value
NORM_FLOOR = 1e-8
SHARE_OF_MODES = 0.9  # of the variance, that `modes_for_90_percent` counts directions for


def local_correlation(latent: np.ndarray) -> tuple[float, int]:
    """Return the mean correlation between the vectors of a window, and the number of windows.

    At each place stands a vector over the channels; its mean is removed and its length made 1. The
    figure is the mean product of all pairs in windows of 2x2x2 places (2x2 where there is but one
    frame), which do not overlap. An odd last frame, row or column is left out.

    Args:
        latent: (C, T', H', W'), C at least 2.

    Raises:
        ValueError: one channel, or not a single window.
    """
    channels, frames, height, width = latent.shape
    if channels < 2 or min(height, width) < WINDOW:
        raise ValueError(
            f"local correlation needs 2 channels and maps of 2x2 or more, got {latent.shape}"
        )
    depth = WINDOW if frames > 1 else 1
    sizes = (frames // depth, height // WINDOW, width // WINDOW)
    even = latent[:, : depth * sizes[0], : WINDOW * sizes[1], : WINDOW * sizes[2]]
    vectors = even.astype(np.float64)
    vectors = vectors - vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=0) + NORM_FLOOR
    windows = vectors.reshape(channels, sizes[0], depth, sizes[1], WINDOW, sizes[2], WINDOW)
    # |sum v|^2 = sum |v|^2 + the products of all ordered pairs
    of_sum = np.square(windows.sum((2, 4, 6))).sum(0)
    of_each = np.square(windows).sum((0, 2, 4, 6))
    num_vectors = depth * WINDOW**2
    correlations = (of_sum - of_each) / (num_vectors * (num_vectors - 1))
    return float(correlations.mean()), correlations.size


class LatentStructure:
    """Local correlation, spectra and eigenspectrum over all latents that were added."""

    def __init__(self) -> None:
        self._correlation, self._num_windows = 0.0, 0
        self._space_power, self._space_count = np.zeros((2, NUM_SPACE_BINS))
        self._time_power, self._time_count = np.zeros((2, NUM_TIME_BINS))
        self._num_vectors = 0
        self._sum: np.ndarray | None = None  # (C,)
        self._products = np.zeros((0, 0))  # (C, C)

    def add(self, latent: np.ndarray) -> None:
        """Take a latent, or a piece of one along time, into the statistics; it is not kept.

        Args:
            latent: (C, T', H', W'), finite; all of one report have the same channels.
        """
        latent = np.asarray(latent, np.float64)
        channels, frames, height, width = latent.shape
        if channels > 1 and min(height, width) >= WINDOW:
            correlation, num_windows = local_correlation(latent)
            self._correlation += correlation * num_windows
            self._num_windows += num_windows
        vectors = latent.reshape(channels, -1)
        if self._sum is None:
            self._sum, self._products = np.zeros(channels), np.zeros((channels, channels))
        self._sum += vectors.sum(1)
        self._products += vectors @ vectors.T
        self._num_vectors += vectors.shape[1]
        self._add_space(latent)
        if frames > 1:
            self._add_time(latent)

    def _add_space(self, latent: np.ndarray) -> None:
        height, width = latent.shape[2:]
        power = np.square(np.abs(np.fft.fft2(latent - latent.mean((2, 3), keepdims=True))))
        power /= (height * width) ** 2  # sums to the variance of a map (Parseval)
        y, x = np.fft.fftfreq(height), np.fft.fftfreq(width)
        _add_to_bins(
            np.hypot(y[:, np.newaxis], x), power.sum((0, 1)), self._space_power, self._space_count
        )

    def _add_time(self, latent: np.ndarray) -> None:
        frames = latent.shape[1]
        power = np.square(np.abs(np.fft.fft(latent - latent.mean(1, keepdims=True), axis=1)))
        power /= frames**2
        _add_to_bins(
            np.abs(np.fft.fftfreq(frames)),
            power.sum((0, 2, 3)),
            self._time_power,
            self._time_count,
        )

    def summary(self) -> dict:
        """Return the figures; None or an empty list where there was nothing to measure.

        Keys: `local_correlation`; `space_spectrum` and `time_spectrum`, lists of `frequency`
        (upper end of a bin, in cycles per value) and `share` of the variance; `low_frequency_share`
        in the lower quarter of the frequencies in space; `eigenspectrum` (shares of the variance
        along the channels' principal directions, falling), `modes_for_90_percent` and
        `participation` ((sum e)^2 / sum e^2: C if all directions have the same variance).

        Raises:
            ValueError: no latent was added.
        """
        if self._sum is None:
            raise ValueError("the report is empty: no latent was added")
        mean = self._sum / self._num_vectors
        covariance = self._products / self._num_vectors - np.outer(mean, mean)
        values = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None)
        total = values.sum()
        shares = values / total if total > 0 else np.zeros_like(values)
        space = _shares(self._space_power)
        return {
            "local_correlation": self._correlation / self._num_windows
            if self._num_windows
            else None,
            "space_spectrum": _spectrum(space, self._space_count),
            "time_spectrum": _spectrum(_shares(self._time_power), self._time_count),
            "low_frequency_share": float(space[: NUM_SPACE_BINS // 4].sum()),
            "eigenspectrum": shares.tolist(),
            "modes_for_90_percent": int(np.searchsorted(shares.cumsum(), SHARE_OF_MODES - 1e-9)) + 1
            if total > 0
            else 0,
            "participation": float(1 / np.square(shares).sum()) if total > 0 else 0.0,
        }

    def table(self) -> str:
        """Return the figures in a few lines of text."""
        summary = self.summary()
        correlation = summary["local_correlation"]
        lines = [
            "local correlation (2x2x2)  " + ("-" if correlation is None else f"{correlation:.4f}"),
            f"power below 1/8 cycle      {100 * summary['low_frequency_share']:.1f} % in space",
            f"channels' directions       {summary['modes_for_90_percent']} of "
            f"{len(summary['eigenspectrum'])} hold 90 % of the variance, "
            f"participation {summary['participation']:.2f}",
        ]
        return "\n".join(lines)


def _add_to_bins(
    frequency: np.ndarray, power: np.ndarray, sums: np.ndarray, counts: np.ndarray
) -> None:
    """Add power to bins of equal width up to 1/2; what lies beyond, in corners, goes to the last.

    The mean, frequency 0, has been removed and is passed over.
    """
    bins = np.ceil(frequency * 2 * len(sums) - 1e-9).astype(int) - 1
    bins = np.minimum(bins, len(sums) - 1)
    chosen = frequency > 0
    np.add.at(sums, bins[chosen], power[chosen])
    np.add.at(counts, bins[chosen], 1)


def _shares(power: np.ndarray) -> np.ndarray:
    total = power.sum()
    return power / total if total > 0 else np.zeros_like(power)


def _spectrum(shares: np.ndarray, counts: np.ndarray) -> list[dict]:
    """Return the bins that any latent had a frequency in."""
    return [
        {"frequency": (index + 1) / (2 * len(shares)), "share": float(share)}
        for index, (share, count) in enumerate(zip(shares, counts, strict=True))
        if count
    ]
