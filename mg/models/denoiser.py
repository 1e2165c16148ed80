"""What every denoiser is, whichever family it belongs to: `Denoiser`.

Layouts
    latent       (B, C, T, H, W)   scaled, as `LatentSpec.scale` gives it
    t            (B,)              time of the flow: 0 noise, 1 data
    conditions                     for each text encoder tokens (B, L, D) and a mask (B, L); then,
                                   with `config.condition_channels`, (B, C_c, T, H, W) beside the
                                   latent
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor, nn, ops

from mg.dtypes import dtype_named
from mg.file_names import CONFIG_FILE
from mg.models.denoiser_config import DenoiserConfig
from mg.models.denoiser_folder import read_denoiser, write_denoiser
from mg.models.families import denoiser_family
from mg.models.layers.tensors import as_tensor
from mg.parameters import set_whole_values, whole_shape, whole_values
from mg.weights.publishing import Publishable, model_card, write_card
from mg.weights.tensor_check import check_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Denoiser"]


class Denoiser(nn.Cell, Publishable):
    """A network that gives the velocity of a noisy latent at a time, under conditions.

    A family implements `construct` and sets `family`. Networks that were trained to predict noise
    or v on another clock are converted outside of them.

    Args:
        config: the network's config.
        dtype: precision of the computation, "float32", "float16" or "bfloat16".
        recompute_every: in training, compute the insides of every n-th block again in the backward
            pass; 0 is none. Subclasses call `recompute_blocks` once they have blocks.

    Raises:
        ValueError: a precision that is unknown, or that this device has not; a number below 0.
    """

    family: str = ""  # its name in `mg.models.families`
    config_name = CONFIG_FILE  # where `save_pretrained` writes the config

    def __init__(
        self, config: DenoiserConfig, *, dtype: str = "float32", recompute_every: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(recompute_every, int) or recompute_every < 0:
            raise ValueError(f"recompute_every={recompute_every!r}; expected 0 (none), 1, 2, ...")
        self.config = config
        self.dtype = dtype_named(dtype, "dtype", operation="matrix product")
        self.recompute_every = recompute_every
        self.block_edge = BlockEdge() if recompute_every else None

    def recompute_blocks(self, blocks: Sequence[nn.Cell]) -> None:
        """Have every `recompute_every`-th of these blocks computed again in the backward pass."""
        if self.recompute_every:
            for block in list(blocks)[self.recompute_every - 1 :: self.recompute_every]:
                block.recompute()

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Set all parameters from arrays of the same names and shapes.

        Raises:
            ValueError: a tensor is missing, left over or has another shape, by name.
        """
        parameters = dict(self.parameters_and_names())
        check_tensors(tensors, {name: whole_shape(p) for name, p in parameters.items()})
        for name, parameter in parameters.items():
            set_whole_values(parameter, tensors[name])

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of all parameters by name, as `load_tensors` takes them.

        If ranks share parameters, all of them must call it.
        """
        return {name: whole_values(p) for name, p in self.parameters_and_names()}

    def save_pretrained(self, folder: str | os.PathLike, overwrite: bool = False) -> None:
        """Write config.json and weights, as diffusers does; `from_pretrained` reads them back.

        A README.md that is not there yet is written too: a model card. If ranks share
        parameters, all of them must call it, with folders of their own.

        Raises:
            FileExistsError: a denoiser is there and `overwrite` is false.
        """
        family = denoiser_family(self.family)
        write_denoiser(folder, family, self.config, self.tensors(), overwrite=overwrite)
        num_parameters = family.num_parameters(self.config)
        card = model_card(
            f"Video denoiser ({self.family})",
            pipeline_tag="text-to-video",
            about=f"A denoiser of the family `{self.family}`, {num_parameters:,} parameters, for "
            f"latents of {self.config.latent_channels} channels.",
            usage="from mg.models.denoiser import Denoiser\n\n"
            "denoiser = Denoiser.from_pretrained('FOLDER')",
            config=self.config.to_dict(),
        )
        write_card(folder, card)

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike, *, key: str | None = None, **options: Any
    ) -> "Self":
        """Return the network of a folder or a weight file, for inference.

        Args:
            path: with config.json and weights, of the class called or, of `Denoiser`, of any.
            key: the weights to take from a file that holds several.
            options: of the constructor, such as dtype.

        Raises:
            FileNotFoundError, ValueError: as `mg.models.denoiser_folder.read_denoiser`; or it is
                of another family.
        """
        read = read_denoiser(path, key=key)
        if cls.family not in ("", read.family.name):
            raise ValueError(
                f"{path} holds a denoiser of family {read.family.name!r}, not {cls.family!r}; "
                f"open it with Denoiser.from_pretrained"
            )
        network = read.family.build(read.config, **options)
        network.load_tensors(read.tensors)
        return network.set_train(False)

    def __call__(
        self, latent: Tensor | np.ndarray, t: Tensor | np.ndarray, *conditions: Tensor | np.ndarray
    ) -> Tensor:
        """Return what `construct` does, once the shapes are known to be right.

        Arrays of numpy are taken as tensors: masks (bool) as they are, numbers as float32.
        """
        latent, t = as_tensor(latent, "latent"), as_tensor(t, "t")
        conditions = [as_tensor(x, f"condition {i}") for i, x in enumerate(conditions)]
        self.config.check_inputs(latent.shape, t.shape, *[x.shape for x in conditions])
        return super().__call__(latent, t, *conditions)

    def construct(self, latent: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Return the velocity (B, C, T, H, W) in fp32.

        Args:
            latent: noisy latent (B, C, T, H, W).
            t: time of each clip (B,), 0 (noise) to 1 (data).
            conditions: for each of `config.text_encoders`, in order, an embedding (B, L, width)
                and a mask (B, L) bool, true where a token counts; then, with
                `config.condition_channels`, what lies beside the latent, (B, C_c, T, H, W).
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement construct")


class BlockEdge(nn.Cell):
    """x itself, between two blocks that are computed again in the backward pass.

    The compiler takes adjoining blocks for one, which saves no memory. And where the gradients of
    what a block gives are added up, it looks for the start of that block's backward pass too late,
    and stops with "Graph cycle exists" (MindSpore 2.10). An operation in between, whose gradient
    is one of its own, prevents both.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.split = ops.Split(axis=1, output_num=1)

    def construct(self, x: Tensor) -> Tensor:
        return self.split(x)[0]
