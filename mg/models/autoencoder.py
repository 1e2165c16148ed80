"""What every video autoencoder is, whichever family it belongs to: `Autoencoder`.

Layouts
    video    (B, 3, T, H, W)       in [-1, 1]
    latent   (B, C, T', H', W')    unscaled; sizes by the family's `LatentSpec`
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.dtypes import dtype_named
from mg.latent_spec import LatentSpec
from mg.models.layers.tensors import as_tensor
from mg.parameters import set_values
from mg.tiling.frame_tiles import FrameTiles, decode_in_frame_tiles, encode_in_frame_tiles
from mg.tiling.pieces import PieceLengths, decode_in_pieces, encode_in_pieces
from mg.tiling.sizes import Tiling
from mg.tiling.tiles import MapFunction, tiled_decode, tiled_encode
from mg.weights.tensor_check import check_tensors

__all__ = ["Autoencoder", "AutoencoderSettings"]


class AutoencoderSettings(Protocol):
    """What a family's config, a frozen dataclass, has besides its own fields."""

    spec: LatentSpec

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""


class Autoencoder(nn.Cell):
    """A network that turns video into a posterior over latents, and latents into video.

    A family implements `moments`, `last_weight`, `features` and `frames_of_features`, and sets
    `family` and `recomputed`. Its decoder ends in a convolution: the adversarial loss finds its
    weight from what goes into it and from its gradient (Esser et al., arXiv 2012.09841, eq. 7).

    Args:
        config: the network's config.
        use_tile: encode and decode in overlapping tiles, in bounded memory.
        tiling: sizes of the tiles; None takes some that fit the latents.
        sample_deterministic: `encode` gives z = mean instead of a sample.
        encode_dtype: precision of the encoder, "float32", "float16" or "bfloat16".
        decode_dtype: the same for the decoder. A bf16 decode loses nothing visible, a bf16
            encode does, so the two are set apart.

    Raises:
        ValueError: a precision that is unknown, or that this device has not.
    """

    family: str = ""  # its name in `mg.models.families`
    recomputed: tuple[type[nn.Cell], ...] = ()  # the blocks that `recompute_blocks` recomputes
    constants: tuple[str, ...] = ()  # names of parameters that never train
    has_posterior: bool = True  # else its latent is a point, and `logvar` says no more than that
    last_weight: Parameter  # of the decoder's last convolution
    # Where a clip is coded piece after piece, with the result of one piece: their lengths.
    piece_frames: PieceLengths | None = None
    # Where long clips are coded in tiles in time of the publisher's own.
    frame_tiles: FrameTiles | None = None
    # Whether one of the two is on; None where a family has neither. See `set_framewise`.
    framewise: bool | None = None

    def __init__(
        self,
        config: AutoencoderSettings,
        *,
        use_tile: bool = False,
        tiling: Tiling | None = None,
        sample_deterministic: bool = False,
        encode_dtype: str = "float32",
        decode_dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.config = config
        self.spec: LatentSpec = config.spec
        self.use_tile = use_tile
        self.tiling = tiling if tiling is not None else Tiling.default(self.spec)
        self.map_tiles: MapFunction = map  # set it to have tiles computed on several ranks
        self.sample_deterministic = sample_deterministic
        of_convolutions = functools.partial(dtype_named, operation="convolution")
        self.encode_dtype = of_convolutions(encode_dtype, "encode_dtype")
        self.decode_dtype = of_convolutions(decode_dtype, "decode_dtype")

    # -- inside compiled graphs: tensors in, tensors out, no checks ------------------------------

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, T', H', W') in fp32 of a video (B, 3, T, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement moments")

    def frames_from(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the decoded video (B, 3, T, H, W) in fp32 of a latent, T at least `num_frames`.

        Args:
            z: (B, C, T', H', W').
            num_frames: frames of the video that was encoded; None gives all that come out.
        """
        features, num_decoded = self.features(z, num_frames)
        return self.frames_of_features(features, num_decoded, self.last_weight)

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last convolution takes, (B*T, C, H, W), and T.

        Args:
            z, num_frames: as for `frames_from`. H and W count patches where a family has them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement features")

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` in place of `last_weight`.

        Args:
            features: (B*T, C, H, W), from `features`.
            num_frames: T.
            weight: in the shape of `last_weight`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement frames_of_features")

    def encode_piece(self, video: Tensor, past: tuple = ()) -> tuple[Tensor, Tensor, tuple]:
        """Return mean and logvar (B, C, T', H', W') in fp32 of a piece, and the past of the next.

        Args:
            video: (B, 3, T, H, W), of a length of `piece_frames`.
            past: what the piece before it handed on; () for the first.
        """
        raise NotImplementedError(f"{type(self).__name__} does not code piece by piece")

    def decode_piece(self, z: Tensor, past: tuple = ()) -> tuple[Tensor, tuple]:
        """Return the video (B, 3, T, H, W) in fp32 of a piece, and the past of the next.

        Args:
            z: (B, C, T', H', W'), the latent of a piece.
            past: what the piece before it handed on; () for the first.
        """
        raise NotImplementedError(f"{type(self).__name__} does not code piece by piece")

    def sample(self, mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
        """Return z = mean + exp(logvar / 2) * noise."""
        return mean + ops.exp(0.5 * logvar) * noise

    def construct(self, video: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the reconstruction (B, 3, T, H, W) of `video`.

        Args:
            video: (B, 3, T, H, W) in [-1, 1], of a length that the network takes.
            noise: standard normal, in the latent's shape, to sample the posterior with; without
                it the posterior's mean is decoded.
        """
        mean, logvar = self.moments(video)
        z = mean if noise is None else self.sample(mean, logvar, noise)
        num_frames = video.shape[2]
        frames = self.frames_from(z, num_frames)
        if frames.shape[2] == num_frames:
            return frames
        return frames[:, :, :num_frames]

    def recompute_blocks(self) -> None:
        """Compute the insides of blocks again in the backward pass: less memory, more time."""
        for _, cell in self.cells_and_names():
            if isinstance(cell, self.recomputed):
                cell.recompute()

    # -- weights ---------------------------------------------------------------------------------

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Set all parameters from arrays of the same names and shapes, of any precision.

        Raises:
            ValueError: a tensor is missing, left over, has another shape or holds whole numbers,
                by name; or the config fields with which the tensors disagree. Nothing is set then.
        """
        parameters = dict(self.parameters_and_names())
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        try:
            check_tensors(tensors, shapes)
        except ValueError as error:
            reasons = self.explain_mismatch(tensors)
            if not reasons:
                raise
            raise ValueError(
                f"the weights do not fit the config: {'; '.join(reasons)} ({error})"
            ) from error
        for name, array in tensors.items():
            if array.dtype.kind != "f":
                raise ValueError(
                    f"tensor {name!r} holds {array.dtype}, expected floating-point numbers"
                )
        for name, parameter in parameters.items():
            set_values(parameter, tensors[name])

    def explain_mismatch(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        """Return the config fields with which tensors of wrong names or shapes disagree."""
        return []

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all parameters by name, as `load_tensors` takes them."""
        return {name: p.asnumpy().copy() for name, p in self.parameters_and_names()}

    # -- for users -------------------------------------------------------------------------------

    def __call__(self, video: Tensor | np.ndarray, *args, **kwargs) -> Tensor:
        video = as_tensor(video, "video")
        self.check_video_shape(video.shape)
        return super().__call__(video, *args, **kwargs)

    def posterior(self, video: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        """Return mean and logvar, each (B, C, T', H', W'), float32.

        Args:
            video: (B, 3, T, H, W) in [-1, 1], any T >= 1. A length that the network cannot take
                is completed by repeating the last frame.

        Raises:
            ValueError: a shape that the network cannot take, with the nearest that it can.
        """
        video = as_tensor(video, "video")
        self.check_video_shape(video.shape)
        missing = self.spec.valid_frames(video.shape[2]) - video.shape[2]
        if missing:
            video = ops.concat([video, *[video[:, :, -1:]] * missing], axis=2)
        if self.frame_tiles is not None and (
            self.use_tile or video.shape[2] > self.frame_tiles.size
        ):
            return encode_in_frame_tiles(self, video, self.used_tiling, map_tiles=self.map_tiles)
        if not self.use_tile:
            return self.moments(video)
        if self.piece_frames is not None:
            return encode_in_pieces(self, video, self.tiling, map_tiles=self.map_tiles)
        return tiled_encode(self.moments, video, self.tiling, self.spec, map_tiles=self.map_tiles)

    def encode(
        self, video: Tensor | np.ndarray, *, seed: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (z, mean, logvar), each (B, C, T', H', W'), float32.

        z is a sample of the posterior N(mean, exp(logvar)), or its mean with
        `sample_deterministic`. It is not scaled: see `scale`.

        Args:
            video: (B, 3, T, H, W) in [-1, 1], T >= 1, H and W multiples of the compression.
            seed: makes the sample repeatable, on every device; None draws a fresh one.

        Raises:
            ValueError: a shape that the network cannot take, with the nearest that it can.
        """
        mean, logvar = self.posterior(video)
        if self.sample_deterministic:
            return mean, mean, logvar
        noise = np.random.default_rng(seed).standard_normal(mean.shape, np.float32)
        return self.sample(mean, logvar, Tensor(noise)), mean, logvar

    def decode(
        self,
        z: Tensor | np.ndarray,
        num_target_frames: int | None = None,
        *,
        num_frames: int | None = None,
    ) -> Tensor:
        """Return the video (B, 3, T, H, W), float32, about [-1, 1] (not clipped).

        Args:
            z: latent (B, C, T', H', W'), unscaled.
            num_target_frames: how many frames to keep of those decoded; the rest are the spurious
                tail of a clip that had to be completed.
            num_frames: the same, by the name that it has in `VideoVAE`.

        Raises:
            ValueError: wrong shape, more frames wanted than there are, or both names given.
        """
        if num_frames is not None:
            if num_target_frames is not None:
                raise ValueError("num_frames and num_target_frames are the same; give one")
            num_target_frames = num_frames
        z = as_tensor(z, "z")
        self.check_latent_shape(z.shape)
        num_decoded = self.spec.decoded_frames(z.shape[2])
        if num_target_frames is not None and not 1 <= num_target_frames <= num_decoded:
            raise ValueError(
                f"num_target_frames={num_target_frames}, but a latent of {z.shape[2]} frames "
                f"decodes to 1..{num_decoded} frames"
            )
        if self.frame_tiles is not None and (
            self.use_tile or z.shape[2] > self.frame_tiles.in_latents(self.spec).size
        ):
            video = decode_in_frame_tiles(self, z, self.used_tiling, map_tiles=self.map_tiles)
        elif self.use_tile and self.piece_frames is not None:
            video = decode_in_pieces(self, z, self.tiling, map_tiles=self.map_tiles)
        elif self.use_tile:
            video = tiled_decode(
                self.frames_from,
                z,
                self.tiling,
                self.spec,
                num_target_frames,
                map_tiles=self.map_tiles,
            )
        else:
            video = self.frames_from(z, num_target_frames)
        if num_target_frames is None or num_target_frames == video.shape[2]:
            return video
        return video[:, :, :num_target_frames]

    def scale(self, z: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Return a latent as a generator sees it: factor * z + offset of the spec."""
        return self.spec.scale(z)

    def unscale(self, z: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Return a generator's latent as `decode` takes it; the inverse of `scale`."""
        return self.spec.unscale(z)

    def check_video_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless (B, 3, T, H, W) is a video that the encoder can take."""
        self.spec.check_video(shape)

    def check_latent_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless (B, C, T', H', W') is a latent of this network."""
        self.spec.check_latent(shape)

    @property
    def used_tiling(self) -> Tiling:
        """The sizes of the tiles; without `use_tile` frames are not cut."""
        return self.tiling if self.use_tile else dataclasses.replace(self.tiling, height=0, width=0)

    def set_framewise(self, framewise: bool) -> None:
        """Code clips in time as the publisher does, or without that.

        CogVideoX's network codes chunks of 8 frames, Wan's of 4; each hands on what the next one's
        convolutions look back at. HunyuanVideo's codes more than 16 frames in tiles that overlap.
        Graphs that are compiled already stay as they are.

        Raises:
            ValueError: another family, which knows one way only.
        """
        if self.framewise is None:
            raise ValueError(
                f"framewise={framewise} has no effect: the family {self.family!r} has no way of "
                "its own to code clips in time; leave it away"
            )
        self.framewise = framewise

    def tiling_within(
        self, memory_budget_gb: float, height: int, width: int, *, batch_size: int = 1
    ) -> Tiling:
        """Return the largest tiles with which a process stays within a budget of memory.

        Args:
            memory_budget_gb: for the whole process, in GB (10^9 bytes).
            height, width: of the video, in pixels.
            batch_size: clips that are encoded or decoded together.

        Raises:
            ValueError: even the smallest tiles need more; or as `memory_gb`.
        """
        memory_gb = functools.partial(self.memory_gb, batch_size=batch_size)
        return Tiling.auto(
            self.spec, height, width, memory_gb=memory_gb, memory_budget_gb=memory_budget_gb
        )

    def memory_gb(self, num_frames: int, height: int, width: int, *, batch_size: int = 1) -> float:
        """Return about how much memory a process takes that codes a tile of this size, in GB.

        Raises:
            ValueError: it was not measured for this family.
        """
        raise ValueError(
            f"how much memory the family {self.family!r} takes has not been measured: leave "
            "memory_budget_gb away and set the sizes of the tiles (tiling.height, tiling.width)"
        )
