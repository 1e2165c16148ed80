"""The denoisers besides Movie Gen's whose training steps `audit_ascend.py` checks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["DENOISER_GRAPHS", "denoiser_and_inputs"]

ONE_TEXT = [{"name": "first", "width": 8, "max_tokens": 4}]
# Each with a condition beside the latent.
CONFIGS = {
    "cogvideox": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "time_embed_dim": 16,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 5,
        "use_rotary_positional_embeddings": True,
        "text_encoders": ONE_TEXT,
    },
    "hunyuan": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "rope_axes_dim": (4, 6, 6),
        "text_encoders": [*ONE_TEXT, {"name": "second", "width": 8, "max_tokens": 1}],
    },
    "unet": {
        "channels": 16,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_levels": [0, 1],
        "num_heads": 2,
        "norm_groups": 4,
        "timestep_width": 8,
        "text_encoders": ONE_TEXT,
    },
}
# With the flow-matching loss each, and one with the loss of a diffusion.
DIFFUSION_GRAPH = "cogvideox_diffusion_train"
DENOISER_GRAPHS = (*(f"{family}_denoiser_train" for family in CONFIGS), DIFFUSION_GRAPH)


def denoiser_and_inputs(graph: str, dtype: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return the training step of a small denoiser as it is on Ascend, and its inputs.

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
    from mg.models import layers
    from mg.models.families import denoiser_family
    from mg.training.denoiser.diffusion_loss import DiffusionLoss
    from mg.training.denoiser.flow_loss import FlowLoss
    from mg.training.settings import OptimSettings
    from mg.training.step import TrainStep

    family = denoiser_family(graph.split("_")[0])
    fields = {**CONFIGS[family.name], "latent_channels": 4, "condition_channels": 5}
    config = family.read_config(fields)
    with layers.choose("Ascend"):
        network = family.build(config)
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
    if graph == DIFFUSION_GRAPH:
        loss = DiffusionLoss(network, DiffusionObjective("v", NoiseSchedule()), l1_weight=0.5)
    step = TrainStep(loss, OptimSettings(accumulation_steps=2)).set_train()
    return step, (scalar, scalar, scalar, True, *[latent] * 4, t, *text, beside)
