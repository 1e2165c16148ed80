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
# Settings of the transformer for latents of up to 2 frames of 4x4.
TRANSFORMER = {
    "num_layers": 1,
    "dim": 32,
    "ffn_dim": 32,
    "num_heads": 2,
    "position_table": (2, 4, 4),
}
