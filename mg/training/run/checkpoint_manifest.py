"""The manifest of a checkpoint folder: size and sha256 of every file, and of the manifest itself.

It is written last, so a folder with a manifest has all its files; and any changed bit, in a file or
in the manifest, is noticed before something is loaded.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

from mg.files import sha256_of_file, write_text

__all__ = [
    "MANIFEST",
    "FileRecord",
    "Manifest",
    "read_manifest",
    "read_verified",
    "verify_files",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """What a file was when it was written: its size in bytes and its sha256 (hexadecimal)."""

    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Args:
        step: updates done when it was saved.
        serial: number of this save; later saves have higher ones, also when a run went back to
            an earlier step.
        score: quality at that step, higher is better; None: not measured.
        files: by name, without the manifest.
    """

    step: int
    serial: int
    score: float | None
    files: dict[str, FileRecord]


def write_manifest(folder: Path, *, step: int, serial: int, score: float | None) -> None:
    """Write `folder/manifest.json` about all files that are in the folder now.

    Args:
        folder: holds plain files only.
        step, serial, score: see `Manifest`.
    """
    files = {
        path.name: FileRecord(path.stat().st_size, sha256_of_file(path))
        for path in sorted(folder.iterdir())
    }
    score = None if score is None else float(score)  # numpy's float32 is not a JSON number
    manifest = Manifest(step=int(step), serial=serial, score=score, files=files)
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    write_text(folder / MANIFEST, _sealed_text(content))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint folder; the files it lists are not looked at.

    Raises:
        ValueError: it is missing, damaged or of another format version.
        OSError: it cannot be read.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{MANIFEST} is missing") from error
    try:
        content = json.loads(raw)  # sealed, and a score may be NaN, which `read_json` refuses
        del content["sha256"]
        is_intact = _sealed_text(content).encode() == raw
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error}") from error
    if not is_intact:
        raise ValueError(f"{MANIFEST} is damaged: its content differs from its own sha256")
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(f"{MANIFEST} has format {version}, only {FORMAT_VERSION} is known here")
    try:
        files = {name: FileRecord(**record) for name, record in content.pop("files").items()}
        manifest = Manifest(files=files, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{MANIFEST} holds other things than this version knows: {error}"
        ) from error
    for name in files:
        if Path(name).name != name or "\\" in name:
            raise ValueError(f"{MANIFEST} names {name!r}, which is not a plain file name")
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Read every file of a checkpoint and raise unless each is as it was written.

    Raises:
        ValueError: a file is missing, or its size or sha256 differs.
        OSError: a file cannot be read.
    """
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        _compare(name, record, size=path.stat().st_size)
        _compare(name, record, sha256=sha256_of_file(path))


def read_verified(folder: Path, name: str, *, manifest: Manifest) -> bytes:
    """Return the content of one file, which is as it was written.

    Raises:
        ValueError: the checkpoint has no such file, or it has changed since.
        OSError: the file cannot be read.
    """
    record = manifest.files.get(name)
    if record is None:
        raise ValueError(f"{folder} holds no {name}; it has {', '.join(manifest.files)}")
    content = (folder / name).read_bytes()
    _compare(name, record, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return content


def _compare(name: str, record: FileRecord, **found: int | str) -> None:
    for key, value in found.items():
        expected = getattr(record, key)
        if value != expected:
            raise ValueError(f"{name} is damaged: its {key} is {value} instead of {expected}")


def _sealed_text(content: dict) -> str:
    """Return the text of a manifest: the content, then the sha256 of the content's own text."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1) + "\n"
