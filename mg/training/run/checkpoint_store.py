"""Checkpoints that survive a kill at any instant: a folder each, committed by one rename.

    checkpoints/
      step_00000200/   tae.safetensors  state.safetensors  progress.json ...  manifest.json
      step_00000300/   ...
      LATEST           the name of the newest one

A checkpoint is written in a hidden folder beside, flushed to disk, renamed, and named in LATEST;
only then are older ones removed, after they too were renamed. So whatever is called `step_*` was
complete once, and its manifest (`checkpoint_manifest.py`) tells whether it still is.
"""

import dataclasses
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as parse_safetensors

from mg.files import write_text
from mg.training.run.checkpoint_manifest import (
    Manifest,
    read_manifest,
    read_verified,
    verify_files,
    write_manifest,
)
from mg.weights.checkpoint_file import write_weights

__all__ = ["CheckpointStore", "StoredCheckpoint"]

logger = logging.getLogger("mg")

LATEST = "LATEST"
WRITING, REMOVING = ".writing_", ".removing_"
LEFTOVERS = (f"{WRITING}*", f"{REMOVING}*", f".{LATEST}.*.tmp")  # of a run that was killed
# A step that is saved again while its checkpoint exists gets a number: step_00000200_2.
FOLDER_NAME = re.compile(r"step_(?P<step>\d{8,})(_\d+)?")
FILE_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that was whole when it was loaded; each file is verified again when read.

    Args:
        path: its folder.
        manifest: its step, score and files.
    """

    path: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        """Return the number of updates done when it was saved."""
        return self.manifest.step

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """Return the tensors of `name.safetensors`, as arrays that may be written to.

        Raises:
            ValueError: there is no such file in this checkpoint, or it has changed since.
        """
        return parse_safetensors(self._read(f"{name}.safetensors"))

    def document(self, name: str) -> dict[str, Any]:
        """Return the JSON object of `name.json`.

        Raises:
            ValueError: there is no such file in this checkpoint, or it has changed since.
        """
        return json.loads(self._read(f"{name}.json"))  # sealed: what was written, NaN included

    def _read(self, name: str) -> bytes:
        return read_verified(self.path, name, manifest=self.manifest)


class CheckpointStore:
    """The checkpoints of one run. Only one process may save into a folder at a time.

    Args:
        folder: where they are; made at the first save.
        keep: how many of the newest to keep, at least 2. The one with the best score is kept too.

    Raises:
        ValueError: `keep` is less than 2.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int) -> None:
        if keep < 2:
            raise ValueError(
                f"keep={keep}: at least 2 checkpoints must be kept, so that there is another one "
                "when the newest is damaged"
            )
        self.folder = Path(folder)
        self.keep = keep
        self._damaged: set[Path] = set()  # as found while loading; not worth keeping

    def save(
        self,
        step: int,
        *,
        tensors: Mapping[str, Mapping[str, np.ndarray]],
        documents: Mapping[str, Mapping[str, Any]],
        metadata: Mapping[str, Mapping[str, str]] | None = None,
        score: float | None = None,
    ) -> Path:
        """Write and commit a checkpoint, then remove old ones; return its folder.

        Args:
            step: updates done, at least 0.
            tensors: for each `NAME.safetensors` its arrays by name.
            documents: for each `NAME.json` its JSON object.
            metadata: for some of the tensor files the texts of their header.
            score: quality at this step, higher is better, so that the best is kept.

        Raises:
            ValueError: a name or value that cannot be stored.
            OSError: it could not be written (disk full?) and is not there; older checkpoints are
                intact, and saving may be tried again.
        """
        _check_names(step, tensors, documents, metadata or {})
        self._clear_leftovers()
        serial = 1 + max((m.serial for m in self._manifests(self._paths()).values()), default=0)
        target = self._free_path(step)
        temporary = target.with_name(WRITING + target.name)
        try:
            self._make_folder()
            temporary.mkdir()
            for name, arrays in tensors.items():
                texts = (metadata or {}).get(name)
                write_weights(temporary / f"{name}.safetensors", arrays, metadata=texts)
            for name, document in documents.items():
                write_text(temporary / f"{name}.json", json.dumps(document, indent=1) + "\n")
            write_manifest(temporary, step=step, serial=serial, score=score)
            _flush_folder(temporary)
            self._commit(temporary, target)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            reason = error.strerror or error
            if not _is_committed(target, serial):
                raise OSError(
                    f"could not save {target} ({reason}); older ones are intact"
                ) from error
            # Older ones stay, since this one may not be on disk yet.
            logger.warning("Saved %s, but what had to follow failed: %s", target, reason)
            return target
        self._damaged.discard(target)  # the name may have been that of a removed one
        self._remove_old()
        return target

    def load(self, step: int | None = None) -> StoredCheckpoint:
        """Return the newest checkpoint of which every file is as it was written.

        A warning names each that had to be passed over and what is wrong with it.

        Args:
            step: the very step that is wanted; None: the newest. What counts is when it was
                saved: a run that went back to an earlier step goes on from what it saved since.

        Raises:
            FileNotFoundError: there is no checkpoint, or none of this step.
            ValueError: there are some, but none is whole.
        """
        paths = self._paths(step)
        if not paths:
            raise FileNotFoundError(self._nothing_to_load(step))
        problems: dict[str, str] = {}
        manifests = self._manifests(paths, problems)
        newest_first = sorted(manifests, key=lambda path: manifests[path].serial, reverse=True)
        for path in newest_first:
            try:
                verify_files(path, manifests[path])
            except (ValueError, OSError) as error:
                problems[path.name] = str(error)
                self._damaged.add(path)
                continue
            if step is None:
                self._check_latest({newest_first[0].name, *problems}, problems)
            if problems:
                text = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
                logger.warning("Going on from %s; not as it should be: %s", path, text)
            return StoredCheckpoint(path, manifests[path])
        listed = "".join(f"\n  {name}: {problem}" for name, problem in sorted(problems.items()))
        raise ValueError(f"no checkpoint in {self.folder} is whole:{listed}")

    def steps(self) -> list[int]:
        """Return the steps of which there is a checkpoint, in order; none is verified."""
        return sorted({int(FOLDER_NAME.fullmatch(path.name)["step"]) for path in self._paths()})

    def remove_all(self) -> None:
        """Remove every checkpoint, so that those of a replaced run are not taken for newer ones."""
        self._clear_leftovers()
        (self.folder / LATEST).unlink(missing_ok=True)
        self._remove(self._paths())

    def _paths(self, step: int | None = None) -> list[Path]:
        """Return the folders of committed checkpoints, of all steps or of one."""
        found = [(FOLDER_NAME.fullmatch(path.name), path) for path in self.folder.glob("step_*")]
        return [path for m, path in found if m and (step is None or int(m["step"]) == step)]

    def _free_path(self, step: int) -> Path:
        """Return where to commit a step: a name of its own, so that nothing has to make way."""
        path = self.folder / f"step_{step:08d}"
        number = 2
        while path.exists():
            path = self.folder / f"step_{step:08d}_{number}"
            number += 1
        return path

    def _manifests(
        self, paths: Iterable[Path], problems: dict[str, str] | None = None
    ) -> dict[Path, Manifest]:
        """Return the manifests that can be read; add the faults of the others to `problems`."""
        manifests = {}
        for path in paths:
            try:
                manifests[path] = read_manifest(path)
            except (ValueError, OSError) as error:
                if problems is not None:
                    problems[path.name] = str(error)
        return manifests

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            _flush_folder(self.folder.parent)

    def _commit(self, temporary: Path, target: Path) -> None:
        """Make the folder a checkpoint, on disk, then let LATEST name it."""
        os.replace(temporary, target)
        _flush_folder(self.folder)
        write_text(self.folder / LATEST, target.name + "\n", overwrite=True)
        _flush_folder(self.folder)

    def _check_latest(self, expected: set[str], problems: dict[str, str]) -> None:
        """Add to `problems` if LATEST names none of the expected checkpoints.

        It is a pointer for people and other programs: the serial numbers in the manifests tell
        which is the newest, also after a kill between the two renames of a commit.
        """
        try:
            content = (self.folder / LATEST).read_bytes()
        except OSError as error:
            problems[LATEST] = str(error)
            return
        if content not in {f"{name}\n".encode() for name in expected}:
            problems[LATEST] = f"it names {content!r}, which is not the newest checkpoint"

    def _remove_old(self) -> None:
        """Remove all but the newest `keep` and the best; what has no manifest is left alone."""
        manifests = self._manifests(self._paths())
        whole = [path for path in manifests if path not in self._damaged]
        whole.sort(key=lambda path: manifests[path].serial, reverse=True)
        newest_of_step: dict[int, Path] = {}
        for path in whole:
            newest_of_step.setdefault(manifests[path].step, path)
        kept = set(list(newest_of_step.values())[: self.keep])
        scores = {path: manifests[path].score for path in whole}
        scored = [path for path, score in scores.items() if score is not None and score == score]
        if scored:
            kept.add(max(scored, key=scores.__getitem__))
        try:
            self._remove(path for path in manifests if path not in kept)
        except OSError as error:  # the new checkpoint is safe all the same
            logger.warning("Could not remove old checkpoints: %s", error)

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove folders, renamed first: a kill must leave nothing that looks like a checkpoint."""
        renamed = []
        for path in paths:
            renamed.append(path.with_name(REMOVING + path.name))
            os.replace(path, renamed[-1])
        for path in renamed:
            shutil.rmtree(path)

    def _clear_leftovers(self) -> None:
        for pattern in LEFTOVERS:
            for path in self.folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _nothing_to_load(self, step: int | None) -> str:
        if step is None or not self.steps():
            return f"no checkpoint in {self.folder}: nothing to resume"
        there = ", ".join(map(str, self.steps()))
        return f"no checkpoint of step {step} in {self.folder}; there are those of {there}"


def _check_names(
    step: int,
    tensors: Mapping[str, Any],
    documents: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> None:
    if step < 0:
        raise ValueError(f"step={step}: a step is at least 0")
    for name in (*tensors, *documents):
        if not FILE_STEM.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a file of a checkpoint; use letters and digits")
    if "manifest" in documents:
        raise ValueError("the document's name 'manifest' is taken by the checkpoint's own manifest")
    unknown = sorted(set(metadata) - set(tensors))
    if unknown:
        raise ValueError(f"metadata for {unknown}, but the tensors are {sorted(tensors)}")


def _is_committed(folder: Path, serial: int) -> bool:
    """Return whether a checkpoint of this save is there, as far as it can be read."""
    try:
        return read_manifest(folder).serial == serial
    except (ValueError, OSError):
        return False


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk: new files and renames survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
