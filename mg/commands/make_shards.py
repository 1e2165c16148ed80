"""Pack clips and their captions into WebDataset shards, each file as it is.

mg make-shards --video_folder clips --csv_path captions.csv --output_path shards
"""

import dataclasses
import logging

from mg.cli import parse_config
from mg.console import printable
from mg.data.manifest import build_manifest
from mg.data.media_rules import Reading
from mg.data.shard_writer import write_shards
from mg.files import check_writable_folder

logger = logging.getLogger("mg")

MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeShardsConfig:
    """Packing of clips.

    Args:
        video_folder: folder of videos, images or prepared clips; or shards, to be packed anew.
        csv_path: table with columns `video` and `caption`; null packs all of video_folder.
        output_path: folder for the shards, clips-000000.tar and so on.
        max_megabytes: size of a shard, in millions of bytes.
        reading: largest frames that are read (max_pixels), and whether pixels are made square.
        overwrite: replace the shards of output_path, all of them.
    """

    video_folder: list[str] | str | None = None
    csv_path: str | None = None
    output_path: str = "outputs/shards"
    max_megabytes: float = 1000.0
    reading: Reading = dataclasses.field(default_factory=Reading)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.max_megabytes <= 0:
            raise ValueError(f"max_megabytes={self.max_megabytes}; expected more than 0")


def main() -> None:
    """Parse, probe the clips, pack them, tell what was left out."""
    config = parse_config(MakeShardsConfig, description=__doc__)
    check_writable_folder(config.output_path)
    manifest = build_manifest(
        csv_path=config.csv_path, video_folder=config.video_folder, reading=config.reading
    )
    paths = write_shards(
        manifest.clips,
        config.output_path,
        max_bytes=max(1, round(config.max_megabytes * MEGABYTE)),
        overwrite=config.overwrite,
    )
    logger.info("%s", printable(manifest.table()))
    num_captions = sum(bool(clip.caption) for clip in manifest.clips)
    logger.info(
        "%d clips, %d of them with a caption, are in %d %s: %s",
        len(manifest.clips),
        num_captions,
        len(paths),
        "shard" if len(paths) == 1 else "shards",
        f"{config.output_path}/{paths[0].name}" + (" and so on" if len(paths) > 1 else ""),
    )
