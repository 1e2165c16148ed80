"""Two folders of videos measured against each other by a protocol: tables, plots, worst clips."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mg.data.manifest import Clip, Manifest, build_manifest
from mg.data.media_source import open_media
from mg.files import check_writable_folder, sha256_of_content, write_text
from mg.metrics.measures import METRICS, Measures, MetricOptions, check_set_size, figures_of_set
from mg.metrics.protocol import Protocol
from mg.metrics.report import QualityReport, without_infinities
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.pipelines.evaluation_pictures import draw_figures, write_worst_clips
from mg.pipelines.evaluation_records import Record, read_record, write_record
from mg.pipelines.outcome import Outcome
from mg.pipelines.output_paths import output_paths
from mg.pipelines.video_pairs import Pair, load_pair, pair_by_name
from mg.progress import ProgressBar

__all__ = ["evaluate_pairs", "find_pairs"]

logger = logging.getLogger("mg")

NUM_LISTED = 5  # names in a message


def find_pairs(
    real: str | os.PathLike, generated: str | os.PathLike, *, subset_size: int | None = None
) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs of two folders by name, and why each other video is left out, by its name.

    Args:
        real: folder of the originals, or one file.
        generated: folder of the videos made of them, or what `mg reconstruct` wrote; one file
            belongs to one file whatever their names.
        subset_size: the first so many pairs; None takes all.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no name is in both, or nothing in one of them can be read.
    """
    generated = _folder_of_videos(generated)
    manifests = [build_manifest(video_folder=folder) for folder in (real, generated)]
    if Path(real).is_file() and Path(generated).is_file():
        clips = [manifest.clips[0] for manifest in manifests]
        return [Pair(clips[0].name, *clips)], {}
    pairs, left_out = pair_by_name(*manifests)
    if not pairs:
        first = [_some_names(manifest) for manifest in manifests]
        raise ValueError(
            f"no video in {real} ({first[0]}) has the name of one in {generated} ({first[1]}); "
            "names, without suffix, say what belongs together"
        )
    return pairs[:subset_size], left_out


def _folder_of_videos(folder: str | os.PathLike) -> str | os.PathLike:
    """Return the folder itself, or of what `mg reconstruct` wrote the part with the videos."""
    clips = Path(folder) / "clips"
    return clips if clips.is_dir() and (Path(folder) / "report.json").is_file() else folder


def _some_names(manifest: Manifest) -> str:
    names = [clip.name for clip in manifest.clips[:NUM_LISTED]]
    return ", ".join(names + ["..."] * (len(manifest.clips) > NUM_LISTED))


def evaluate_pairs(
    pairs: Sequence[Pair],
    output_folder: str | os.PathLike,
    protocol: Protocol,
    metrics: Sequence[str],
    *,
    options: MetricOptions | None = None,
    left_out: dict[str, str] | None = None,
    allow_few: bool = False,
    overwrite: bool = False,
    ranks: Ranks = ONE_RANK,
) -> QualityReport:
    """Return the figures of all pairs.

    Writes a record of each pair below `clips`, and of all `report.json`, `report.txt`, `clips.csv`,
    `frames.csv`, `figures.png` and `worst_clips.png`. What an earlier run has measured of the same
    files by the same protocol is not measured again.

    Args:
        pairs: from `find_pairs`.
        output_folder: made if missing.
        protocol: see there.
        metrics: names from `parse_metrics`.
        options: of the metrics; none of them changes a figure.
        left_out: videos without a partner and why, for the report.
        allow_few: give FVD and KVD of fewer clips than the protocol asks for, too.
        overwrite: measure again what is there.
        ranks: share the pairs; rank 0 writes the report of all.

    Raises:
        ValueError: too few pairs for FVD or KVD, not one pair could be measured, or the folder
            holds figures of another protocol or of other files.
        FileNotFoundError: weights of a metric are missing.
        OSError: the output folder cannot be written to.
    """
    check_writable_folder(output_folder)
    few = {"min_clips": protocol.metrics.min_clips, "allow_few": allow_few}
    check_set_size(metrics, len(pairs), **few)
    of_pairs = [name for name in metrics if name in METRICS]
    job = _Job(Path(output_folder), protocol, of_pairs, options or MetricOptions(), overwrite)
    paths = output_paths([pair.name for pair in pairs], job.folder / "clips", ".json")
    outcome = Outcome(failed=dict(left_out or {}))
    records = {}
    own = ranks.share(list(pairs))
    with ProgressBar(len(own), "measuring", unit="pair") as progress:
        for pair in own:
            try:
                records[pair.name] = job.measure(pair, paths[pair.name], outcome)
            except (ValueError, IndexError, OSError) as error:
                if isinstance(error, _WrongRecordError):
                    raise ValueError(str(error)) from error
                outcome.failed[pair.name] = str(error)
            progress.update()
    outcome = outcome.of_all(ranks)
    everything: dict[str, dict] = {}
    for part in ranks.gather_json({name: record.to_dict() for name, record in records.items()}):
        everything |= part
    logger.info(outcome.summary("measured"))
    outcome.refuse_total_failure()
    whole = {p.name: Record.from_dict(everything[p.name]) for p in pairs if p.name in everything}
    report = QualityReport(mean_over=protocol.mean_over)
    wanted = [figure for name in of_pairs for figure in METRICS[name].figures]
    for name, record in whole.items():
        values = {key: value for key, value in record.values.items() if key in wanted}
        report.add_measured(name, values, record.num_frames)
    notes, of_set = [], {}
    try:
        of_set = figures_of_set(metrics, [record.values for record in whole.values()], **few)
    except ValueError as error:  # pairs were left out on the way; the other figures stand
        notes.append(str(error))
    if ranks.is_main:
        job.write_report(report, whole, of_set, notes, outcome, {p.name: p for p in pairs})
    return report


class _WrongRecordError(ValueError):
    """The output folder holds figures that depend on something else."""


class _Job:
    """One evaluation: measures pairs, keeps their records, writes the report."""

    def __init__(
        self,
        folder: Path,
        protocol: Protocol,
        metrics: Sequence[str],
        options: MetricOptions,
        overwrite: bool,
    ) -> None:
        self.folder = folder
        self.protocol = protocol
        self.overwrite = overwrite
        self.metrics = list(metrics)
        self.measures = Measures(metrics, protocol.metrics, options)

    def measure(self, pair: Pair, path: Path, outcome: Outcome) -> Record:
        """Return the record of a pair; what an earlier run has not measured is measured now."""
        made_by = {
            "protocol": self.protocol.hash(),
            "original": _sha256(pair.real),
            "generated video": _sha256(pair.generated),
        }
        weights = self.measures.weights()
        try:
            before = None if self.overwrite else read_record(path, made_by, weights)
        except ValueError as error:
            raise _WrongRecordError(str(error)) from error
        missing = [name for name in self.metrics if before is None or name not in before.metrics]
        if not missing:
            outcome.finished_before.append(pair.name)
            return before
        real, generated, notes = load_pair(pair, self.protocol)
        values, left_out = self.measures(real, generated, missing)
        if before is None and not values:
            raise ValueError("; ".join(left_out.values()))
        weights = {name: weights[name] for name in missing if name in weights}
        record = Record(
            made_by, weights, len(real), values, metrics=missing, left_out=left_out, notes=notes
        )
        record = record if before is None else before.joined(record)
        write_record(path, record)
        outcome.done.append(pair.name)
        return record

    def write_report(
        self,
        report: QualityReport,
        records: dict[str, Record],
        of_set: dict[str, float],
        notes: list[str],
        outcome: Outcome,
        pairs: dict[str, Pair],
    ) -> None:
        """Write tables, plots and the worst clips of all records."""
        label = f"protocol {self.protocol.label()}"
        notes = [*notes, *(f"{name}: {n}" for name, r in records.items() for n in r.notes)]
        notes += [
            f"{name}: {why}"
            for name, record in records.items()
            for metric, why in record.left_out.items()
            if metric in self.metrics
        ]
        table = "\n".join(
            [
                label,
                "",
                report.table(),
                *(
                    f"\n{name.upper()} {of_set[name]:.3f} of {len(records)} clips"
                    for name in of_set
                ),
                *(["", *notes] if notes else []),
            ]
        )
        content = {
            "protocol": self.protocol.record(),
            "weights": self.measures.weights(),
            "made_with": {"numpy": np.__version__, "opencv": cv2.__version__},
            "left_out": outcome.failed,
            "notes": notes,
            **{name: {"value": value, "num_clips": len(records)} for name, value in of_set.items()},
            **without_infinities(report.summary()),
        }
        texts = {
            "report.json": json.dumps(content, indent=2, allow_nan=False),
            "report.txt": table + "\n",
            "clips.csv": report.to_csv(),
            "frames.csv": report.frames_to_csv(),
        }
        for name, text in texts.items():
            write_text(self.folder / name, text, overwrite=True)
        draw_figures(self.folder / "figures.png", report, label)
        write_worst_clips(self.folder / "worst_clips.png", report, pairs, self.protocol)
        logger.info("%s\n\nFigures, plots and the worst clips are in %s", table, self.folder)


def _sha256(clip: Clip) -> str:
    with open_media(clip.path) as file:
        return sha256_of_content(file)
