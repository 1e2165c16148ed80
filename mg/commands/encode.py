"""Encode videos of any length to latent files, in constant memory.

mg encode --weights tae.ckpt --input videos --output outputs/latents
"""

import dataclasses
import logging
from pathlib import Path

from mg.cli import parse_config, plain_settings, save_config
from mg.data.buckets import Bucket
from mg.data.captions import add_captions
from mg.data.manifest import build_manifest
from mg.data.media_rules import Reading
from mg.data.transforms import height_width
from mg.device import setup_device
from mg.known_names import one_of
from mg.parallel.ranks import init_ranks
from mg.pipelines.autoencoder import AutoencoderConfig, check_autoencoder, load_autoencoder
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.output_record import open_output_folder

logger = logging.getLogger("mg")

RECORD = "encode.yaml"  # of the settings, beside the outputs
CAPTIONS = "encode_captions.csv"

# What --help shows.
COMMON = (
    "ckpt_path",
    "input",
    "output_path",
    "image_size",
    "buckets",
    "csv_path",
    "video_folder",
    "overwrite",
    "enable_tile",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeConfig(AutoencoderConfig):
    """Encoding of videos.

    Args:
        input: a video, a folder of videos, or shards (.tar, a pattern or a list of them), whose
            captions go into encode_captions.csv of output_path.
        csv_path: table (CSV, JSONL or JSON) with a column `video`, instead of all videos of the
            folder; the videos of a column `source` are encoded too.
        video_folder: folder of the videos of csv_path.
        reading: largest frames that are read (max_pixels), and whether pixels are made square.
        output_path: folder for the latents; subfolders are kept.
        image_size: side of a square, or [height, width], in pixels; null keeps the videos' size.
        buckets: instead of image_size, sizes FRAMESxHEIGHTxWIDTH of the encoded videos, such as
            ["1x256x256", "32x256x256", "32x192x336"]. Each video goes into the longest that it
            fills and, of several, the one of the nearest aspect ratio; its first frames are scaled
            and cropped to that size. Images go into buckets of one frame.
        max_frames: encode only the first so many frames of each video, such as 1 for the first
            frames that a generator is to be trained to go on from; null encodes all.
        format: safetensors or npz.
        overwrite: encode all videos again and replace existing latents.
    """

    input: list[str] | str | None = None
    csv_path: str | None = None
    video_folder: list[str] | str | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)
    output_path: str = "outputs/latents"
    image_size: int | tuple[int, int] | None = None
    buckets: list[str] | None = None
    max_frames: int | None = None
    format: str = one_of("safetensors", ("safetensors", "npz"))
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.input is None) == (self.csv_path is None and self.video_folder is None):
            raise ValueError("give either input, or csv_path and video_folder")
        if self.format not in ("safetensors", "npz"):
            raise ValueError(f"format={self.format!r}; expected safetensors or npz")
        if self.buckets is not None and (self.image_size is not None or not self.buckets):
            raise ValueError("give image_size or buckets, not both; buckets must not be empty")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames={self.max_frames}; expected 1 or more, or null")
        self.parsed_buckets()

    def parsed_buckets(self) -> list[Bucket] | None:
        """Return the sizes in frames and pixels."""
        return None if self.buckets is None else [Bucket.parse(text) for text in self.buckets]


def main() -> None:
    """Parse, load, encode."""
    config = parse_config(EncodeConfig, description=__doc__, common=COMMON)
    open_output_folder(
        config.output_path, RECORD, plain_settings(config), overwrite=config.overwrite
    )
    sizes = [(bucket.height, bucket.width) for bucket in config.parsed_buckets() or ()]
    if config.image_size is not None:
        sizes.append(height_width(config.image_size))
    check_autoencoder(config, sizes)
    manifest = build_manifest(
        csv_path=config.csv_path,
        video_folder=config.input or config.video_folder,
        reading=config.reading,
        with_sources=True,
    )
    setup_device(config)
    ranks = init_ranks()
    # MindSpore takes seconds to import; a wrong setting is answered before.
    from mg.pipelines.encode import encode_videos

    captions = {}
    if config.csv_path is None:
        captions = {clip.name: clip.caption for clip in manifest.clips if clip.caption}

    def save_settings() -> None:
        if ranks.is_main:
            save_config(Path(config.output_path) / RECORD, config)
            if captions:  # of shards or prepared clips: training wants a table
                add_captions(Path(config.output_path) / CAPTIONS, captions)

    encode_videos(
        load_autoencoder(config),
        manifest,
        config.output_path,
        image_size=config.image_size,
        buckets=config.parsed_buckets(),
        max_frames=config.max_frames,
        suffix=f".{config.format}",
        memory_budget_gb=config.memory_budget_gb,
        overwrite=config.overwrite,
        ranks=ranks,
        on_begin=save_settings,
    )
    if captions and ranks.is_main:
        table = Path(config.output_path) / CAPTIONS
        logger.info("The captions of %d clips are in %s, for --csv_path.", len(captions), table)
    log_peak_memory()
