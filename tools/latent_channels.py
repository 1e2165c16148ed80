"""The channels of a TAE's latent scaled, its videos unchanged.

A channel z_c becomes s_c z_c: the layers that end the encoder are multiplied by s_c, those that
begin the decoder divided by it. A generator on the latents then learns first what is large.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["scale_channels", "scales_by_effect"]

Tensors = dict[str, np.ndarray]
# (Cout, ...) of what ends the encoder, (Cout, Cin, ...) of what begins the decoder.
LAST_LAYERS = ("encoder.conv_out.conv_temp", "encoder.linear")
FIRST_WEIGHTS = ("decoder.conv_in.conv_spat.weight", "decoder.linear.weight")


def scales_by_effect(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], deviations: np.ndarray
) -> np.ndarray:
    """Return a factor per channel (C,) that makes it as large as what it changes in the video.

    That is the norm of the change of a block of pixels on the decoder's linear path. The channel
    that changes most, the block's brightness, counts no more than the next one, and the mean
    square of all channels becomes 1.

    Args:
        tensors: of a TAE with a linear path.
        config: its config.
        deviations: standard deviation of each channel now, (C,).

    Raises:
        ValueError: there is no linear path, or a deviation is not above zero.
    """
    _check_linear_path(config)
    deviations = np.asarray(deviations, np.float64)
    if deviations.shape != (config["z_channels"],) or not (deviations > 0).all():
        raise ValueError(
            f"deviations={deviations.tolist()}; expected one above 0 for each of the "
            f"{config['z_channels']} channels"
        )
    columns = tensors["decoder.linear.weight"][:, :, 0, 0].astype(np.float64)  # (pixels, C)
    effect = np.linalg.norm(columns, axis=0) * deviations
    wanted = np.minimum(effect, np.sort(effect)[-2:][0])
    wanted /= np.sqrt(np.mean(wanted**2))
    return wanted / deviations


def scale_channels(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], scales: np.ndarray
) -> Tensors:
    """Return the tensors, float32, with each latent channel multiplied by its scale.

    Args:
        tensors: of a TAE with a linear path.
        config: its config.
        scales: factors above 0, (C,).

    Raises:
        ValueError: there is no linear path.
    """
    _check_linear_path(config)
    scales = np.asarray(scales, np.float32)
    result = {name: array.astype(np.float32) for name, array in tensors.items()}
    # Mean and log variance: the variance of s z is s^2 times that of z.
    of_moments = np.concatenate([scales, np.ones_like(scales)]) if config["double_z"] else scales
    for layer in LAST_LAYERS:
        weight = result[f"{layer}.weight"]
        result[f"{layer}.weight"] = weight * of_moments.reshape(-1, *[1] * (weight.ndim - 1))
        result[f"{layer}.bias"] = result[f"{layer}.bias"] * of_moments
    if config["double_z"]:
        result["encoder.linear.bias"][len(scales) :] += 2 * np.log(scales)
    for name in FIRST_WEIGHTS:
        result[name] = result[name] / scales.reshape(-1, 1, 1)
    return result


def _check_linear_path(config: Mapping[str, Any]) -> None:
    if not config.get("linear_path"):
        raise ValueError(
            "the autoencoder has no linear path, which tells what a channel changes in the video; "
            "expected one that was trained with model.linear_path=true"
        )
    if config.get("use_quant_conv") or config.get("use_post_quant_conv"):
        raise ValueError("use_quant_conv and use_post_quant_conv: channels are not scaled there")
