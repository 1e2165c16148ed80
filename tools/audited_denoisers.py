"""The denoisers besides Movie Gen's whose training steps `audit_ascend.py` checks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["DENOISER_GRAPHS", "FAMILIES", "denoiser_and_inputs"]

ONE_TEXT = [{"name": "first", "width": 8, "max_tokens": 4}]
COGVIDEOX = {
    "num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "time_embed_dim": 16,
    "sample_width": 4,
    "sample_height": 4,
    "sample_frames": 5,
    "text_encoders": ONE_TEXT,
}
ROTARY = {**COGVIDEOX, "use_rotary_positional_embeddings": True}
# Each with a condition beside the latent: what is built -> its family and the fields of its config.
NETWORKS = {
    "cogvideox": ("cogvideox", ROTARY),
    "cogvideox_sincos": ("cogvideox", COGVIDEOX),
    "cogvideox_1_5": (
        "cogvideox",
        {**ROTARY, "patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 16},
    ),
    "hunyuan": (
        "hunyuan",
        {
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "rope_axes_dim": (4, 6, 6),
            "text_encoders": [*ONE_TEXT, {"name": "second", "width": 8, "max_tokens": 1}],
        },
    ),
    "unet": (
        "unet",
        {
            "channels": 16,
            "channel_mult": [1, 2],
            "num_res_blocks": 1,
            "attention_levels": [0, 1],
            "num_heads": 2,
            "norm_groups": 4,
            "timestep_width": 8,
            "text_encoders": ONE_TEXT,
        },
    ),
    "lora": ("cogvideox", ROTARY),  # trains low-rank maps alone
    "diffusion": ("cogvideox", ROTARY),  # learns v, with absolute beside squared error
}
FAMILIES = tuple(dict.fromkeys(family for family, _ in NETWORKS.values()))
DENOISER_GRAPHS = tuple(f"{name}_denoiser_train" for name in NETWORKS)


def denoiser_and_inputs(graph: str, dtype: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return the training step of a small denoiser, and its inputs.

    Args:
        graph: of `DENOISER_GRAPHS`.
        dtype: float32 or another, for bfloat16.
    """
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor

    from mg.flow.noise_schedule import NoiseSchedule
    from mg.flow.objectives import DiffusionObjective
    from mg.flow.velocity_network import velocity_network
    from mg.models.families import denoiser_family
    from mg.models.lora import add_lora
    from mg.training.denoiser.diffusion_loss import DiffusionLoss
    from mg.training.denoiser.flow_loss import FlowLoss
    from mg.training.settings import OptimSettings
    from mg.training.step import TrainStep

    name = graph.removesuffix("_denoiser_train")
    family_name, fields = NETWORKS[name]
    family = denoiser_family(family_name)
    config = family.read_config({**fields, "latent_channels": 4, "condition_channels": 5})
    network = family.build(config)
    parameters = None
    if name == "lora":
        add_lora(network, rank=2, alpha=2.0)
        parameters = [p for p in network.get_parameters() if ".lora_" in p.name]
        for parameter in network.get_parameters():
            parameter.requires_grad = ".lora_" in parameter.name
    network.dtype = ms.float32 if dtype == "float32" else ms.bfloat16
    for _, cell in network.cells_and_names():
        if hasattr(cell, "flash"):
            cell.flash = dtype != "float32"
    latent = Tensor(np.zeros((2, 4, 2, 4, 4), np.float32))
    text = []
    for encoder in config.text_encoders:
        length = min(encoder.max_tokens, 4)
        text.append(Tensor(np.zeros((2, length, encoder.width), np.float32)))
        text.append(Tensor(np.ones((2, length), bool)))
    beside = Tensor(np.zeros((2, 5, 2, 4, 4), np.float32))
    t = Tensor(np.full(2, 0.5, np.float32))
    scalar = Tensor(1.0, ms.float32)
    loss = FlowLoss(velocity_network(network, family.prediction))
    if name == "diffusion":
        loss = DiffusionLoss(network, DiffusionObjective("v", NoiseSchedule()), l1_weight=0.5)
    optim = OptimSettings(accumulation_steps=2)
    step = TrainStep(loss, optim, parameters=parameters).set_train()
    return step, (scalar, scalar, scalar, True, *[latent] * 4, t, *text, beside)
