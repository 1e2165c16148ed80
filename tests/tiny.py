"""Networks as small as it gets, for tests of what is around them."""

from mg.models.tae.config import TAEConfig

# Halves frames once and pixels once; latents of 4 channels.
TAE = TAEConfig(
    ch=32,
    ch_mult=(1, 1),
    num_res_blocks=1,
    z_channels=4,
    temporal_downsample_level=(0,),
    temporal_upsample_level=(1,),
)
# Halves frames once and no pixels: quicker to compile.
TAE_OF_ONE_LEVEL = TAEConfig(
    ch=8,
    ch_mult=(1,),
    num_res_blocks=1,
    z_channels=4,
    norm_groups=4,
    attn_type="spat_only",
    temporal_downsample_level=(0,),
    temporal_upsample_level=(0,),
)
# Keeps frames and pixels.
TAE_OF_IMAGES = TAEConfig(
    ch=32,
    ch_mult=(1,),
    num_res_blocks=1,
    z_channels=4,
    attn_type="spat_only",
    temporal_downsample_level=(),
    temporal_upsample_level=(),
)
# Has a linear path: blocks of 4 frames of 4x4 pixels, of which patches take 2x2x2; 192 values for a
# pixel of latent.
TAE_WITH_LINEAR_PATH = TAEConfig(
    ch=8,
    ch_mult=(1, 1),
    num_res_blocks=1,
    norm_groups=4,
    z_channels=6,
    attn_type="spat_only",
    patch_size=2,
    patch_size_t=2,
    temporal_downsample_level=(0,),
    temporal_upsample_level=(1,),
    temporal_padding="replicate",
    linear_path=True,
)
# Settings of the transformer for latents of up to 2 frames of 4x4.
TRANSFORMER = {
    "num_layers": 1,
    "dim": 32,
    "ffn_dim": 32,
    "num_heads": 2,
    "position_table": (2, 4, 4),
}
# Autoencoders of every family, small: the fields of their configs.
OF_DIFFUSERS = {"layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 2}
AUTOENCODERS = {
    "tae": {**TAE_OF_ONE_LEVEL.to_dict(), "ch_mult": [1, 2]},
    "opensora": {
        "vae_2d": {"config": {**OF_DIFFUSERS, "block_out_channels": [4, 8]}},
        "vae_temporal": {"filters": 4, "num_groups": 2, "num_res_blocks": 1},
        "micro_frame_size": 5,
    },
    "cogvideox": {**OF_DIFFUSERS, "block_out_channels": [4, 4, 8, 8]},
    "hunyuan": {**OF_DIFFUSERS, "block_out_channels": [4, 4, 8, 8]},
    "wan": {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [True],
        "latents_mean": [0.5, -0.5, 0.0, 1.0],
        "latents_std": [1.0, 2.0, 0.5, 1.5],
    },
    "causal_vae": {
        "hidden_size": 8,
        "z_channels": 4,
        "embed_dim": 4,
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
        "width_list": [4, 8],
        "encoder_depth_list": [1, 1],
        "decoder_depth_list": [1, 1],
        "block_type": ["ResBlock", "ResBlock"],
        "temporal_downsample": [True, False],
        "time_compression_ratio": 2,
        "spatial_compression_ratio": 2,
    },
    "sd": {**OF_DIFFUSERS, "block_out_channels": [4, 8]},
}
# Denoisers of every family, small: the fields of their configs, but for the latent's channels.
TEXT = [{"name": "word", "width": 32, "max_tokens": 4}]
DENOISERS = {
    "movie_gen": TRANSFORMER | {"text_encoders": TEXT},
    "cogvideox": {
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "time_embed_dim": 16,
        "text_encoders": TEXT,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 5,
        "use_rotary_positional_embeddings": True,
    },
    "hunyuan": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "rope_axes_dim": (4, 6, 6),
        "guidance_embeds": False,
        "text_encoders": [*TEXT, {"name": "pooled", "width": 32, "max_tokens": 1}],
    },
    "unet": {
        "channels": 8,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_levels": [1],
        "num_heads": 2,
        "norm_groups": 4,
        "text_encoders": TEXT,
        "timestep_width": 16,
    },
}
