"""Bad numbers and bad files: what training meets in its data."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from fault_experiments.checkpoints import captured_warnings
from fault_experiments.corrupt_media import write_corrupt_media
from fault_experiments.experiment import Experiment, Trials
from mg.data.clips import ClipConfig, ClipDataset
from mg.data.loader import ClipLoader
from mg.data.manifest import build_manifest

__all__ = ["EXPERIMENTS"]

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips" / "test"
INTACT = ("city_b_cc0.mp4", "dog_ccbysa4.mp4")


def bad_numbers(folder: Path, num_trials: int) -> Trials:
    """Put each kind of bad number into a short run of each kind."""
    # MindSpore starts threads: not before other experiments have forked.
    from fault_experiments.bad_numbers import FAULTS, RUNS, faults_of_run

    num_runs = -(-num_trials // len(FAULTS))
    for number, name in enumerate(list(RUNS)[:num_runs]):
        place = folder / str(number)
        place.mkdir()
        yield from faults_of_run(place, name)


def corrupt_media(folder: Path, num_trials: int | None) -> Trials:
    """Train on the clips of a folder of corrupt files and two intact ones; count the corrupt."""
    media = folder / "media"
    media.mkdir()
    names = write_corrupt_media(media, CLIPS / INTACT[1])
    for name in INTACT:
        shutil.copy(CLIPS / name, media)
    manifest = build_manifest(video_folder=media, min_frames=4, probe_seconds_limit=20)
    reasons = {entry.name: entry.reason for entry in manifest.rejected}
    config = ClipConfig(sample_n_frames=4, size=32, crop="random")
    data = ClipDataset(manifest, config, max_bad_share=1.0)
    with captured_warnings():
        loaded = set(_names_of_batches(data, num_batches=2 * len(manifest.clips)))
    for name in INTACT:
        if name not in loaded:
            yield f"{name} is intact but was not loaded"
    for name in names[:num_trials]:
        reason = reasons.get(name) or data.bad.get(name)
        if reason is not None and ("hung" in reason or "crashed" in reason):
            yield f"{name}: {reason}"
        else:
            yield None if reason or name in loaded else f"{name} was neither listed nor loaded"


def _names_of_batches(data: ClipDataset, *, num_batches: int) -> Iterator[str]:
    with ClipLoader(
        data, 1, num_steps=num_batches, num_workers=1, decode_seconds_limit=20
    ) as loader:
        for batch in loader:
            yield from batch.names


EXPERIMENTS = {
    "bad_numbers": Experiment(
        "NaN, infinity or overflow in a batch or a gradient (float32, float16, accumulation, "
        "adversarial): weights, moments and averages changed by 0, the next step is applied",
        45,
        bad_numbers,
    ),
    "corrupt_media": Experiment(
        "A corrupt file among the clips: listed with its reason, or read where it can be; the "
        "intact ones are read",
        None,
        corrupt_media,
    ),
}
