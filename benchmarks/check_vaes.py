"""Measure how exactly each family's VAE is reproduced, as a Markdown table for docs/weights.md.

    python benchmarks/check_vaes.py

For each family with a reference network in tests/fixtures/vaes, through `VideoVAE`: largest
absolute differences to the reference implementation in encoding (mean and logvar), in decoding and
in the gradients of all parameters; and tiled against untiled, as a part of the largest value: with
centre taps and a repeating pattern, where tiles can be exact, and with the random weights as they
are, where every tile has borders and statistics of normalisation of its own.
"""

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.vaes import VideoVAE

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "vaes"
# Fixture, network, frames and size of the tiles that are compared.
CHECKED = (
    ("kl", "SD, SDXL, SD3.5, frame by frame", 2),
    ("cogvae", "CogVideoX", 9),
    ("hyvae", "HunyuanVideo", 5),
)
TILES = {"height": 32, "width": 32, "overlap_pixels": 8}
PATTERN, REPEATS = 16, 4  # pixels; tiles of 32 and strides of 24 all hold whole patterns
HEADER = (
    "| family | read | encode | decode | gradients | tiles, centre taps | tiles, random weights |\n"
    "|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    print(HEADER)
    for folder, name, num_frames in CHECKED:
        vae = VideoVAE.from_pretrained(FIXTURES / folder, inflate_method="none")
        arrays = read_reference(folder)
        encode, decode = coding_errors(vae, arrays)
        figures = [encode, decode, gradient_error(vae, arrays)]
        random_tiles = tiling_error(vae, num_frames)
        keep_centre_taps(vae)
        figures += [tiling_error(vae, num_frames), random_tiles]
        print(f"| {name} | yes | " + " | ".join(f"{figure:.1e}" for figure in figures) + " |")
    print("| SD, SDXL, SD3.5, inflated, on an image | yes | " + " | ".join(inflated_errors()), "|")


def read_reference(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a reference network; images (B, C, H, W) as videos of one frame."""
    arrays = np.load(FIXTURES / f"{name}.npz", allow_pickle=False)
    return {
        key: arrays[key][:, :, None]
        if key.startswith(("i:", "o:")) and arrays[key].ndim == 4
        else arrays[key]
        for key in arrays.files
    }


def coding_errors(vae: VideoVAE, arrays: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest absolute differences in encoding and in decoding."""
    posterior = vae.encode(arrays["i:x"])
    encode = max(
        difference(posterior.mean.asnumpy(), arrays["o:z"]),
        difference(posterior.logvar.asnumpy(), np.clip(arrays["o:logvar"], -30, 20)),
    )
    return encode, difference(vae.decode(posterior).asnumpy(), arrays["o:y"])


def gradient_error(vae: VideoVAE, arrays: dict[str, np.ndarray]) -> float:
    """Return the largest absolute difference in the gradients of all parameters."""
    video = Tensor(arrays["i:x"])
    parameters = dict(vae.network.parameters_and_names())
    gradients = ms.grad(
        lambda: ops.mean((vae.decode(vae.encode(video)) - video) ** 2),
        None,
        ms.ParameterTuple(parameters.values()),
    )()
    return max(
        difference(gradient.asnumpy(), arrays[f"g:{name}"])
        for name, gradient in zip(parameters, gradients, strict=True)
    )


def tiling_error(vae: VideoVAE, num_frames: int) -> float:
    """Return the largest difference of tiled to untiled, of encoding and decoding, relative."""
    shape = (1, 3, num_frames, PATTERN, PATTERN)
    pattern = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    video = np.tile(pattern, (1, 1, 1, REPEATS, REPEATS))
    mean = vae.encode(video).mean.asnumpy()
    decoded = vae.decode(mean).asnumpy()
    vae.enable_tiling(**TILES)
    tiled_mean, tiled_decoded = vae.encode(video).mean.asnumpy(), vae.decode(mean).asnumpy()
    vae.disable_tiling()
    return max(
        difference(tiled_mean, mean) / np.abs(mean).max(),
        difference(tiled_decoded, decoded) / np.abs(decoded).max(),
    )


def keep_centre_taps(vae: VideoVAE) -> None:
    """Set all but the centre of every 3x3 kernel to zero, in time all but the current frame."""
    for parameter in vae.network.get_parameters():
        weight = parameter.asnumpy()
        if weight.ndim >= 4 and weight.shape[-1] == 3:
            centre = (..., -1, 1, 1) if weight.ndim == 5 else (..., 1, 1)
            kept = np.zeros_like(weight)
            kept[centre] = weight[centre]
            parameter.set_data(Tensor(kept))


def inflated_errors() -> list[str]:
    """Return the cells of the row of 2-D VAEs that became TAEs, against the 2-D reference."""
    vae = VideoVAE.from_pretrained(
        FIXTURES / "kl", inflate_options={"temporal_padding": "replicate"}
    )
    encode, decode = coding_errors(vae, read_reference("kl"))
    return [f"{encode:.1e}", f"{decode:.1e}", "-", "-", "-"]


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference of two arrays of the same shape."""
    if actual.shape != expected.shape:
        raise ValueError(f"shapes differ: {actual.shape} and {expected.shape}")
    return float(np.abs(actual - expected).max())


if __name__ == "__main__":
    main()
