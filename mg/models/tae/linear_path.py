"""Principal components as the start of a TAE's linear path.

A block of pixels and frames x becomes one pixel of latent z, and z becomes a block again:

    z_k = v_k (x - m) / s_k        x' = m + sum_k s_k v_k z_k

with m the mean of all blocks, v_k the eigenvectors of their covariance with the largest eigenvalues
and s_k^2 these eigenvalues. Of all linear maps to so many channels and back, these leave the
smallest squared error (Eckart and Young, "The approximation of one matrix by another of lower
rank", 1936). Every channel of the latent has mean 0 and variance 1.
"""

import dataclasses
import logging
from collections.abc import Iterable

import numpy as np

from mg.models.tae.config import TAEConfig

__all__ = ["PrincipalComponents", "blocks_of", "linear_path_tensors", "principal_components"]

logger = logging.getLogger("mg")

# A covariance of so many values is 0.5 GB, and its eigenvectors take minutes.
MAX_BLOCK_VALUES = 8192
BLOCKS_PER_VALUE = 20  # that the covariance is estimated from
# The logarithm of the posterior's variance at the start: its noise is 1/55 of a channel's spread.
START_LOGVAR = -8.0


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """Mean and main directions of blocks, and how far blocks spread along them.

    Args:
        mean: (D,), of values in [-1, 1].
        directions: (k, D), of length 1, at right angles to each other, widest spread first.
        deviations: (k,), the standard deviations along them.
        lost: the mean squared error that the other directions leave.
    """

    mean: np.ndarray
    directions: np.ndarray
    deviations: np.ndarray
    lost: float


def blocks_of(video: np.ndarray, frames: int, side: int) -> np.ndarray:
    """Return the blocks of a video as rows, (N, C * frames * side * side).

    Args:
        video: (B, C, T, H, W), H and W multiples of `side`; T is completed to whole blocks by
            repeating the last frame.
        frames, side: frames, and pixels along each side, of a block.
    """
    missing = -video.shape[2] % frames
    video = np.concatenate([video, video[:, :, -1:].repeat(missing, axis=2)], axis=2)
    batch, channels, num_frames, height, width = video.shape
    counts = num_frames // frames, height // side, width // side
    x = video.reshape(batch, channels, counts[0], frames, counts[1], side, counts[2], side)
    return x.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, channels * frames * side**2)


def principal_components(videos: Iterable[np.ndarray], config: TAEConfig) -> PrincipalComponents:
    """Return the main directions of the blocks of videos, as many as a latent has channels.

    Args:
        videos: float32 (B, 3, T, H, W) in [-1, 1], read until there are 20 blocks per value of a
            block.
        config: of the network, which says how large blocks are.

    Raises:
        ValueError: blocks of too many values.
    """
    size = config.in_channels * config.block_volume
    if size > MAX_BLOCK_VALUES:
        raise ValueError(
            f"a pixel of latent stands for {size} values; principal components are found for up to "
            f"{MAX_BLOCK_VALUES}: use fewer levels or a smaller patch_size"
        )
    count, total, products = 0, np.zeros(size), np.zeros((size, size))
    for video in videos:
        blocks = blocks_of(video, config.temporal_compression, config.spatial_compression)
        count += len(blocks)
        total += blocks.sum(axis=0, dtype=np.float64)
        products += blocks.T @ blocks
        if count >= BLOCKS_PER_VALUE * size:
            break
    mean = total / count
    variances, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    kept = slice(None, -config.z_channels - 1, -1)
    deviations = np.sqrt(np.maximum(variances[kept], 1e-12))
    lost = float(np.maximum(variances[: -config.z_channels], 0).sum() / size)
    logger.info(
        "Linear path: the %d principal components of %d blocks, which leave %.2f dB.",
        config.z_channels,
        count,
        10 * np.log10(4 / max(lost, 1e-12)),
    )
    return PrincipalComponents(mean, directions[:, kept].T, deviations, lost)


def linear_path_tensors(
    components: PrincipalComponents, config: TAEConfig
) -> dict[str, np.ndarray]:
    """Return the tensors with which a network begins as its linear path alone, float32.

    These are the linear path's, and zeros for the last layers of encoder and decoder.

    Args:
        components: from `principal_components`.
        config: of the network.
    """
    directions, deviations = components.directions, components.deviations[:, np.newaxis]
    down = directions / deviations
    bias = -(down @ components.mean)
    down = down * down.shape[1]  # of means over blocks, see `mg.models.tae.encoder`
    if config.double_z:
        down = np.concatenate([down, np.zeros_like(down)])
        bias = np.concatenate([bias, np.full_like(bias, START_LOGVAR)])
    values = np.concatenate([directions * deviations, components.mean[np.newaxis]])
    up = _in_order_of_patches(values, config).T
    tensors = {
        "encoder.linear.weight": down[:, :, np.newaxis, np.newaxis],
        "encoder.linear.bias": bias,
        "decoder.linear.weight": up[:, :-1, np.newaxis, np.newaxis],
        "decoder.linear.bias": up[:, -1],
    }
    channels = config.ch * config.ch_mult[-1], config.decoder_width * config.ch_mult[0]
    widths = {"encoder": len(down), "decoder": config.out_ch * config.patch_volume}
    for (half, width), channel in zip(widths.items(), channels, strict=True):
        tensors[f"{half}.conv_out.conv_spat.weight"] = np.zeros((width, channel, 3, 3))
        tensors[f"{half}.conv_out.conv_spat.bias"] = np.zeros(width)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}


def _in_order_of_patches(blocks: np.ndarray, config: TAEConfig) -> np.ndarray:
    """Return blocks (N, C * t * h * w) with the values of each patch side by side.

    The decoder's linear layer gives (C, patch_size_t, patch_size, patch_size) values for each of
    the patches of a block, and these in turn are in order of frame, row and column.
    """
    patch_t, patch = config.patch_size_t, config.patch_size
    t, side = config.temporal_compression // patch_t, config.spatial_compression // patch
    x = blocks.reshape(-1, config.out_ch, t, patch_t, side, patch, side, patch)
    return x.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(blocks.shape)
