"""The networks whose graphs `audit_ascend.py` checks, small, in the form they have on Ascend."""

from typing import TYPE_CHECKING, Any

import audited_autoencoders
import audited_denoisers
from audited_autoencoders import AUTOENCODER_GRAPHS, autoencoder_and_inputs
from audited_denoisers import DENOISER_GRAPHS, denoiser_and_inputs
from mg.models.families import autoencoder_family, denoiser_family

if TYPE_CHECKING:
    from mindspore import nn

    from mg.models.autoencoder import AutoencoderSettings

__all__ = [
    "AUTOENCODER_FAMILIES",
    "DENOISER_FAMILIES",
    "FLOAT32_GRAPHS",
    "GRAPHS",
    "network_and_inputs",
]

GRAPHS = (
    "encode",
    "decode",
    "train",
    "discriminator",
    "movie_gen",
    "movie_gen_train",
    "sampler",
    "t5",
    "clip",
    "llama",
    *DENOISER_GRAPHS,
    *AUTOENCODER_GRAPHS,
)
# Families whose graphs are among these.
AUTOENCODER_FAMILIES = ("tae", *audited_autoencoders.CONFIGS)
DENOISER_FAMILIES = ("movie_gen", *audited_denoisers.FAMILIES)
# These text encoders run in float32, whatever precision the rest has.
FLOAT32_GRAPHS = ("t5", "clip")

# Configs of text encoders, small, with the activations of UL2 and ByT5 and of CLIP.
TEXT_CONFIGS = {
    "t5": {
        "vocab_size": 32,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
    },
    "clip": {
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "hidden_act": "quick_gelu",
    },
}
# A video transformer, small, with all its options.
TRANSFORMER_CONFIG = {
    "num_layers": 1,
    "dim": 32,
    "ffn_dim": 48,
    "num_heads": 2,
    "position_table": [2, 2, 2],
    "text_encoders": [
        {"name": "first", "width": 8, "max_tokens": 4},
        {"name": "second", "width": 4, "max_tokens": 4},
    ],
    "timestep_width": 8,
    "qk_norm": True,
    "rope": True,
}


def network_and_inputs(
    config: "AutoencoderSettings", graph: str, dtype: str
) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return one of the networks to compile, and inputs for two clips of 16x16 latent pixels.

    Args:
        config: of the TAE.
        graph: of `GRAPHS`. train is the whole training step: the loss with all its terms, the
            adversarial one included, its gradient, accumulation, clipping, AdamW, weight average;
            discriminator is the training step of the discriminator. movie_gen is a small video
            transformer with all its options, movie_gen_train its whole training step with the
            flow-matching loss, sampler a step of the sampler with guidance. t5, clip and llama are
            text encoders. The others are the training steps of `audited_denoisers` and the
            autoencoders of `audited_autoencoders`.
        dtype: of `DTYPES`.
    """
    from mg.models import layers

    with layers.choose("Ascend"):
        return _built(config, graph, dtype)


def _built(
    config: "AutoencoderSettings", graph: str, dtype: str
) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return the network of a graph and its inputs, in the form that the caller has chosen."""
    if graph == "llama":
        return _llama_and_inputs(dtype)
    if graph in TEXT_CONFIGS:
        return _text_network_and_inputs(graph)
    if graph in AUTOENCODER_GRAPHS:
        return autoencoder_and_inputs(graph, dtype)
    if graph in DENOISER_GRAPHS:
        return denoiser_and_inputs(graph, dtype)
    if graph in ("movie_gen", "movie_gen_train", "sampler"):
        return _video_model_and_inputs(graph, dtype)
    return _tae_and_inputs(config, graph, dtype)


def _tae_and_inputs(
    config: "AutoencoderSettings", graph: str, dtype: str
) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return the TAE, its training step or its discriminator's, and inputs."""
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn

    from mg.losses.perceptual import PerceptualLoss
    from mg.models.discriminator import Discriminator
    from mg.models.discriminator_config import DiscriminatorConfig
    from mg.models.perceptual import LPIPS, LPIPSConfig
    from mg.training.autoencoder.autoencoder_config import (
        AdversarialSettings,
        LossSettings,
        OptimSettings,
    )
    from mg.training.autoencoder.autoencoder_loss import AutoencoderLoss
    from mg.training.autoencoder.discriminator_loss import DiscriminatorLoss
    from mg.training.step import TrainStep

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

    tae = autoencoder_family("tae").build(config)
    # Set after building: the network refuses bf16 where it would have to run on CPU.
    tae.encode_dtype = tae.decode_dtype = ms.float32 if dtype == "float32" else ms.bfloat16
    spec = config.spec
    size = (2 * spec.t, 16 * spec.h, 16 * spec.w)
    video = Tensor(np.zeros((2, spec.video_channels, *size), np.float32))
    latent = Tensor(np.zeros((2, spec.channels, 2, 16, 16), np.float32))
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
    loss = AutoencoderLoss(
        tae, settings, perceptual=perceptual, adversarial=adversarial, discriminator=discriminator
    )
    step = TrainStep(loss, optim, parameters=tae.trainable_params()).set_train()
    frame_indices = Tensor(np.arange(2, dtype=np.int32))
    return step, (scalar, scalar, scalar, True, video, latent, frame_indices)


def _video_model_and_inputs(graph: str, dtype: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return a video transformer with all its options as it is used in a graph, and its inputs."""
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn

    from mg.flow.guidance import guided_velocity
    from mg.flow.solvers import MIDPOINT
    from mg.training.denoiser.flow_loss import FlowLoss
    from mg.training.settings import OptimSettings
    from mg.training.step import TrainStep

    class SamplerStep(nn.Cell):
        """Carry a latent from t = 0.25 to t = 0.5; the midpoint step has all of Euler's."""

        def __init__(self, network: nn.Cell, text: tuple[Tensor, ...]) -> None:
            super().__init__()
            self.network = network
            self.velocity = guided_velocity(network, text, text, scale=3.0)
            self.step = MIDPOINT.step

        def velocity_at(self, latent: Tensor, t: float) -> Tensor:
            return self.velocity(latent, Tensor([t] * len(latent), ms.float32))

        def construct(self, latent: Tensor) -> Tensor:
            return self.step(self.velocity_at, latent, 0.25, 0.5)

    network = _transformer(dtype)
    latent = Tensor(np.zeros((2, network.config.latent_channels, 2, 4, 4), np.float32))
    text = (np.zeros((2, 4, 8), np.float32), np.ones((2, 4), bool))
    text += (np.zeros((2, 4, 4), np.float32), np.ones((2, 4), bool))
    text = tuple(map(Tensor, text))
    t = Tensor(np.zeros(2, np.float32))
    if graph == "movie_gen":
        return network, (latent, t, *text)
    if graph == "sampler":
        return SamplerStep(network, text), (latent,)
    scalar = Tensor(1.0, ms.float32)
    step = TrainStep(FlowLoss(network), OptimSettings(accumulation_steps=2)).set_train()
    return step, (scalar, scalar, scalar, True, latent, latent, latent, latent, t, *text)


def _transformer(dtype: str) -> "nn.Cell":
    """Return a small video transformer with all its options."""
    import mindspore as ms

    family = denoiser_family("movie_gen")
    network = family.build(family.read_config(TRANSFORMER_CONFIG))
    network.dtype = ms.float32 if dtype == "float32" else ms.bfloat16
    for _, cell in network.cells_and_names():
        if hasattr(cell, "flash"):
            cell.flash = dtype != "float32"
    return network


def _llama_and_inputs(dtype: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return a Llama with heads that share keys, in a precision, and two texts' tokens."""
    import numpy as np
    from mindspore import Tensor

    from mg.conditions.text.llama_config import LlamaConfig
    from mg.conditions.text.llama_network import (
        build_llama,
        causal_logits,
        rotary_tables,
        set_precision,
    )

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
    )
    network = build_llama(config, num_layers=1)
    set_precision(network, dtype)  # after building, which refuses bf16 on CPU
    for parameter in network.get_parameters():
        parameter.init_data()
    ids = np.ones((2, 8), np.int32)
    tables = rotary_tables(8, config.head_dim, config.rope_theta)
    return network, tuple(map(Tensor, (ids, causal_logits(ids > 0), *tables)))


def _text_network_and_inputs(kind: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return a text encoder with the operators that it has on Ascend, and two texts' tokens."""
    import numpy as np
    from mindspore import Tensor, nn

    from mg.conditions.text.text_networks import build_text_network

    class LastStates(nn.Cell):
        """Call the network as `run_text_network` does, without the class of its result."""

        def __init__(self, network: nn.Cell) -> None:
            super().__init__()
            self.network = network

        def construct(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.network(ids, attention_mask=mask, return_dict=False)[0]

    network = build_text_network(kind, TEXT_CONFIGS[kind], stand_ins=False)
    for parameter in network.get_parameters():
        parameter.init_data()
    ids = np.ones((2, 8), np.int32)
    return LastStates(network), (Tensor(ids), Tensor(ids))
