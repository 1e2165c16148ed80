"""Movie Gen's Temporal Autoencoder (TAE): video to a small latent and back.

Layouts
    video    (B, 3, T, H, W)         in [-1, 1], any T >= 1; an image is T = 1
    latent   (B, 16, T', H/8, W/8)   T' = ceil(T/8)
Source: Movie Gen (arXiv 2410.13720) section 3.1.1.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from mg.latent_spec import LOGVAR_MAX, LOGVAR_MIN
from mg.models.autoencoder import Autoencoder
from mg.models.autoencoder_folder import write_autoencoder
from mg.models.families import autoencoder_family
from mg.models.layers.convolution import Conv2d
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.reading import read_autoencoder
from mg.models.tae.config import TAE_CONFIG, TAEConfig
from mg.models.tae.layers import ResnetBlock
from mg.models.tae.memory import estimated_memory_gb
from mg.models.tae.network import Decoder, Encoder
from mg.tiling.sizes import Tiling
from mg.weights.publishing import Publishable
from mg.weights.stored_config import config_metadata
from mg.weights.tae_names import explain_config_mismatch

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TAE_CONFIG", "TemporalAutoencoder"]


class TemporalAutoencoder(Autoencoder, Publishable):
    """The TAE: `encode` gives (z, mean, logvar), `decode` the video, calling it both in a row.

    Args:
        config: mapping with the keys of `TAE_CONFIG`, or a `TAEConfig`. None takes the config that
            is stored with the weights, and `TAE_CONFIG` where there is none.
        pretrained: weights to load: our `.safetensors` or `.ckpt`, a public MindSpore TAE
            checkpoint, or an image VAE like Stable Diffusion's, SDXL's or SD3.5's (inflated on the
            fly); a path, or a name from `mg download --list`.
        use_tile: encode and decode in overlapping tiles, in bounded memory.
        tiling: sizes of the tiles, with `use_tile`.
        sample_deterministic: `encode` gives z = mean instead of a sample.
        encode_dtype: precision of the encoder, "float32", "float16" or "bfloat16".
        decode_dtype: the same for the decoder. A bf16 decode loses nothing visible, a bf16
            encode does, so the two are set apart.
        recompute: in training, compute the residual blocks' insides again in the backward pass
            instead of keeping them: less memory, more time.
        key: with `pretrained`, the weights to take from a file that holds several, such as
            `state_dict`; None takes those averaged over training, if it has some.

    Raises:
        ValueError: a config that no network can be built from, or weights that do not fit it.
        FileNotFoundError: `pretrained` does not exist.
    """

    family = "tae"
    recomputed = (ResnetBlock,)

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
        key: str | None = None,
    ) -> None:
        parts = None
        if pretrained is not None:
            parts = read_autoencoder(pretrained, config=_as_dict(config), key=key, into=self.family)
            config = parts.config
        super().__init__(
            TAEConfig.from_mapping(TAE_CONFIG if config is None else config),
            use_tile=use_tile,
            tiling=tiling,
            sample_deterministic=sample_deterministic,
            encode_dtype=encode_dtype,
            decode_dtype=decode_dtype,
        )
        channels = self.config.z_channels
        num_moments = 2 * channels if self.config.double_z else channels
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.quant_conv = (
            Conv2d(num_moments, num_moments, kernel_size=1) if self.config.use_quant_conv else None
        )
        self.post_quant_conv = (
            Conv2d(channels, channels, kernel_size=1) if self.config.use_post_quant_conv else None
        )
        if recompute:
            self.recompute_blocks()
        if parts is not None:
            self.load_tensors(parts.tensors)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **options: Any) -> "Self":
        """Return `TemporalAutoencoder(pretrained=name_or_path, **options)`, for inference.

        `mg.VideoVAE.from_pretrained` opens the autoencoders of all families.

        Args:
            name_or_path: a weight file, or a folder with one.
            options: as of the constructor.

        Raises:
            ValueError, FileNotFoundError: as the constructor.
        """
        return cls(pretrained=name_or_path, **options).set_train(False)

    def save_pretrained(self, folder: str | os.PathLike, overwrite: bool = False) -> None:
        """Write config.json, the weights and, if there is none, a model card into a folder.

        `from_pretrained` reads it back, here and of `mg.VideoVAE`.

        Raises:
            FileExistsError: an autoencoder is there already and `overwrite` is false.
        """
        family, config = autoencoder_family(self.family), self.config.to_dict()
        fields = {"_class_name": family.class_names[0], **config}
        write_autoencoder(
            folder,
            family,
            fields,
            self.tensors(),
            self.spec,
            metadata=config_metadata(config),
            overwrite=overwrite,
        )

    def explain_mismatch(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        return explain_config_mismatch(tensors, self.config.to_dict())

    def memory_gb(self, num_frames: int, height: int, width: int, *, batch_size: int = 1) -> float:
        return estimated_memory_gb(self.config, num_frames, height, width, batch_size=batch_size)

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

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        """Return what the decoder's last layer turns into frames, (B*T, ch, H, W), and T.

        T, H and W count patches where the config has them.
        """
        z = z.astype(self.decode_dtype)
        if self.post_quant_conv is not None:
            z = unfold_frames(self.post_quant_conv(fold_frames(z)), z.shape[2])
        return self.decoder.features(z)

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        """Return the video (B, 3, T, H, W) in fp32, with `weight` as the last spatial weight."""
        return self.decoder.frames(features, num_frames, weight).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        """The spatial weight of the decoder's last layer, (3 * patch_volume, ch, 3, 3)."""
        return self.decoder.conv_out.conv_spat.weight


def _as_dict(config: Mapping | TAEConfig | None) -> dict | None:
    return None if config is None else TAEConfig.from_mapping(config).to_dict()
