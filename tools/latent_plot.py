"""Plot of how latents are built: spectra in space and time, and the channels' eigenspectrum."""

import os

import matplotlib

from mg.files import atomic_path

matplotlib.use("Agg")  # no window, and no display needed
from matplotlib import pyplot

__all__ = ["draw_structure"]

INK = "#1f5a8a"


def draw_structure(path: str | os.PathLike, summary: dict, *, overwrite: bool = False) -> None:
    """Write a plot of the three spectra.

    Args:
        path: of the PNG file.
        summary: of `mg.metrics.latent_structure.LatentStructure`.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
    """
    drawing, axes = pyplot.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    for axis, name in zip(axes, ("space_spectrum", "time_spectrum"), strict=False):
        entries = summary[name]
        axis.bar(
            [entry["frequency"] for entry in entries],
            [entry["share"] for entry in entries],
            width=0.025,
            color=INK,
        )
        axis.set_xlabel(f"cycles per latent {'pixel' if name.startswith('space') else 'frame'}")
        axis.set_ylabel("share of the variance")
    shares = summary["eigenspectrum"]
    axes[2].semilogy(range(1, len(shares) + 1), [max(s, 1e-6) for s in shares], ".-", color=INK)
    axes[2].set_xlabel("direction of the channels")
    correlation = summary["local_correlation"]
    if correlation is not None:
        drawing.suptitle(f"local correlation (2x2x2) {correlation:.3f}", fontsize=10)
    with atomic_path(path, overwrite=overwrite) as temporary:
        drawing.savefig(temporary, dpi=110)
    pyplot.close(drawing)
