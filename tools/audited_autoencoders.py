"""The autoencoders besides the TAE whose graphs `audit_ascend.py` checks, small."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["AUTOENCODER_GRAPHS", "autoencoder_and_inputs"]

SMALL = {"layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2}
CONFIGS = {
    "sd": {**SMALL, "block_out_channels": [4, 8]},
    "cogvideox": {**SMALL, "block_out_channels": [4, 4, 8, 8]},
    "hunyuan": {**SMALL, "block_out_channels": [4, 4, 8, 8]},
    "opensora": {
        "vae_2d": {"config": {**SMALL, "block_out_channels": [4, 8]}},
        "vae_temporal": {"filters": 4, "num_groups": 2, "num_res_blocks": 1},
        "micro_frame_size": 5,
    },
    "wan": {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [True],
        "latents_mean": [0.0] * 4,
        "latents_std": [1.0] * 4,
    },
    "causal_vae": {
        "hidden_size": 8,
        "hidden_size_mult": [1, 2],
        "num_res_blocks": 1,
        "norm_num_groups": 4,
        "encoder_resnet_blocks": ["ResnetBlock3D"] * 2,
        "encoder_spatial_downsample": ["SpatialDownsample2x", ""],
        "encoder_temporal_downsample": ["TimeDownsample2x", ""],
        "decoder_resnet_blocks": ["ResnetBlock3D"] * 2,
        "decoder_spatial_upsample": ["", "SpatialUpsample2x"],
        "decoder_temporal_upsample": ["", "TimeUpsample2x"],
    },
    "dc_ae": {
        "latent_channels": 8,
        "width_list": [8, 32],
        "encoder_depth_list": [1, 1],
        "decoder_depth_list": [1, 1],
        "block_type": ["ResBlock", "EViTS5_GLU"],
        "temporal_downsample": [True, False],
        "time_compression_ratio": 2,
        "spatial_compression_ratio": 2,
    },
}
# Encoding, decoding, and the training step of a loss that goes through both.
AUTOENCODER_GRAPHS = tuple(
    f"{family}_{task}" for family in CONFIGS for task in ("encode", "decode", "train")
)
# Frames of a video whose coding takes more than one chunk, where there are chunks.
FRAMES = {
    "sd": 2,
    "cogvideox": 17,
    "hunyuan": 5,
    "opensora": 10,
    "wan": 9,
    "causal_vae": 5,
    "dc_ae": 4,
}


def autoencoder_and_inputs(graph: str, dtype: str) -> tuple["nn.Cell", tuple[Any, ...]]:
    """Return one of the networks to compile, and its inputs.

    Args:
        graph: of `AUTOENCODER_GRAPHS`.
        dtype: in which the network computes, float32 or bfloat16; moments and frames are float32.
    """
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, nn, ops

    from mg.models.autoencoder import Autoencoder
    from mg.models.families import autoencoder_family
    from mg.training.settings import OptimSettings
    from mg.training.step import TrainStep

    class Encode(nn.Cell):
        def __init__(self, network: nn.Cell) -> None:
            super().__init__(auto_prefix=False)
            self.network = network

        def construct(self, video: Tensor) -> tuple[Tensor, Tensor]:
            return self.network.moments(video)

    class Decode(nn.Cell):
        def __init__(self, network: nn.Cell) -> None:
            super().__init__(auto_prefix=False)
            self.network = network

        def construct(self, latent: Tensor) -> Tensor:
            return self.network.frames_from(latent)

    class Loss(nn.Cell):
        """Squared error of the reconstruction, and of the log-variance."""

        def __init__(self, network: nn.Cell) -> None:
            super().__init__(auto_prefix=False)
            self.network = network

        def construct(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
            mean, logvar = self.network.moments(video)
            frames = self.network.frames_from(mean, video.shape[2])
            loss = ops.square(frames - video).mean() + ops.square(logvar).mean()
            return loss, (loss,), frames

    family, task = graph.rsplit("_", 1)
    record = autoencoder_family(family)
    network = record.build(record.read_config(CONFIGS[family]))
    # Set after building: networks refuse bf16 where they would have to run on CPU.
    for _, cell in network.cells_and_names():
        if isinstance(cell, Autoencoder):
            cell.encode_dtype = cell.decode_dtype = (
                ms.float32 if dtype == "float32" else ms.bfloat16
            )
    spec = network.spec
    frames, height, width = FRAMES[family], 2 * spec.h, 2 * spec.w
    video = Tensor(np.zeros((2, 3, frames, height, width), np.float32))
    if task == "encode":
        return Encode(network), (video,)
    if task == "decode":
        latent = np.zeros((2, *spec.latent_shape(frames, height, width)), np.float32)
        return Decode(network), (Tensor(latent),)
    step = TrainStep(Loss(network), OptimSettings()).set_train()
    scalar = Tensor(1.0, ms.float32)
    return step, (scalar, scalar, scalar, True, video)
