"""Measure how exactly each family's VAE is reproduced, as a Markdown table for docs/weights.md.

    python benchmarks/check_vaes.py

For each family with a reference network in tests/fixtures, through `VideoVAE`: largest absolute
differences to the reference implementation in encoding (mean and logvar), in decoding and in the
gradients of all recorded parameters. Of the first table also tiled against untiled, as a part of
the largest value: with centre taps and a repeating pattern, where tiles can be exact, and with the
random weights as they are, where every tile has borders and statistics of normalisation of its own.
Of the second tiled against what the reference implementation makes of the same tiles.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.vaes import VideoVAE

ALL_FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
FIXTURES = ALL_FIXTURES / "vaes"
# Fixture, network, frames and size of the tiles that are compared.
CHECKED = (
    ("kl", "SD, SDXL, SD3.5, frame by frame", 2),
    ("cogvae", "CogVideoX", 9),
    ("hyvae", "HunyuanVideo", 5),
)
TILES = {"height": 32, "width": 32, "overlap_pixels": 8}
PATTERN, REPEATS = 16, 4  # pixels; tiles of 32 and strides of 24 all hold whole patterns


class Recorded(NamedTuple):
    """A network whose outputs are recorded.

    Attributes:
        folder, arrays: with the weights, and the file with the numbers.
        name: in the table.
        mean: what the names of recorded latents begin with.
        tiles: sizes of those that are recorded; None for none.
        latent, frames: names of the latent that is decoded in tiles, and of the result.
    """

    folder: str
    arrays: str
    name: str
    mean: str = "mean"
    tiles: dict | None = None
    latent: str = "i:tile_z"
    frames: str = "o:tile_y"


SMALL_TILES = {"height": 32, "width": 32, "overlap_pixels": 8}
RECORDED = (
    Recorded("wan/wan21", "wan/wan21", "Wan 2.1", tiles={}),
    Recorded("wan/wan22", "wan/wan22", "Wan 2.2", tiles={}, frames="o:tile_y_px"),
    Recorded(
        "causal_vae/v1.0",
        "causal_vae/v1.0",
        "CausalVideoVAE v1.0",
        tiles={**SMALL_TILES, "frames": None},
    ),
    Recorded(
        "causal_vae/v1.0_32_groups",
        "causal_vae/v1.0_32_groups",
        "CausalVideoVAE v1.0, 32 groups",
    ),
    Recorded(
        "causal_vae/v1.1",
        "causal_vae/v1.1",
        "CausalVideoVAE v1.1",
        tiles={**SMALL_TILES, "frames": 8},
    ),
    Recorded(
        "causal_vae/v1.2",
        "causal_vae/v1.2",
        "CausalVideoVAE v1.2",
        tiles={
            **{"height": 64, "width": 64, "overlap_pixels": 8},
            **{"frames": 8, "latent_frames": 2},
        },
    ),
    Recorded(
        "dc_ae",
        "dc_ae/tiny",
        "Video DC-AE",
        mean="z",
        tiles={"spatial_tile_size": 32, "temporal_tile_size": 16},
        latent="i:tile_lat",
        frames="o:tile_y_video",
    ),
)
RECORDED_HEADER = (
    "| family | encode | decode | gradients, relative | tiles, encode and decode |\n"
    "|---|---|---|---|---|"
)
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
    print(RECORDED_HEADER)
    for subject in RECORDED:
        print(f"| {subject.name} | " + " | ".join(recorded_errors(subject)) + " |", flush=True)


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


def recorded_errors(subject: Recorded) -> list[str]:
    """Return the cells of the row of a network whose outputs are recorded."""
    vae = VideoVAE.from_pretrained(ALL_FIXTURES / subject.folder)
    with np.load(ALL_FIXTURES / f"{subject.arrays}.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    num_frames, kind = int(arrays["loss_T"]), subject.mean
    video = Tensor(arrays["i:x"][:, :, :num_frames])
    posterior = vae.encode(video)
    found = {f"o:{kind}_T{num_frames}": posterior.mean, f"o:logvar_T{num_frames}": posterior.logvar}
    encode = max(difference(a.asnumpy(), arrays[n]) for n, a in found.items() if n in arrays)
    frames = vae.decode(posterior.mean, num_frames).asnumpy()
    decode = difference(frames, arrays[f"o:y_T{num_frames}"])
    cells = [f"{encode:.1e}", f"{decode:.1e}", f"{recorded_gradient_error(vae, arrays, video):.1e}"]
    return [*cells, recorded_tiling_error(vae, arrays, subject)]


def recorded_gradient_error(vae: VideoVAE, arrays: dict[str, np.ndarray], video: Tensor) -> float:
    """Return the largest difference in the recorded gradients, as a part of the largest of all."""
    network = vae.network
    parameters = dict(network.parameters_and_names())

    def loss() -> Tensor:
        mean, logvar = network.moments(video)
        frames = network.frames_from(mean, video.shape[2])
        spread = logvar if network.has_posterior else mean
        return ops.square(frames - video).mean() + 0.1 * ops.square(spread).mean()

    gradients = ms.grad(loss, None, ms.ParameterTuple(parameters.values()))()
    named = zip(parameters, gradients, strict=True)
    right = {name[2:]: array for name, array in arrays.items() if name.startswith("g:")}
    errors = (difference(g.asnumpy(), right[name]) for name, g in named if name in right)
    return max(errors) / max(float(np.abs(array).max()) for array in right.values())


def recorded_tiling_error(vae: VideoVAE, arrays: dict[str, np.ndarray], subject: Recorded) -> str:
    """Return the largest differences of tiled results to the recorded ones, as a table's cell."""
    if subject.tiles is None:
        return "-"
    sizes = subject.tiles
    if "tile" in arrays and not sizes:  # diffusers' terms
        stated = json.loads(str(arrays["tile"]))
        overlap = stated["min_h"] - stated["stride_h"]
        sizes = {"height": stated["min_h"], "width": stated["min_w"], "overlap_pixels": overlap}
    vae.enable_tiling(**sizes)
    mean = vae.encode(arrays["i:tile_x"]).mean.asnumpy()
    encode = difference(mean, arrays[f"o:tile_{subject.mean}"])
    decode = difference(vae.decode(arrays[subject.latent]).asnumpy(), arrays[subject.frames])
    return f"{encode:.1e}, {decode:.1e}"


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference of two arrays of the same shape."""
    if actual.shape != expected.shape:
        raise ValueError(f"shapes differ: {actual.shape} and {expected.shape}")
    return float(np.abs(actual - expected).max())


if __name__ == "__main__":
    main()
