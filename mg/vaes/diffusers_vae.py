"""What families of VAEs have in common whose networks have configs of their own class."""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np
from mindspore import Tensor, nn, ops

from mg.latent_spec import diffusers_scaling
from mg.vaes.assumed_config import completed_config
from mg.vaes.blended_tiles import Tile, check_tile, coded_in_tiles
from mg.vaes.networks import (
    built_without_values,
    load_network,
    network_shapes,
    network_tensors,
    shapes_of,
)
from mg.vaes.video_vae import VideoVAE

__all__ = ["DiffusersVAE", "NetworkVAE"]


class NetworkVAE(VideoVAE):
    """A network that is built from the fields of config.json, and named as its checkpoints are.

    Subclasses set `config_class` and `network_class`, or implement `_build`; `from_tensors` makes
    them of a network and the fields.
    """

    config_class: ClassVar[type]
    network_class: ClassVar[type[nn.Cell]]

    @classmethod
    def _build(cls, config: Mapping[str, Any]) -> nn.Cell:
        """Return the network of a config, its weights without values."""
        fields = cls.config_class.from_mapping(config)
        return built_without_values(lambda: cls.network_class(fields))

    @classmethod
    def shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return network_shapes(cls._build(config))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Self:
        network = cls._build(config)
        load_network(network, tensors)
        return cls(network, config)

    def tensors(self) -> dict[str, np.ndarray]:
        return network_tensors(self.network)


class DiffusersVAE(NetworkVAE):
    """A network with the config, the names and the tiles of a class in diffusers.

    Args:
        network: the network, with its weights.
        config: fields of the checkpoint's config.json; the class's defaults fill the rest.
    """

    def __init__(self, network: nn.Cell, config: Mapping[str, Any]) -> None:
        config = {**network.config.to_dict(), **config}
        spec = dataclasses.replace(network.config.spec, **diffusers_scaling(config))
        super().__init__(network, config, spec=spec)
        self.tiles: tuple[Tile, Tile] | None = None
        network.set_train(False)

    @classmethod
    def completed_config(
        cls, config: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        return completed_config(cls.family, config, shapes_of(tensors))

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return ops.chunk(self.encoded(video), 2, axis=1)

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        return self.decoded(latent)

    def encoded(self, video: Tensor) -> Tensor:
        """Return mean and logvar (B, 2 C, T', H', W') of a video, in tiles where they are on."""
        factor = Fraction(1, self.compression.h)
        return coded_in_tiles(self._moments_of_tile, video, self.tiles, factor)

    def decoded(self, latent: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) of a latent, in tiles where they are on."""
        tiles, side = self.tiles, self.compression.h
        if tiles is not None:
            tiles = tuple(tile.times(Fraction(1, side)) for tile in tiles)
        return coded_in_tiles(self.network.frames_from, latent, tiles, Fraction(side))

    def _moments_of_tile(self, video: Tensor) -> Tensor:
        return ops.concat(self.network.moments(video), 1)

    def enable_tiling(
        self, *, height: int = 256, width: int = 256, overlap_pixels: int = 64
    ) -> None:
        """Code in overlapping tiles.

        Args:
            height, width: of a tile in pixels.
            overlap_pixels: of neighbouring tiles.

        Raises:
            ValueError: tiles that do not fit the network's compression.
        """
        side = self.compression.h
        self.tiles = (
            check_tile("height", height, overlap_pixels, side),
            check_tile("width", width, overlap_pixels, side),
        )

    def disable_tiling(self) -> None:
        self.tiles = None
