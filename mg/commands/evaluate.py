"""Measure two folders of videos against each other by a stated protocol.

    mg evaluate --real_video_dir videos --generated_video_dir reconstructions
    mg evaluate --real_video_dir A --generated_video_dir B --metric psnr,ssim,lpips

Videos belong together by name. The protocol's hash stands beside every figure.
"""

import dataclasses
import os

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.metrics.measures import METRICS, MetricOptions, parse_metrics
from mg.metrics.protocol import read_protocol
from mg.parallel.ranks import init_ranks
from mg.pipelines.evaluate import evaluate_pairs, find_pairs
from mg.shipped import shipped_root

PROTOCOLS = shipped_root() / "protocols"

# What --help shows.
COMMON = (
    "real_video_dir",
    "generated_video_dir",
    "output_path",
    "metric",
    "protocol",
    "num_frames",
    "resolution",
    "crop_size",
    "overwrite",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DeviceConfig):
    """Measuring of two folders of videos.

    Args:
        real_video_dir: folder of the originals, or one file.
        generated_video_dir: folder of the videos made of them, or of a run of mg reconstruct, or
            one file.
        output_path: folder for the report, its plots and the figures of each pair.
        metric: names with commas between, such as psnr,ssim,lpips, or all; null takes those that
            the protocol names.
        protocol: a YAML file, or the name of one in protocols/ (mg, open_sora_plan, vidtok).
        num_frames: frames of each video, in place of the protocol's; 0 takes all.
        resolution: length that the shorter side is scaled to, in place of the protocol's.
        crop_size: side of the square cut from the centre, in place of the protocol's.
        sample_fps: frames per second, in place of the protocol's.
        sample_rate: take every n-th frame, in place of the protocol's.
        subset_size: measure the first so many pairs; null takes all.
        batch_size: frames that go through a network together.
        lpips_path: LPIPS weights of the protocol's backbone; null takes those that
            mg fetch-lpips stored.
        i3d_path: I3D weights; null takes those that mg fetch-i3d stored.
        pwcnet_path: PWC-Net weights, which flolpips needs.
        allow_few: give FVD and KVD of fewer clips than the protocol asks for, too.
        overwrite: measure again what is there.
    """

    real_video_dir: str
    generated_video_dir: str
    output_path: str = "outputs/evaluation"
    metric: str | None = None
    protocol: str = "mg"
    num_frames: int | None = None
    resolution: int | None = None
    crop_size: int | None = None
    sample_fps: float | None = None
    sample_rate: int | None = None
    subset_size: int | None = None
    batch_size: int = 8
    lpips_path: str | None = None
    i3d_path: str | None = None
    pwcnet_path: str | None = None
    allow_few: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subset_size is not None and self.subset_size < 1:
            raise ValueError(f"subset_size={self.subset_size}; expected 1 or more")


def main() -> None:
    """Parse, pair, measure."""
    config = parse_config(EvaluateConfig, description=__doc__, common=COMMON)
    named = PROTOCOLS / f"{config.protocol}.yaml"
    protocol = read_protocol(named if named.is_file() else config.protocol).changed(
        **{
            name: getattr(config, name)
            for name in ("num_frames", "resolution", "crop_size", "sample_fps", "sample_rate")
        }
    )
    metrics = parse_metrics(config.metric or protocol.measured, protocol.metrics)
    options = MetricOptions(
        batch_size=config.batch_size,
        lpips_path=config.lpips_path,
        i3d_path=config.i3d_path,
        pwcnet_path=config.pwcnet_path,
    )
    pairs, left_out = find_pairs(
        config.real_video_dir, config.generated_video_dir, subset_size=config.subset_size
    )
    # MindSpore takes seconds to import, and most metrics do without.
    if (
        any(METRICS[name].needs_network for name in metrics if name in METRICS)
        or "MS_ROLE" in os.environ
    ):
        setup_device(config)
    evaluate_pairs(
        pairs,
        config.output_path,
        protocol,
        metrics,
        options=options,
        left_out=left_out,
        allow_few=config.allow_few,
        overwrite=config.overwrite,
        ranks=init_ranks(),
    )
