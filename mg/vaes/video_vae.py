"""One interface for the video VAEs of all families: `VideoVAE`.

Layouts
    video    (B, 3, T, H, W)        float32 in [-1, 1]
    latent   (B, C, T', H', W')     float32, unscaled: what the decoder takes
    scaled latent, the same shape:  what a generator is trained on (`scale`, `unscale`)
"""

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from mg.latent_spec import LatentSpec
from mg.models.autoencoder import Autoencoder
from mg.models.autoencoder_folder import write_autoencoder
from mg.models.families import autoencoder_family
from mg.models.layers.tensors import as_tensor
from mg.models.reading import read_vae
from mg.tiling.sizes import Tiling
from mg.vaes.posterior import Posterior
from mg.weights.publishing import Publishable

__all__ = ["CLASSES", "Compression", "VideoVAE", "family_class"]


# Families that have tiles or files of their own kind -> module and class. Imported when asked for:
# MindSpore takes seconds.
CLASSES = {
    "opensora": ("mg.vaes.opensora", "OpenSoraVAE"),
    "cogvideox": ("mg.vaes.cogvideox", "CogVideoXVAE"),
    "hunyuan": ("mg.vaes.hunyuan", "HunyuanVideoVAE"),
    "wan": ("mg.vaes.wan", "WanVAE"),
    "causal_vae": ("mg.vaes.causal_vae", "CausalVideoVAE"),
    "dc_ae": ("mg.vaes.dc_ae", "VideoDCAE"),
    "sd": ("mg.vaes.autoencoder_kl", "AutoencoderKLVAE"),
    "tae": ("mg.vaes.tae", "TAEVideoVAE"),
}


class Compression(NamedTuple):
    """Frames, rows and columns of video per frame, row and column of latent."""

    t: int
    h: int
    w: int


class VideoVAE(Publishable):
    """A video autoencoder of any family: video -> posterior over latents -> video.

    Get one with `VideoVAE.from_pretrained`. A family whose publishers code in tiles of their own
    kind has a subclass, with another `enable_tiling`.

    Args:
        network: the network, with its weights.
        config: fields of the checkpoint's config.json; the network's own config fills the rest.
    """

    family: str = ""  # the `method` of from_pretrained, one of `mg.models.families.AUTOENCODERS`

    def __init__(self, network: Autoencoder, config: Mapping[str, Any] | None = None) -> None:
        self.network = network
        self.config = {**network.config.to_dict(), **(config or {})}
        # The posterior is what is asked for; a sample beside it would be thrown away.
        network.sample_deterministic = True
        network.set_train(False)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> "VideoVAE":
        """Return the VAE of a config with the weights given under their official names.

        Raises:
            ValueError: a tensor is missing, left over or has another shape, or a config that no
                network can be built from.
        """
        record = autoencoder_family(cls.family)
        network = record.build(record.read_config(config), has_values=False)
        network.load_tensors(tensors)
        return cls(network, config)

    @classmethod
    def shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return {official tensor name: shape} of the network of a config; allocates nothing."""
        record = autoencoder_family(cls.family)
        return record.shapes(record.read_config(config))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all weights under the names of the family's official checkpoints."""
        return self.network.tensors()

    # -- what a family with tiles of its own changes ----------------------------------------------

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logvar (B, C, T', H', W') of a video whose length the network takes."""
        return self.network.posterior(video)

    def frames_from(self, latent: Tensor, num_frames: int | None) -> Tensor:
        """Return the video (B, 3, T, H, W) of an unscaled latent, T at least `num_frames`.

        Args:
            latent: (B, C, T', H', W').
            num_frames: frames of the video that was encoded; None asks for all that come out.
        """
        return self.network.decode(latent, num_frames)

    def enable_tiling(self, **sizes: int) -> None:
        """Encode and decode in overlapping tiles from now on, in less memory.

        Args:
            sizes: fields of `mg.tiling.sizes.Tiling`; what is left out fits the latents.

        Raises:
            ValueError: sizes that do not fit the network's compression.
        """
        tiling = dataclasses.replace(Tiling.default(self.spec), **sizes)
        tiling.check(self.spec)
        self.network.tiling = tiling
        self.network.use_tile = True

    def disable_tiling(self) -> None:
        """Encode and decode in one piece again."""
        self.network.use_tile = False

    def set_framewise(self, framewise: bool) -> None:
        """Code clips in time as the publisher does (the default), or without that.

        Args and Raises: as `mg.models.autoencoder.Autoencoder.set_framewise`.
        """
        self.network.set_framewise(framewise)

    def stored_config(self) -> dict[str, Any]:
        """Return the fields of the `config.json` that `save_pretrained` writes."""
        stated = {key: value for key, value in self.config.items() if key != "_class_name"}
        return {"_class_name": self.class_name, **stated}

    def weights_metadata(self) -> dict[str, str]:
        """Return texts for the header of the weights file that `save_pretrained` writes."""
        return {}

    # -- for users -------------------------------------------------------------------------------

    @property
    def spec(self) -> LatentSpec:
        """The size of the latents, and the scale that a generator sees them at."""
        return self.network.spec

    @property
    def class_name(self) -> str:
        """`_class_name` in the config.json that is saved."""
        return autoencoder_family(self.family).class_names[0]

    @property
    def weights_file(self) -> str:
        """Name of the weights beside config.json."""
        return autoencoder_family(self.family).weights_file

    @property
    def compression(self) -> Compression:
        """Frames, rows and columns of video per frame, row and column of latent."""
        return Compression(self.spec.t, self.spec.h, self.spec.w)

    @property
    def latent_channels(self) -> int:
        """C of the latents."""
        return self.spec.channels

    def num_valid_frames(self, num_frames: int) -> int:
        """Return the smallest number of frames >= `num_frames` that the network takes."""
        return self.spec.valid_frames(num_frames)

    def num_latent_frames(self, num_frames: int) -> int:
        """Return T' of the latent of a video of `num_frames` frames."""
        return self.spec.latent_frames(num_frames)

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike,
        method: str = "auto",
        inflate_method: str = "central",
        *,
        inflate_options: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | str | os.PathLike | None = None,
        cache_folder: str | os.PathLike | None = None,
        key: str | None = None,
    ) -> "VideoVAE":
        """Return the VAE of a checkpoint on disk, or of a public one by its name.

        Args:
            name_or_path: a weight file, or a folder with one (its own, or that of a whole pipeline
                with a folder `vae`); or a name such as `THUDM/CogVideoX-2b`
                (`mg.weights.hub.HUB_MODELS`), which is downloaded once.
            method: the family, one of `mg.models.families.AUTOENCODERS`. `auto` recognises it from
                the config and the tensors; `local` does so too, for a path on disk alone.
            inflate_method: of a 2-D VAE (family sd): central, replicate or average inflates it
                into a Temporal Autoencoder (`mg.weights.inflation`), or, where `config` is that of
                a CausalVideoVAE, into one (`mg.models.causal_vae.inflation`; there central is the
                last tap, also called tail); none keeps it as it is and codes frame by frame.
            inflate_options: fields of the config of the Temporal Autoencoder to come, such as
                `{"norm_per_frame": True}`: temporal_padding, or one of
                `mg.weights.inflation.STRUCTURE_KEYS`.
            config: fields, or a JSON file, to use in place of the checkpoint's config.json.
                Without any, sizes are read off the tensors, and a warning names what is assumed.
            cache_folder: where downloads are kept; None takes the default.
            key: the weights to take from a file that holds several, such as `state_dict`; None
                takes those averaged over training, if it has some.

        Raises:
            FileNotFoundError: the path, or weights in the folder, do not exist.
            ValueError: an unknown name, another family than `method` says, weights that do not
                fit their config, or an argument without effect.
        """
        read = read_vae(
            name_or_path,
            method=method,
            inflate_method=inflate_method,
            inflate_options=inflate_options,
            config=config,
            cache_folder=cache_folder,
            key=key,
        )
        try:
            return family_class(read.family).from_tensors(read.tensors, read.config)
        except ValueError as error:
            raise ValueError(f"{name_or_path}: {error}") from error

    def save_pretrained(self, folder: str | os.PathLike, overwrite: bool = False) -> None:
        """Write config.json and the weights into a folder, as the family's own package names them.

        A README.md that is not there yet is written too: a model card.

        Raises:
            FileExistsError: one of them is there already and `overwrite` is false.
        """
        write_autoencoder(
            folder,
            autoencoder_family(self.family),
            self.stored_config(),
            self.tensors(),
            self.spec,
            metadata=self.weights_metadata(),
            overwrite=overwrite,
        )

    def encode(self, video: Tensor | np.ndarray, *, complete: bool = True) -> Posterior:
        """Return the posterior over latents (B, C, T', H', W') of a video.

        Args:
            video: (B, 3, T, H, W) in [-1, 1], any T >= 1; H and W multiples of the compression.
                A length that the family cannot give back is completed by repeating the last frame.
            complete: False hands on the frames as they are, which makes the latent as long as
                diffusers' (2 frames for CogVideoX's 5 or 4 for its 13); what such a latent decodes
                to may be other frames, so that the posterior does not say how many.

        Raises:
            ValueError: a shape that the network cannot take, with the nearest that it can.
        """
        video = _as_float32(video, "video")
        self.spec.check_video(video.shape)
        num_frames = video.shape[2]
        num_missing = self.num_valid_frames(num_frames) - num_frames
        if num_missing and not complete:
            if (num_frames - self.spec.head) % self.spec.t:
                raise ValueError(
                    f"a video of {num_frames} frames: without completing, expected "
                    f"{self.spec.head} and a multiple of {self.spec.t}"
                )
            return Posterior(*self.moments(video))
        if num_missing:
            video = ops.concat([video, *[video[:, :, -1:]] * num_missing], axis=2)
        return Posterior(*self.moments(video), num_frames=num_frames)

    def decode(self, latent: Tensor | np.ndarray | Posterior, num_frames: int | None = None):
        """Return the video (B, 3, T, H, W), float32, about [-1, 1] (not clipped).

        Args:
            latent: (B, C, T', H', W'), unscaled; or a posterior, whose mode is decoded.
            num_frames: how many frames to keep: as many as were encoded. None keeps all, or, of a
                posterior, as many as were encoded.

        Raises:
            ValueError: wrong shape, or more frames wanted than there are.
        """
        if isinstance(latent, Posterior):
            num_frames = latent.num_frames if num_frames is None else num_frames
            latent = latent.mode()
        latent = _as_float32(latent)
        self.spec.check_latent(latent.shape)
        if num_frames is not None and self.num_latent_frames(num_frames) > latent.shape[2]:
            raise ValueError(
                f"num_frames={num_frames} needs a latent of {self.num_latent_frames(num_frames)} "
                f"frames, got one of {latent.shape[2]}"
            )
        video = self.frames_from(latent, num_frames).astype(ms.float32)
        if num_frames is None or num_frames == video.shape[2]:
            return video
        return video[:, :, :num_frames]

    def scale(self, latent: Tensor | np.ndarray) -> Tensor:
        """Return the latent as a generator sees it (`mg.latent_spec` says by which rule)."""
        return self.spec.scale(_as_float32(latent))

    def unscale(self, latent: Tensor | np.ndarray) -> Tensor:
        """Return a generator's latent as the decoder takes it; the inverse of `scale`."""
        return self.spec.unscale(_as_float32(latent))


def family_class(family: str) -> type[VideoVAE]:
    """Return the class of a family: its own where it has one, else `VideoVAE` for its networks."""
    if family not in CLASSES:
        return type(VideoVAE.__name__, (VideoVAE,), {"family": family})
    module, name = CLASSES[family]
    return getattr(importlib.import_module(module), name)


def _as_float32(array: Tensor | np.ndarray, name: str = "latent") -> Tensor:
    given = array if isinstance(array, Tensor) else np.asarray(array)
    return as_tensor(given, name).astype(ms.float32)
