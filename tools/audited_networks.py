"""The networks whose graphs `audit_ascend.py` checks, small, in the form they have on Ascend."""

from typing import TYPE_CHECKING, Any

from mg.models.tae.config import TAEConfig

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["GRAPHS", "network_and_inputs"]

GRAPHS = ("encode", "decode", "train", "discriminator", "movie_gen")


def network_and_inputs(
    config: TAEConfig, graph: str, dtype: str
) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return one of the networks to compile, and inputs for two clips of 16x16 latent pixels.

    Args:
        config: of the TAE.
        graph: of `GRAPHS`. train is the whole training step: the loss with all its terms, the
            adversarial one included, its gradient, accumulation, clipping, AdamW, weight average;
            discriminator is the training step of the discriminator; movie_gen is a small video
            transformer and its gradient.
        dtype: of `DTYPES`.
    """
    if graph == "movie_gen":
        return _transformer_and_inputs(dtype)
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn

    from mg.losses.perceptual import PerceptualLoss
    from mg.models.discriminator import Discriminator
    from mg.models.discriminator_config import DiscriminatorConfig
    from mg.models.perceptual import LPIPS, LPIPSConfig
    from mg.models.tae.tae import TemporalAutoencoder
    from mg.training.config import AdversarialSettings, LossSettings, OptimSettings
    from mg.training.discriminator_loss import DiscriminatorLoss
    from mg.training.step import TrainStep
    from mg.training.tae_loss import TAELoss

    class Method(nn.Cell):
        """Hold the network and call one of its methods."""

        def __init__(self, network: nn.Cell, method: str) -> None:
            super().__init__()
            self.network = network
            self.method = method

        def construct(self, x: Tensor):
            if self.method == "encode":
                return self.network.moments(x)
            return self.network.frames_from(x)

    tae = TemporalAutoencoder(config)
    # Set after building: the network refuses bf16 where it would have to run on CPU.
    tae.encode_dtype = tae.decode_dtype = ms.float32 if dtype == "float32" else ms.bfloat16
    frames, side = 2 * config.temporal_compression, 16 * config.spatial_compression
    video = Tensor(np.zeros((2, config.in_channels, frames, side, side), np.float32))
    latent = Tensor(np.zeros((2, config.z_channels, 2, 16, 16), np.float32))
    if graph == "encode":
        return Method(tae, graph), (video,)
    if graph == "decode":
        return Method(tae, graph), (latent,)
    adversarial = AdversarialSettings(
        lecam_weight=1.0,
        network=DiscriminatorConfig(kind="video", ch=8, num_layers=2, norm_groups=8),
    )
    discriminator = Discriminator(adversarial.network)
    optim = OptimSettings(accumulation_steps=2)
    scalar = Tensor(1.0, ms.float32)
    if graph == "discriminator":
        step = TrainStep(DiscriminatorLoss(discriminator, adversarial), optim).set_train()
        return step, (scalar, scalar, scalar, True, video, video, scalar, scalar)
    settings = LossSettings(mse_weight=1.0, opl_loss_weight=1.0)
    perceptual = PerceptualLoss(LPIPS(LPIPSConfig("vgg", (8,) * 5)))  # few channels: same graph
    loss = TAELoss(
        tae, settings, perceptual=perceptual, adversarial=adversarial, discriminator=discriminator
    )
    step = TrainStep(loss, optim, parameters=tae.trainable_params()).set_train()
    frame_indices = Tensor(np.arange(2, dtype=np.int32))
    return step, (scalar, scalar, scalar, True, video, latent, frame_indices)


def _transformer_and_inputs(dtype: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return the gradient of a video transformer with all its options, and its inputs."""
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn, ops

    from mg.models.movie_gen.config import MovieGenConfig, TextInput
    from mg.models.movie_gen.transformer import MovieGenTransformer

    class Gradient(nn.Cell):
        """Give the velocity's square mean and its gradient by all parameters."""

        def __init__(self, network: nn.Cell) -> None:
            super().__init__()
            self.network = network
            self.of = ms.value_and_grad(self.loss, None, weights=network.trainable_params())

        def loss(self, *inputs: Tensor) -> Tensor:
            return ops.square(self.network(*inputs)).mean()

        def construct(self, *inputs: Tensor):
            return self.of(*inputs)

    config = MovieGenConfig(
        num_layers=1,
        dim=32,
        ffn_dim=48,
        num_heads=2,
        position_table=(2, 2, 2),
        text_encoders=(TextInput("first", 8, 4), TextInput("second", 4, 4)),
        timestep_width=8,
        qk_norm=True,
        rope=True,
    )
    network = MovieGenTransformer(config)
    # Set after building, which would choose what CPU needs.
    network.dtype = ms.float32 if dtype == "float32" else ms.bfloat16
    for _, cell in network.cells_and_names():
        if hasattr(cell, "on_cpu"):
            cell.on_cpu = False
        if hasattr(cell, "flash"):
            cell.flash = dtype != "float32"
    latent = Tensor(np.zeros((2, config.latent_channels, 2, 4, 4), np.float32))
    text = (np.zeros((2, 4, 8), np.float32), np.ones((2, 4), bool))
    text += (np.zeros((2, 4, 4), np.float32), np.ones((2, 4), bool))
    t = Tensor(np.zeros(2, np.float32))
    return Gradient(network), (latent, t, *(Tensor(value) for value in text))
