"""Clips through a video VAE of any family and back: original | reconstruction, and their quality.

The families' networks take whole clips. For our own TAE `mg.pipelines.reconstruct` does more:
videos of any length in constant memory, several devices, runs that are continued.
"""

import json
import logging
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mg.data.manifest import Clip, Manifest
from mg.data.transforms import from_model_range, resize_and_crop, to_model_range
from mg.data.video_writer import write_video
from mg.files import write_text
from mg.pipelines.clip_results import ResumableReport, find_lpips, measure
from mg.pipelines.decode import DEFAULT_FPS
from mg.pipelines.encode import frame_size
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from mg.pipelines.streaming import check_finite
from mg.vaes import VideoVAE

__all__ = ["reconstruct_with_vae"]

logger = logging.getLogger("mg")


def reconstruct_with_vae(
    vae: VideoVAE,
    manifest: Manifest,
    output_folder: str | os.PathLike,
    settings: ReconstructionSettings,
) -> ResumableReport:
    """Return the quality of all reconstructed clips; the posterior's mean is decoded.

    Writes `clips/NAME.mp4` for each clip, and `report.json` and `report.txt` for all.

    Args:
        vae: of any family; its tiling is used if it is enabled.
        manifest: the videos, of at least `settings.num_source_frames` frames.
        output_folder: made if missing.
        settings: see there; clips go through the network one by one, `num_frames` of each.

    Raises:
        ValueError: no clip could be reconstructed.
        FileExistsError: an output is there already and `settings.overwrite` is false.
    """
    folder = Path(output_folder)
    if (folder / "report.json").exists() and not settings.overwrite:
        raise FileExistsError(
            f"{folder} holds a report already; choose another output_path, or --overwrite"
        )
    clips = {clip.name: clip for clip in manifest.clips}  # a table may name a video twice
    paths = output_paths(clips, folder / "clips", ".mp4")
    outcome = Outcome(failed={entry.name: entry.reason for entry in manifest.rejected})
    sizes = _sizes(clips, settings, vae.compression.h, outcome)
    # One network for all clips: a report has the same metrics for each.
    network = find_lpips(settings.lpips_path, min(sizes.values(), key=min)) if sizes else None
    report = ResumableReport()
    for name, size in tqdm(sizes.items(), desc="reconstructing", unit="clip", disable=None):
        try:
            original = _read(clips[name], settings, size)
            reconstruction = _code(vae, original)
        except (ValueError, IndexError, OSError) as error:
            outcome.failed[name] = str(error)
            continue
        report.add_measured(name, measure(original, reconstruction, network))
        shown = [original, reconstruction] if settings.side_by_side else [reconstruction]
        fps = (clips[name].fps or DEFAULT_FPS) / settings.sample_stride
        write_video(
            paths[name], np.concatenate(shown, axis=2), fps=fps, overwrite=settings.overwrite
        )
        outcome.done.append(name)
    logger.info(outcome.summary("reconstructed"))
    outcome.refuse_total_failure()
    _write_report(folder, report, outcome, overwrite=settings.overwrite)
    return report


def _sizes(
    clips: dict[str, Clip], settings: ReconstructionSettings, factor: int, outcome: Outcome
) -> dict[str, tuple[int, int]]:
    """Return the (height, width) of each clip's frames; note the unusable clips."""
    sizes = {}
    for name, clip in clips.items():
        try:
            sizes[name] = frame_size(clip, settings.image_size, factor)
        except ValueError as error:
            outcome.failed[name] = str(error)
    return sizes


def _read(clip: Clip, settings: ReconstructionSettings, size: tuple[int, int]) -> np.ndarray:
    """Return the frames of a clip, uint8 (T, H, W, 3), scaled and cropped to a size."""
    with clip.open() as reader:
        frames = reader.read(range(0, settings.num_source_frames, settings.sample_stride))
    short_side = min(frames.shape[1:3]) if settings.image_size is None else None
    return resize_and_crop(frames, size=size, short_side=short_side)


def _code(vae: VideoVAE, original: np.ndarray) -> np.ndarray:
    """Return the reconstruction, uint8 (T, H, W, 3), of frames of the same shape."""
    video = to_model_range(original)[np.newaxis]  # (1, 3, T, H, W)
    decoded = vae.decode(vae.encode(video)).asnumpy()
    check_finite(decoded, "decoder")
    return from_model_range(decoded[0])


def _write_report(
    folder: Path, report: ResumableReport, outcome: Outcome, *, overwrite: bool
) -> None:
    table = report.table()
    content = {"left_out": outcome.failed, **json.loads(report.to_json())}
    write_text(folder / "report.json", json.dumps(content, indent=2), overwrite=overwrite)
    write_text(folder / "report.txt", table + "\n", overwrite=overwrite)
    logger.info("%s\n\nVideos and report are in %s", table, folder)
