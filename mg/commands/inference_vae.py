"""Reconstruct videos: original | reconstruction as mp4, PSNR, SSIM and LPIPS.

mg reconstruct --weights tae.ckpt --input videos --num_frames 16 --size 256
"""

import dataclasses
from pathlib import Path

from mg.cli import parse_config, plain_settings, save_config
from mg.data.manifest import build_manifest
from mg.data.media_rules import Reading
from mg.data.transforms import height_width
from mg.device import setup_device
from mg.metrics.lpips import check_lpips_file
from mg.parallel.ranks import init_ranks
from mg.pipelines.autoencoder import AutoencoderConfig, check_autoencoder, load_autoencoder
from mg.pipelines.output_record import open_output_folder
from mg.pipelines.reconstruction_settings import ReconstructionSettings

RECORD = "config.yaml"  # of the settings, beside the outputs

# What --help shows.
COMMON = (
    "ckpt_path",
    "video_folder",
    "csv_path",
    "output_path",
    "num_frames",
    "image_size",
    "side_by_side",
    "overwrite",
    "enable_tile",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig(AutoencoderConfig):
    """Reconstruction of a set of videos.

    Args:
        csv_path: table with a column `video`; null takes all of video_folder.
        video_folder: folder of the videos, one file, or shards (.tar, a pattern or a list).
        reading: largest frames that are read (max_pixels), and whether pixels are made square.
        output_path: folder for the videos and the report.
        num_frames: frames of each clip, from its beginning; 0 for whole clips of any length.
        image_size: side of a square, or [height, width], in pixels; null keeps the videos' size.
        sample_stride: take every n-th frame.
        batch_size: clips that go through the network together.
        side_by_side: write original | reconstruction; otherwise the reconstruction alone.
        lpips_path: LPIPS weights; null takes those that mg fetch-lpips stored, if any.
        overwrite: reconstruct all clips again and replace existing outputs.
    """

    csv_path: str | None = None
    video_folder: list[str] | str | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)
    output_path: str = "outputs/reconstruction"
    num_frames: int | None = 16
    image_size: int | tuple[int, int] | None = 256
    sample_stride: int = 1
    batch_size: int = 1
    side_by_side: bool = True
    lpips_path: str | None = None
    overwrite: bool = False


def main() -> None:
    """Parse, load, reconstruct."""
    config = parse_config(InferenceConfig, description=__doc__, common=COMMON)
    open_output_folder(
        config.output_path, RECORD, plain_settings(config), overwrite=config.overwrite
    )
    settings = ReconstructionSettings(
        num_frames=config.num_frames or 0,
        image_size=config.image_size,
        sample_stride=config.sample_stride,
        batch_size=config.batch_size,
        side_by_side=config.side_by_side,
        lpips_path=config.lpips_path,
        memory_budget_gb=config.memory_budget_gb,
        overwrite=config.overwrite,
    )
    sizes = [] if config.image_size is None else [height_width(config.image_size)]
    check_autoencoder(config, sizes)
    if config.lpips_path is not None:
        check_lpips_file(config.lpips_path)
    manifest = build_manifest(
        csv_path=config.csv_path,
        video_folder=config.video_folder,
        min_frames=settings.num_source_frames,
        reading=config.reading,
    )
    setup_device(config)
    ranks = init_ranks()
    # MindSpore takes seconds to import; a wrong setting is answered before.
    from mg.pipelines.reconstruct import reconstruct_videos

    def save_settings() -> None:
        if ranks.is_main:
            save_config(Path(config.output_path) / RECORD, config)

    reconstruct_videos(
        load_autoencoder(config),
        manifest,
        config.output_path,
        settings,
        ranks=ranks,
        on_begin=save_settings,
    )
