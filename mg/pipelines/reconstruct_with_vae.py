"""Clips through a video VAE of any family and back: original | reconstruction, and their quality.

The families' networks take whole clips. For our own TAE `mg.pipelines.reconstruct` does more:
videos of any length in constant memory, several devices, runs that are continued.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mg.data.manifest import Clip, Manifest
from mg.data.transforms import from_model_range, resize_and_crop, to_model_range
from mg.data.video_writer import write_video
from mg.files import write_text
from mg.latent_spec import LatentSpec
from mg.metrics.report import QualityReport
from mg.pipelines.autoencoder import tensors_hash
from mg.pipelines.clip_results import (
    find_lpips,
    lpips_identity,
    measure,
    numbers_of_record,
    numbers_to_json,
)
from mg.pipelines.decode import DEFAULT_FPS
from mg.pipelines.encode import frame_size
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.output_record import (
    clip_state,
    is_finished,
    mark_begun,
    mark_finished,
    read_record,
    record_path,
)
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from mg.pipelines.streaming import check_finite
from mg.vaes import VideoVAE

if TYPE_CHECKING:
    from mg.models.perceptual import LPIPS

__all__ = ["reconstruct_with_vae"]

logger = logging.getLogger("mg")


def reconstruct_with_vae(
    vae: VideoVAE,
    manifest: Manifest,
    output_folder: str | os.PathLike,
    settings: ReconstructionSettings,
    *,
    is_tiled: bool = False,
    on_begin: Callable[[], None] | None = None,
) -> QualityReport:
    """Return the quality of all reconstructed clips; the posterior's mean is decoded.

    Writes `clips/NAME.mp4` and `clips/NAME.json` (what it was made from, quality of each frame) for
    each clip, and `report.json` and `report.txt` for all. Clips that an earlier run has finished,
    from the same video (by size and time of the file), with the same weights and settings, are not
    computed again.

    Args:
        vae: of any family; its tiling is used if it is enabled.
        manifest: the videos, of at least `settings.num_source_frames` frames.
        output_folder: made if missing.
        settings: see there; clips go through the network one by one, `num_frames` of each.
        is_tiled: whether the VAE's tiling is enabled, for the records.
        on_begin: called once nothing more can be refused, before the first output is made.

    Raises:
        FileExistsError: a video without its `.json` is there.
        ValueError: no clip could be reconstructed, or outputs are there that were made from
            something else (before anything is computed).
    """
    folder = Path(output_folder)
    clips = {clip.name: clip for clip in manifest.clips}  # a table may name a video twice
    paths = output_paths(clips, folder / "clips", ".mp4")
    outcome = Outcome(failed={entry.name: entry.reason for entry in manifest.rejected})
    sizes = _sizes(clips, settings, vae.spec, outcome)
    # One network for all clips: a report has the same metrics for each.
    network = find_lpips(settings.lpips_path, min(sizes.values(), key=min)) if sizes else None
    origins = _origins(vae, {name: clips[name] for name in sizes}, settings, network, is_tiled)
    report = QualityReport()
    if not settings.overwrite:
        outcome.finished_before += [n for n in sizes if is_finished(paths[n], origins[n])]
    finished = set(outcome.finished_before)
    if on_begin is not None:
        on_begin()
    for name, size in tqdm(sizes.items(), desc="reconstructing", unit="clip", disable=None):
        path = paths[name]
        if name in finished:
            values = numbers_of_record(record_path(path), read_record(path))
            report.add_measured(name, values)
            continue
        try:
            original = _read(clips[name], settings, size)
            reconstruction = _code(vae, original)
        except (ValueError, IndexError, OSError) as error:
            outcome.failed[name] = str(error)
            continue
        values = measure(original, reconstruction, network)
        report.add_measured(name, values)
        shown = [original, reconstruction] if settings.side_by_side else [reconstruction]
        fps = (clips[name].fps or DEFAULT_FPS) / settings.sample_stride
        mark_begun(path, origins[name])
        write_video(path, np.concatenate(shown, axis=2), fps=fps, overwrite=True)
        mark_finished(path, origins[name], frames=numbers_to_json(values))
        outcome.done.append(name)
    logger.info(outcome.summary("reconstructed"))
    outcome.refuse_total_failure()
    _write_report(folder, report, outcome)
    return report


def _origins(
    vae: VideoVAE,
    clips: dict[str, Clip],
    settings: ReconstructionSettings,
    network: "LPIPS | None",
    is_tiled: bool,
) -> dict[str, dict[str, Any]]:
    """Return what each video is made from, as JSON can hold it."""
    shared = {
        "family": vae.family,
        "config": vae.stored_config(),
        "weights_hash": tensors_hash(vae.tensors()),
        "is_tiled": is_tiled,
        **settings.of_result(lpips_identity(settings.lpips_path, network)),
    }
    shared = json.loads(json.dumps(shared))
    return {name: {"input": clip_state(clip), "settings": shared} for name, clip in clips.items()}


def _sizes(
    clips: dict[str, Clip], settings: ReconstructionSettings, spec: LatentSpec, outcome: Outcome
) -> dict[str, tuple[int, int]]:
    """Return the (height, width) of each clip's frames; note the unusable clips."""
    sizes = {}
    for name, clip in clips.items():
        try:
            sizes[name] = frame_size(clip, settings.image_size, spec)
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


def _write_report(folder: Path, report: QualityReport, outcome: Outcome) -> None:
    table = report.table()
    content = {"left_out": outcome.failed, **json.loads(report.to_json())}
    write_text(folder / "report.json", json.dumps(content, indent=2), overwrite=True)
    write_text(folder / "report.txt", table + "\n", overwrite=True)
    logger.info("%s\n\nVideos and report are in %s", table, folder)
