"""Movie Gen's Temporal Autoencoder (TAE): video to a small latent and back.

Layouts
    video    (B, 3, T, H, W)         in [-1, 1], any T >= 1; an image is T = 1
    latent   (B, 16, T', H/8, W/8)   T' = ceil(T/8)
Source: Movie Gen (arXiv 2410.13720) section 3.1.1.
"""

import os
from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mg.device import runs_on_cpu
from mg.models.tae.config import LOGVAR_MAX, LOGVAR_MIN, TAE_CONFIG, TAEConfig
from mg.models.tae.decoder import Decoder
from mg.models.tae.encoder import Encoder
from mg.models.tae.layers import ResnetBlock, SpatialConv, fold_frames, unfold_frames
from mg.models.tae.tiling import MapFunction, Tiling, tiled_decode, tiled_encode
from mg.parameters import set_values
from mg.weights.load import check_tensors, explain_config_mismatch, load_tae_tensors

__all__ = ["TAE_CONFIG", "TemporalAutoencoder"]

DTYPES = {"float32": ms.float32, "float16": ms.float16, "bfloat16": ms.bfloat16}


class TemporalAutoencoder(nn.Cell):
    """The TAE: `encode` gives (z, mean, logvar), `decode` the video, calling it both in a row.

    Args:
        config: mapping with the keys of `TAE_CONFIG`, or a `TAEConfig`. None takes the config that
            is stored with the weights, and `TAE_CONFIG` where there is none.
        pretrained: weights to load: our `.safetensors` or `.ckpt`, a public MindSpore TAE
            checkpoint, or an image VAE like Stable Diffusion's, SDXL's or SD3.5's (inflated on the
            fly).
        use_tile: encode and decode in overlapping tiles, in bounded memory.
        tiling: sizes of the tiles, with `use_tile`.
        sample_deterministic: `encode` gives z = mean instead of a sample.
        encode_dtype: precision of the encoder, "float32", "float16" or "bfloat16".
        decode_dtype: the same for the decoder. A bf16 decode loses nothing visible, a bf16
            encode does, so the two are set apart.
        recompute: in training, compute the residual blocks' insides again in the backward pass
            instead of keeping them: less memory, more time.

    Raises:
        ValueError: a config that no network can be built from, or weights that do not fit it.
        FileNotFoundError: `pretrained` does not exist.
    """

    def __init__(
        self,
        config: Mapping | TAEConfig | None = None,
        pretrained: str | os.PathLike | None = None,
        use_tile: bool = False,
        *,
        tiling: Tiling | None = None,
        sample_deterministic: bool = False,
        encode_dtype: str = "float32",
        decode_dtype: str = "float32",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        tensors = None
        if pretrained is not None:
            tensors, stored_config = load_tae_tensors(pretrained, config=_as_dict(config))
            config = stored_config if config is None else config
        self.config = TAEConfig.from_mapping(TAE_CONFIG if config is None else config)
        self.use_tile = use_tile
        self.tiling = tiling if tiling is not None else Tiling()
        self.map_tiles: MapFunction = map  # set it to have tiles computed on several ranks
        self.sample_deterministic = sample_deterministic
        self.encode_dtype = _dtype(encode_dtype, "encode_dtype")
        self.decode_dtype = _dtype(decode_dtype, "decode_dtype")

        channels = self.config.z_channels
        num_moments = 2 * channels if self.config.double_z else channels
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.quant_conv = (
            SpatialConv(num_moments, num_moments, kernel_size=1)
            if self.config.use_quant_conv
            else None
        )
        self.post_quant_conv = (
            SpatialConv(channels, channels, kernel_size=1)
            if self.config.use_post_quant_conv
            else None
        )
        if recompute:
            for _, cell in self.cells_and_names():
                if isinstance(cell, ResnetBlock):
                    cell.recompute()
        if tensors is not None:
            self.load_tensors(tensors)

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Set all parameters from arrays of the same names and shapes.

        Raises:
            ValueError: a tensor is missing, left over or has another shape, by name; or the
                config fields with which the tensors disagree.
        """
        parameters = dict(self.parameters_and_names())
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        try:
            check_tensors(tensors, shapes)
        except ValueError as error:
            reasons = explain_config_mismatch(tensors, self.config.to_dict())
            if not reasons:
                raise
            raise ValueError(
                "the weights do not fit the config: " + "; ".join(reasons) + f"\n{error}"
            ) from error
        for name, parameter in parameters.items():
            set_values(parameter, tensors[name])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all parameters by name, as `load_tensors` takes them."""
        return {name: p.asnumpy().copy() for name, p in self.parameters_and_names()}

    # -- inside compiled graphs: tensors in, tensors out, no checks ------------------------------

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, z_channels, T', H', W') in fp32 of video (B, 3, T, H, W)."""
        h = self.encoder(video.astype(self.encode_dtype))
        if self.quant_conv is not None:
            h = unfold_frames(self.quant_conv(fold_frames(h)), h.shape[2])
        h = h.astype(ms.float32)
        if not self.config.double_z:
            # No variance was learned: the posterior is a point, exp(logvar) ~ 0.
            return h, ops.full_like(h, LOGVAR_MIN)
        mean, logvar = ops.chunk(h, 2, axis=1)
        return mean, ops.clamp(logvar, LOGVAR_MIN, LOGVAR_MAX)

    def sample(self, mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
        """Return z = mean + exp(logvar / 2) * noise."""
        return mean + ops.exp(0.5 * logvar) * noise

    def frames_from(self, z: Tensor) -> Tensor:
        """Return the decoded video (B, 3, 8T', 8H', 8W') in fp32 of a latent, all its frames."""
        return self.frames_of_features(*self.features(z), self.last_weight)

    def features(self, z: Tensor) -> tuple[Tensor, int]:
        """Return what the decoder's last layer turns into frames, (B*T, ch, H, W), and T."""
        z = z.astype(self.decode_dtype)
        if self.post_quant_conv is not None:
            z = unfold_frames(self.post_quant_conv(fold_frames(z)), z.shape[2])
        return self.decoder.features(z)

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last spatial weight."""
        x = self.decoder.conv_out.with_spatial_weight(features, num_frames, weight)
        return unfold_frames(x, num_frames).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The spatial weight of the decoder's last layer, (3, ch, 3, 3)."""
        return self.decoder.conv_out.conv_spat.weight

    def construct(self, video: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the reconstruction (B, 3, T, H, W) of `video`.

        Args:
            video: (B, 3, T, H, W) in [-1, 1].
            noise: standard normal, in the latent's shape, to sample the posterior with; without
                it the posterior's mean is decoded.
        """
        mean, logvar = self.moments(video)
        z = mean if noise is None else self.sample(mean, logvar, noise)
        frames = self.frames_from(z)
        num_frames = video.shape[2]
        if frames.shape[2] == num_frames:
            return frames
        return frames[:, :, :num_frames]

    # -- for users -------------------------------------------------------------------------------

    def __call__(self, video: Tensor, *args, **kwargs) -> Tensor:
        self.check_video_shape(video.shape)
        return super().__call__(video, *args, **kwargs)

    def encode(self, video: Tensor, *, seed: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (z, mean, logvar), each (B, z_channels, T', H/8, W/8), float32.

        z is a sample of the posterior N(mean, exp(logvar)), or its mean with
        `sample_deterministic`. It is not scaled: see `scaling_factor`, `shift_factor`.

        Args:
            video: (B, 3, T, H, W) in [-1, 1], T >= 1, H and W multiples of 8.
            seed: makes the sample repeatable, on every device; None draws a fresh one.

        Raises:
            ValueError: a shape that the network cannot take, with the nearest that it can.
        """
        self.check_video_shape(video.shape)
        if self.use_tile:
            mean, logvar = tiled_encode(
                self.moments, video, self.tiling, self.config, map_tiles=self.map_tiles
            )
        else:
            mean, logvar = self.moments(video)
        if self.sample_deterministic:
            return mean, mean, logvar
        noise = np.random.default_rng(seed).standard_normal(mean.shape, np.float32)
        return self.sample(mean, logvar, Tensor(noise)), mean, logvar

    def decode(self, z: Tensor, num_target_frames: int | None = None) -> Tensor:
        """Return the video (B, 3, T, H, W), float32, about [-1, 1] (not clipped).

        Args:
            z: latent (B, z_channels, T', H', W'), unscaled.
            num_target_frames: how many frames to keep of the 8 * T' decoded; the rest are the
                spurious tail of a clip whose length is no multiple of 8.

        Raises:
            ValueError: wrong shape, or more frames wanted than there are.
        """
        self.check_latent_shape(z.shape)
        num_decoded = z.shape[2] * self.config.temporal_compression
        if num_target_frames is not None and not 1 <= num_target_frames <= num_decoded:
            raise ValueError(
                f"num_target_frames={num_target_frames}, but a latent of {z.shape[2]} frames "
                f"decodes to 1..{num_decoded} frames"
            )
        if self.use_tile:
            video = tiled_decode(
                self.frames_from, z, self.tiling, self.config, map_tiles=self.map_tiles
            )
        else:
            video = self.frames_from(z)
        if num_target_frames is None or num_target_frames == num_decoded:
            return video
        return video[:, :, :num_target_frames]

    def check_video_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless (B, 3, T, H, W) is a video that the encoder can take."""
        channels, factor = self.config.in_channels, self.config.spatial_compression
        if len(shape) != 5 or shape[1] != channels or min(shape) < 1:
            raise ValueError(
                f"expected a video (batch, {channels}, frames, height, width), got {tuple(shape)}"
            )
        for name, size in (("height", shape[3]), ("width", shape[4])):
            if size % factor:
                below = size // factor * factor
                legal = f"{below} or {below + factor}" if below else f"{factor}"
                raise ValueError(
                    f"{name} {size} is not a multiple of {factor}; resize or crop to {legal}"
                )

    def check_latent_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless (B, z_channels, T', H', W') is a latent of this network."""
        if len(shape) != 5 or shape[1] != self.config.z_channels or min(shape) < 1:
            raise ValueError(
                f"expected a latent (batch, {self.config.z_channels}, frames, height, width), "
                f"got {tuple(shape)}"
            )


def _as_dict(config: Mapping | TAEConfig | None) -> dict | None:
    return None if config is None else TAEConfig.from_mapping(config).to_dict()


def _dtype(name: str, argument: str) -> ms.Type:
    if name not in DTYPES:
        raise ValueError(f"{argument}={name!r}; expected one of {sorted(DTYPES)}")
    if name == "bfloat16" and runs_on_cpu():
        raise ValueError(
            f"{argument}=bfloat16: MindSpore's CPU kernels have no bf16 convolution; use float32 "
            "or float16 on CPU"
        )
    return DTYPES[name]
