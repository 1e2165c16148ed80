"""What the VAEs whose networks come from mindone have in common."""

import abc
from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from mg.latent_spec import LatentSpec, diffusers_scaling
from mg.vaes.mindone_networks import (
    build_network,
    load_network,
    network_shapes,
    network_tensors,
    pynative_mode,
)
from mg.vaes.video_vae import VideoVAE

__all__ = ["MindoneVAE", "check_tile", "default_tile", "spec_of_diffusers"]


class MindoneVAE(VideoVAE):
    """A network of `mindone.diffusers`, which codes videos (B, 3, T, H, W) by itself.

    Its networks run line by line (PyNative), whatever mode is set: not all of them compile.
    """

    def __init__(self, network: ms.nn.Cell, config: Mapping[str, Any]) -> None:
        # The class's defaults fill what the checkpoint's config leaves out, such as the scaling.
        defaults = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}
        config = {**defaults, **config}
        super().__init__(network, config, spec=self.spec_of(config))
        network.set_train(False)

    @classmethod
    @abc.abstractmethod
    def spec_of(cls, config: Mapping[str, Any]) -> LatentSpec:
        """Return the spec of the latents of the network of a config."""

    @classmethod
    def network_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config in the terms of the network's class."""
        return dict(config)

    @classmethod
    def shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return network_shapes(cls.class_name, cls.network_config(config))

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> "MindoneVAE":
        config = cls.network_config(config)
        network = build_network(cls.class_name, config)
        load_network(network, tensors)
        return cls(network, config)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        with pynative_mode():
            moments = self.network.encode(video)[0]  # (B, 2C, T', H', W')
            return ops.chunk(moments, 2, axis=1)

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        with pynative_mode():
            return self.network.decode(latent)[0]

    def disable_tiling(self) -> None:
        self.network.disable_tiling()

    def tensors(self) -> dict[str, np.ndarray]:
        return network_tensors(self.network)


def spec_of_diffusers(config: Mapping[str, Any], **frames: int) -> LatentSpec:
    """Return the spec of the latents of a network of diffusers' config.

    Args:
        config: its fields.
        frames: t, head and step of the `LatentSpec`.
    """
    side = 2 ** (len(config["block_out_channels"]) - 1)
    scaling = diffusers_scaling(config)
    return LatentSpec(config["latent_channels"], h=side, w=side, **frames, **scaling)


def default_tile(size: int, parts: int, factor: int) -> tuple[int, int]:
    """Return (size, overlap) of tiles in pixels, near what was meant, in whole latent pixels.

    Args:
        size: of a tile that the config suggests, in pixels.
        parts: an overlap is one of so many parts of a tile.
        factor: pixels per latent pixel.
    """
    num_latents = max(size // factor, 1)
    overlap = min(max(num_latents // parts, 1), num_latents - 1)
    return num_latents * factor, overlap * factor


def check_tile(name: str, size: int, overlap: int, factor: int) -> None:
    """Raise ValueError unless tiles and their overlaps are whole pixels of the latent.

    Args:
        name: of the axis, for the message.
        size: of a tile along it, in pixels.
        overlap: of neighbouring tiles, in pixels.
        factor: pixels per latent pixel.
    """
    if size < factor or size % factor or overlap % factor or not 0 <= overlap < size:
        raise ValueError(
            f"tiles of {name} {size} that overlap by {overlap}: expected multiples of {factor}, "
            "the network's compression, and an overlap smaller than the tile"
        )
