"""Decode latent files to mp4, in constant memory.

mg decode --weights tae.ckpt --input outputs/latents
"""

import dataclasses
from pathlib import Path

from mg.cli import parse_config, plain_settings, save_config
from mg.data.latent_files import list_latent_files
from mg.device import setup_device
from mg.parallel.ranks import init_ranks
from mg.pipelines.autoencoder import AutoencoderConfig, check_autoencoder, load_autoencoder
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.output_record import open_output_folder

RECORD = "decode.yaml"  # of the settings, beside the outputs

# What --help shows.
COMMON = (
    "ckpt_path",
    "input",
    "output_path",
    "overwrite",
    "enable_tile",
    "memory_budget_gb",
    "decode_dtype",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig(AutoencoderConfig):
    """Decoding of latents.

    Args:
        input: a latent file (.safetensors or .npz) of mg encode, or a folder of them.
        output_path: folder for the videos; subfolders are kept.
        overwrite: decode all latents again and replace existing videos.
    """

    input: str
    output_path: str = "outputs/decoded"
    overwrite: bool = False


def main() -> None:
    """Parse, load, decode."""
    config = parse_config(DecodeConfig, description=__doc__, common=COMMON)
    open_output_folder(
        config.output_path, RECORD, plain_settings(config), overwrite=config.overwrite
    )
    check_autoencoder(config)
    list_latent_files(config.input)  # refuses a place without any
    setup_device(config)
    ranks = init_ranks()
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.pipelines.decode import decode_latent_files

    def save_settings() -> None:
        if ranks.is_main:
            save_config(Path(config.output_path) / RECORD, config)

    decode_latent_files(
        load_autoencoder(config),
        config.input,
        config.output_path,
        memory_budget_gb=config.memory_budget_gb,
        overwrite=config.overwrite,
        ranks=ranks,
        on_begin=save_settings,
    )
    log_peak_memory()
