"""How much memory a process takes that codes videos with a TAE."""

from mg.models.tae.config import TAEConfig

__all__ = ["estimated_memory_gb"]

# Measured on CPU (fp32, graph mode): see `estimated_memory_gb`.
TENSORS_AT_ONCE = 4
FIXED_MEMORY_GB = 0.9


def estimated_memory_gb(
    config: TAEConfig, num_frames: int, height: int, width: int, *, batch_size: int = 1
) -> float:
    """Return about how much memory a process takes that encodes and decodes, in GB.

    memory = 0.9 GB + 4 bytes * 4 * max over the decoder's levels of
             (channels into it + channels of its blocks) * its pixels

    0.9 and 4 were measured on CPU in fp32 with 8 to 32 frames of 96x96 to 160x160, base widths 32
    to 128, one and two blocks: the result is 2 % to 20 % above what was taken. The weights come on
    top (0.5 GB at full size).

    Args:
        config: of the network.
        num_frames, height, width: of one tile.
        batch_size: clips decoded together.
    """
    ch = max(config.ch, config.decoder_width)
    widths = [ch * multiple for multiple in (*config.ch_mult, config.ch_mult[-1])]
    pixels = float(batch_size * num_frames * height * width) / config.patch_volume
    floats = 0.0
    for level in range(config.num_levels):
        if level:
            pixels /= 8 if level in config.temporal_upsample_level else 4
        floats = max(floats, TENSORS_AT_ONCE * pixels * (widths[level] + widths[level + 1]))
    return FIXED_MEMORY_GB + 4 * floats / 1e9
