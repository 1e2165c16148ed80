"""FloLPIPS (Danier et al., arXiv 2207.08119): LPIPS that counts where motion went wrong.

Each pixel of LPIPS's maps is weighted by the length of the difference between the flow of the
original and that of the generated video. FloLPIPS takes the flow of PWC-Net, whose weights are the
user's file; the same with OpenCV's DIS flow needs no weights and has a name of its own.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mg.metrics.frames import checked_pair
from mg.metrics.lpips import to_images
from mg.metrics.temporal import MIN_FLOW_SIZE, FlowMethod, gray_frame

if TYPE_CHECKING:
    from mg.models.perceptual import LPIPSMaps
    from mg.models.pwcnet.network import PWCNet

__all__ = ["dis_flow", "flolpips", "load_pwcnet", "pwcnet_flow"]

# The flow (H, W, 2) in pixels from a frame (H, W, 3) to the next one.
Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]

PWCNET_MULTIPLE = 64  # of the sides of the frames that PWC-Net takes
PWCNET_UNIT = 20  # its answer is in 20ths of pixels


def load_pwcnet(path: str | os.PathLike | None) -> "PWCNet":
    """Return PWC-Net with the user's weights.

    Args:
        path: a weight file of any kind that `mg.weights` reads, with the names of the public
            re-implementation (`netExtractor...` or `moduleExtractor...`).

    Raises:
        FileNotFoundError: no file is given, or there is none.
        ValueError: a damaged file, or one of another network.
    """
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(
            f"PWC-Net weights not found: {path or 'none given'}. No package index has them: give "
            "your own file with --pwcnet_path, or take flolpips_dis, which needs none"
        )
    from mindspore import Tensor

    from mg.models.pwcnet.config import tensor_names
    from mg.models.pwcnet.network import PWCNet
    from mg.weights.checkpoint_file import read_weights

    tensors = {key.replace("module", "net"): value for key, value in read_weights(path).items()}
    names = tensor_names()
    wrong = sorted(names.keys() ^ tensors.keys())
    wrong += [key for key in names.keys() & tensors.keys() if tensors[key].shape != names[key][1]]
    if wrong:
        raise ValueError(
            f"{path} does not fit PWC-Net: {len(wrong)} tensors are missing, unknown or of another "
            f"shape, such as {wrong[0]}"
        )
    network = PWCNet()
    network.set_train(False)
    parameters = network.parameters_dict()
    for published, (own, _) in names.items():
        parameters[own].set_data(Tensor(np.array(tensors[published], np.float32)))
    return network


def pwcnet_flow(network: "PWCNet", *, data_range: float = 255) -> Flow:
    """Return a function that gives PWC-Net's flow between two frames.

    Frames are scaled to multiples of 64 and the flow back, both bilinear.

    Args:
        network: from `load_pwcnet`.
        data_range: the value of white.
    """

    def flow_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        from mindspore import Tensor

        height, width = first.shape[:2]
        inner_height, inner_width = (
            -(-s // PWCNET_MULTIPLE) * PWCNET_MULTIPLE for s in (height, width)
        )
        images = []
        for frame in (first, second):
            scaled = frame.astype(np.float32) / np.float32(data_range)
            scaled = cv2.resize(scaled, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
            images.append(Tensor(np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis])))
        flow = network(*images).asnumpy()[0].transpose(1, 2, 0) * PWCNET_UNIT
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        return flow * np.array([width / inner_width, height / inner_height], np.float32)

    return flow_of


def dis_flow(*, data_range: float = 255) -> Flow:
    """Return a function that gives OpenCV's DIS flow between two frames.

    Args:
        data_range: the value of white.
    """
    method = FlowMethod()

    def flow_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return method(gray_frame(first, data_range), gray_frame(second, data_range))

    return flow_of


def flolpips(
    reference: np.ndarray,
    generated: np.ndarray,
    *,
    maps: "LPIPSMaps",
    flow_of: Flow,
    data_range: float = 255,
) -> np.ndarray:
    """Return the figure of each frame but the last, shape (T - 1,), float64, 0 for equal frames.

    Where the flows of both videos are equal everywhere, the original divides 0 by 0; here all
    pixels then weigh the same, which is plain LPIPS.

    Args:
        reference: frames (T, H, W, 3), uint8 or floating in [0, data_range].
        generated: frames of the same shape and kind.
        maps: of LPIPS; the paper has AlexNet.
        flow_of: from `pwcnet_flow` or `dis_flow`.
        data_range: the value of white.

    Raises:
        ValueError: the clips cannot be compared, are too small, or have one frame only.
    """
    num_frames, height, width = checked_pair(reference, generated)
    least = max(MIN_FLOW_SIZE, maps.lpips.min_size)
    if num_frames < 2 or min(height, width) < least:
        raise ValueError(
            f"FloLPIPS needs at least 2 frames of {least}x{least}, here are {num_frames} of "
            f"{height}x{width}"
        )
    from mindspore import Tensor

    values = np.empty(num_frames - 1)
    for t in range(num_frames - 1):
        flows = [flow_of(frames[t], frames[t + 1]) for frames in (reference, generated)]
        difference = (flows[0] - flows[1]).astype(np.float32)  # (H, W, 2)
        images = [
            Tensor(to_images(frames[t : t + 1], data_range)) for frames in (reference, generated)
        ]
        values[t] = sum(_weighted_mean(each.asnumpy()[0], difference) for each in maps(*images))
    return values


def _weighted_mean(distances: np.ndarray, difference: np.ndarray) -> float:
    """Return the mean of a map (H', W') by the lengths of flow differences (H, W, 2).

    The differences are scaled to the map's size first, then their lengths are taken.
    """
    size = (distances.shape[1], distances.shape[0])
    weights = np.linalg.norm(cv2.resize(difference, size, interpolation=cv2.INTER_LINEAR), axis=-1)
    total = weights.sum(dtype=np.float64)
    if total == 0:
        return float(distances.mean(dtype=np.float64))
    return float((distances * weights).sum(dtype=np.float64) / total)
