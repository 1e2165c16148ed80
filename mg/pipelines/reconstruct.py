"""Videos through the autoencoder and back: original | reconstruction as mp4, and their quality."""

import collections
import dataclasses
import functools
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from mg.data.manifest import Clip, Manifest
from mg.data.transforms import from_model_range, resize_and_crop, to_model_range
from mg.data.video_writer import VideoWriter, write_video
from mg.device import compiles_graphs
from mg.files import write_text
from mg.metrics.protocol import DEFINITIONS
from mg.metrics.report import QualityReport
from mg.models.autoencoder import Autoencoder
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.parallel.work import map_over_ranks, share_files
from mg.pipelines.autoencoder import config_hash, framewise_settings, weights_hash
from mg.pipelines.clip_results import build_measures, numbers_of_record, numbers_to_json
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
from mg.pipelines.streaming import check_finite, decode_latents, encode_frames, read_frames
from mg.progress import ProgressBar

__all__ = ["reconstruct_videos"]

logger = logging.getLogger("mg")


def reconstruct_videos(
    autoencoder: Autoencoder,
    manifest: Manifest,
    output_folder: str | os.PathLike,
    settings: ReconstructionSettings,
    *,
    ranks: Ranks = ONE_RANK,
    on_begin: Callable[[], None] | None = None,
) -> QualityReport:
    """Return the quality of all reconstructed clips; the posterior's mean is decoded.

    Writes `clips/NAME.mp4` and `clips/NAME.json` (what it was made from, quality of each frame) for
    each clip, and `report.json` and `report.txt` for all, with the hash of the measuring protocol.
    Clips that an earlier run has finished, from the same video (by size and time of the file), with
    the same weights and settings, are not computed again.

    Args:
        autoencoder: its tiling is used with `use_tile`, and for whole clips.
        manifest: the videos, of at least `settings.num_source_frames` frames.
        output_folder: made if missing.
        settings: see there.
        ranks: share the clips, or where there are fewer whole clips than ranks, the tiles of each;
            rank 0 writes the report of all.
        on_begin: called once nothing more can be refused, before the first output is made.

    Raises:
        FileExistsError: a video without its `.json` is there.
        ValueError: no clip could be reconstructed, a size that the network cannot take, or outputs
            that were made from something else (before anything is computed).
    """
    clips = {clip.name: clip for clip in manifest.clips}  # a table may name a video twice
    outcome = Outcome(failed={entry.name: entry.reason for entry in manifest.rejected})
    sizes = _frame_sizes(autoencoder, clips, settings, outcome)
    if not sizes:
        outcome.refuse_total_failure()
    names, team = ranks.share(list(sizes)), ONE_RANK
    if not settings.num_frames:
        names, team = share_files(list(sizes), ranks)
    own = {name: sizes[name] for name in names}
    job = _Job(autoencoder, Path(output_folder), clips, settings, team)
    measured = {} if settings.overwrite else job.finished(own)
    outcome.finished_before.extend(measured)
    if on_begin is not None:
        on_begin()
    todo = {name: size for name, size in own.items() if name not in measured}
    results = job.stream(todo, outcome) if not settings.num_frames else job.batch(todo, outcome)
    compiles = "the network" if compiles_graphs() else None
    with ProgressBar(len(todo), "reconstructing", unit="clip", compiles=compiles) as progress:
        for name, values in results:
            measured[name] = values
            outcome.done.append(name)
            progress.update()
    outcome = outcome.of_all(ranks)
    logger.info(outcome.summary("reconstructed"))
    outcome.refuse_total_failure()
    report = _report_of_all(measured, list(sizes), ranks)
    if ranks.is_main:
        job.write_report(report, outcome)
    return report


def _report_of_all(
    measured: dict[str, dict[str, np.ndarray]], names: list[str], ranks: Ranks
) -> QualityReport:
    """Return the report of the clips that all ranks have measured, in the order of `names`."""
    lists = {
        clip: {metric: values.tolist() for metric, values in metrics.items()}
        for clip, metrics in measured.items()
    }
    whole = {}
    for part in ranks.gather_json(lists):
        whole |= part
    report = QualityReport()
    for name in names:
        if name in whole:
            report.add_measured(name, {k: np.array(v) for k, v in whole[name].items()})
    return report


def _frame_sizes(
    autoencoder: Autoencoder,
    clips: dict[str, Clip],
    settings: ReconstructionSettings,
    outcome: Outcome,
) -> dict[str, tuple[int, int]]:
    """Return the (height, width) of each clip's frames in the network; note the unusable ones."""
    sizes = {}
    for name, clip in clips.items():
        try:
            sizes[name] = frame_size(clip, settings.image_size, autoencoder.spec)
        except ValueError as error:
            outcome.failed[name] = str(error)
    for size in set(sizes.values()):
        autoencoder.check_video_shape((1, 3, 1, *size))
    return sizes


class _Job:
    """One run over some clips: reads, reconstructs, writes and measures them."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        folder: Path,
        clips: dict[str, Clip],
        settings: ReconstructionSettings,
        team: Ranks,  # who reconstructs each clip together
    ) -> None:
        self.autoencoder = autoencoder
        self.team = team
        self.map_tiles = functools.partial(map_over_ranks, ranks=team)
        self.folder = folder
        self.clips = clips
        self.settings = settings
        self.protocol = settings.protocol(autoencoder.spec)
        self.measures = build_measures(settings.lpips_path, self.protocol.metrics)
        self.videos = output_paths(clips, folder / "clips", ".mp4")
        tiles_count = autoencoder.use_tile or not settings.num_frames
        model = {
            "config": config_hash(autoencoder.config),
            "weights": weights_hash(autoencoder),
            "encode_dtype": str(autoencoder.encode_dtype),
            "decode_dtype": str(autoencoder.decode_dtype),
            "use_tile": autoencoder.use_tile,
            "tiling": dataclasses.asdict(autoencoder.tiling) if tiles_count else None,
            **framewise_settings(autoencoder),
        }
        # All that the numbers and videos depend on but for the clip, as JSON can hold it.
        lpips = self.measures.weights().get(f"lpips_{self.protocol.metrics.lpips_net}")
        self.settings_of_result = json.loads(json.dumps({**model, **settings.of_result(lpips)}))

    def finished(self, sizes: dict[str, tuple[int, int]]) -> dict[str, dict[str, np.ndarray]]:
        """Return the numbers of the clips that an earlier run has finished.

        Raises:
            FileExistsError, ValueError: as `is_finished`.
        """
        paths = {name: self.videos[name] for name in sizes}
        return {
            name: numbers_of_record(record_path(path), read_record(path))
            for name, path in paths.items()
            if is_finished(path, self._made_from(name), older={"definitions": 1})
        }

    def _made_from(self, name: str) -> dict[str, Any]:
        return {
            "input": clip_state(self.clips[name]),
            "settings": self.settings_of_result,
            "definitions": DEFINITIONS,
        }

    def batch(
        self, sizes: dict[str, tuple[int, int]], outcome: Outcome
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yield the numbers of each clip; clips of one size go through the network together."""
        by_size: dict[tuple[int, int], list[str]] = collections.defaultdict(list)
        for name, size in sizes.items():
            by_size[size].append(name)
        for size, names in by_size.items():
            self._choose_tiles(size)
            loaded = self._load(names, size, outcome)
            is_first = True
            while group := list(itertools.islice(loaded, self.settings.batch_size)):
                originals = [frames for _, frames in group]
                if not is_first:
                    # A smaller last batch is filled up: the network is compiled for one shape.
                    originals += [originals[-1]] * (self.settings.batch_size - len(group))
                is_first = False
                for (name, original), video in zip(group, self._run(originals), strict=False):
                    yield name, self._save(name, original, from_model_range(video))

    def _load(
        self, names: list[str], size: tuple[int, int], outcome: Outcome
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and frames, uint8 (T, H, W, 3), of the clips that can be read."""
        settings = self.settings
        for name in names:
            try:
                with self.clips[name].open() as reader:
                    frames = reader.read(
                        range(0, settings.num_source_frames, settings.sample_stride)
                    )
            except (ValueError, IndexError, OSError) as error:
                outcome.failed[name] = str(error)
                continue
            short_side = min(frames.shape[1:3]) if settings.image_size is None else None
            yield name, resize_and_crop(frames, size=size, short_side=short_side)

    def _run(self, originals: list[np.ndarray]) -> np.ndarray:
        """Return the reconstructions, float32 (B, 3, T, H, W), of uint8 clips (T, H, W, 3)."""
        video = np.stack([to_model_range(frames) for frames in originals])  # (B, 3, T, H, W)
        _, mean, _ = self.autoencoder.encode(Tensor(video))
        reconstructions = self.autoencoder.decode(mean, num_target_frames=video.shape[2]).asnumpy()
        check_finite(reconstructions, "decoder")
        return reconstructions

    def _save(
        self, name: str, original: np.ndarray, reconstruction: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Write one clip's video and numbers; return the numbers."""
        values = self._measure(name, original, reconstruction)
        shown = self._shown(original, reconstruction)
        mark_begun(self.videos[name], self._made_from(name))
        write_video(self.videos[name], shown, fps=self._fps(name), overwrite=True)
        self._mark_finished(name, values)
        return values

    def stream(
        self, sizes: dict[str, tuple[int, int]], outcome: Outcome
    ) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yield the numbers of each clip, reconstructed as a whole in constant memory.

        Of ranks that share a clip's tiles rank 0 alone writes, measures and yields.
        """
        for name, size in sizes.items():
            self._choose_tiles(size)
            pieces = self._stream_pieces(name, size)
            try:
                if not self.team.is_main:
                    collections.deque(pieces, maxlen=0)  # compute this rank's tiles
                    continue
                values = self._write_pieces(name, pieces)
            except ValueError as error:
                if self.team.size > 1:  # the other ranks wait for this one's tiles
                    raise
                outcome.failed[name] = str(error)
                continue
            self._mark_finished(name, values)
            yield name, values

    def _write_pieces(
        self, name: str, pieces: Iterator[tuple[np.ndarray, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Write one clip's video as its pieces come; return its numbers."""
        mark_begun(self.videos[name], self._made_from(name))
        measured = []
        with VideoWriter(self.videos[name], fps=self._fps(name), overwrite=True) as writer:
            for original, reconstruction in pieces:
                writer.write(self._shown(original, reconstruction))
                measured.append(self._measure(name, original, reconstruction))
        return {key: np.concatenate([part[key] for part in measured]) for key in measured[0]}

    def _stream_pieces(
        self, name: str, size: tuple[int, int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield original and reconstruction piece by piece, uint8 (t, H, W, 3) each."""
        waiting: collections.deque[np.ndarray] = collections.deque()

        def remembered(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            for frame in frames:
                waiting.append(frame)
                yield frame

        clip = self.clips[name]
        frames = read_frames(clip, size, rescale=self.settings.image_size is not None)
        latents = encode_frames(self.autoencoder, remembered(frames), map_tiles=self.map_tiles)
        means = (mean for mean, _ in latents)
        for video in decode_latents(
            self.autoencoder, means, clip.num_frames, map_tiles=self.map_tiles
        ):
            reconstruction = from_model_range(video)
            yield np.stack([waiting.popleft() for _ in reconstruction]), reconstruction

    def _measure(
        self, name: str, original: np.ndarray, reconstruction: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the figures of each frame, one array (T,) per figure."""
        values, left_out = self.measures(original, reconstruction)
        for reason in left_out.values():
            logger.info("%s: %s", name, reason)
        return values

    def _choose_tiles(self, size: tuple[int, int]) -> None:
        if self.settings.memory_budget_gb is not None:
            self.autoencoder.tiling = self.autoencoder.tiling_within(
                self.settings.memory_budget_gb, *size, batch_size=self.settings.batch_size
            )

    def _shown(self, original: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
        """Return the frames of the video to write, uint8 (T, H, W or 2W, 3)."""
        if self.settings.side_by_side:
            return np.concatenate((original, reconstruction), axis=2)
        return reconstruction

    def _fps(self, name: str) -> float:
        return (self.clips[name].fps or DEFAULT_FPS) / self.settings.sample_stride

    def _mark_finished(self, name: str, values: dict[str, np.ndarray]) -> None:
        mark_finished(self.videos[name], self._made_from(name), frames=numbers_to_json(values))

    def write_report(self, report: QualityReport, outcome: Outcome) -> None:
        """Write the report of all clips as text and JSON, and log the text."""
        table = f"protocol {self.protocol.label()}\n\n{report.table()}"
        content = {
            "protocol": self.protocol.record(),
            "weights": self.measures.weights(),
            "settings": self.settings_of_result,
            "left_out": outcome.failed,
            **json.loads(report.to_json()),
        }
        write_text(self.folder / "report.json", json.dumps(content, indent=2), overwrite=True)
        write_text(self.folder / "report.txt", table + "\n", overwrite=True)
        logger.info("%s\n\nVideos and report are in %s", table, self.folder)
