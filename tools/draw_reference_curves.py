#!/usr/bin/env python
"""Draw the reference curves of training configs into one picture, as docs/vae.md shows it.

    python tools/draw_reference_curves.py configs/vae/train/curves docs/images/vae_curves.png

Draw it again when a curve changes.
"""

import argparse
import sys
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.files import atomic_path
from reference_curve import ReferenceCurve, read_reference

__all__ = ["draw", "main"]

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:red")


def main(arguments: list[str] | None = None) -> None:
    """Parse, read, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with the curves, a .json each")
    parser.add_argument("picture", type=Path, help="the .png to write; one that is there goes")
    given = parser.parse_args(arguments)
    curves = {path.stem: read_reference(path) for path in sorted(given.folder.glob("*.json"))}
    if not curves:
        parser.error(f"{given.folder} holds no curves (.json)")
    draw(given.picture, curves)
    print(f"{given.picture}: {given.picture.stat().st_size / 1e3:.0f} kB")


def draw(picture: Path, curves: dict[str, ReferenceCurve]) -> None:
    """Draw the training loss of each curve over steps into a PNG.

    Args:
        picture: the file.
        curves: by the name of the config.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for number, (name, reference) in enumerate(curves.items()):
        steps = [point["step"] + 1 for point in reference.curve]
        losses = [point["loss"] for point in reference.curve]
        axes.plot(
            steps,
            losses,
            marker=".",
            markersize=4,
            color=COLOURS[number % len(COLOURS)],
            label=f"{name}: {losses[0]:.2f} to {losses[-1]:.2f}",
        )
    axes.set(xlabel="step", ylabel="training loss, mean of a window of steps")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False)
    with atomic_path(picture, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
