"""Reconstruct videos with a video VAE of any family: original | reconstruction, PSNR, SSIM, LPIPS.

    mg reconstruct-with-vae --vae THUDM/CogVideoX-2b --video_folder videos \
        --num_frames 17 --image_size 256

For the TAE itself mg reconstruct does more: videos of any length, several devices.
"""

import dataclasses
from pathlib import Path

from mg.cli import parse_config, plain_settings, save_config
from mg.data.manifest import build_manifest
from mg.data.media_rules import Reading
from mg.device import DeviceConfig, setup_device
from mg.pipelines.output_record import open_output_folder
from mg.pipelines.reconstruction_settings import ReconstructionSettings

RECORD = "config.yaml"  # of the settings, beside the outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(DeviceConfig):
    """Reconstruction of a set of videos.

    Args:
        vae: folder or weight file of a VAE, or the name of a public one, which is downloaded once.
        key: the weights to take from a file that holds several, such as ema_state_dict.
        method: family of the VAE: opensora, cogvideox, hunyuan, sd or tae; auto recognises it.
        inflate_method: of a 2-D VAE: central, replicate or average inflates it into a TAE; none
            codes frame by frame.
        enable_tile: code frames in overlapping tiles of the family's usual size, to save memory.
        csv_path: table with a column `video`; null takes all of video_folder.
        video_folder: folder of the videos, or one file.
        reading: largest frames that are read (max_pixels), and whether pixels are made square.
        output_path: folder for the videos and the report.
        num_frames: frames of each clip, from its beginning.
        image_size: side of a square, or [height, width], in pixels; null keeps the videos' size.
        sample_stride: take every n-th frame.
        side_by_side: write original | reconstruction; otherwise the reconstruction alone.
        lpips_path: LPIPS weights; null takes those that mg fetch-lpips stored, if any.
        overwrite: replace existing outputs.
    """

    vae: str
    key: str | None = None
    method: str = "auto"
    inflate_method: str = "none"
    enable_tile: bool = False
    csv_path: str | None = None
    video_folder: str | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)
    output_path: str = "outputs/reconstruction_with_vae"
    num_frames: int = 17
    image_size: int | tuple[int, int] | None = 256
    sample_stride: int = 1
    side_by_side: bool = True
    lpips_path: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames}; expected 1 or more")


def main() -> None:
    """Parse, load, reconstruct."""
    config = parse_config(ReconstructionConfig, description=__doc__)
    open_output_folder(
        config.output_path, RECORD, plain_settings(config), overwrite=config.overwrite
    )
    settings = ReconstructionSettings(
        num_frames=config.num_frames,
        image_size=config.image_size,
        sample_stride=config.sample_stride,
        side_by_side=config.side_by_side,
        lpips_path=config.lpips_path,
        overwrite=config.overwrite,
    )
    manifest = build_manifest(
        csv_path=config.csv_path,
        video_folder=config.video_folder,
        min_frames=settings.num_source_frames,
        reading=config.reading,
    )
    setup_device(config)
    # MindSpore takes seconds to import; a wrong setting is answered before.
    from mg.pipelines.reconstruct_with_vae import reconstruct_with_vae
    from mg.vaes import VideoVAE

    vae = VideoVAE.from_pretrained(config.vae, config.method, config.inflate_method, key=config.key)
    if config.enable_tile:
        vae.enable_tiling()
    reconstruct_with_vae(
        vae,
        manifest,
        config.output_path,
        settings,
        is_tiled=config.enable_tile,
        on_begin=lambda: save_config(Path(config.output_path) / RECORD, config),
    )
