"""What each output was made from, in a JSON beside it: so that "finished before" is never a guess.

`a/b.mp4` has `a/b.json`. It is written before the output, and again after it with the output's
size; so a run that was stopped can tell its own unfinished outputs from others.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mg.data.manifest import Clip
from mg.data.media_rules import READING_VERSION
from mg.data.media_source import media_state
from mg.files import check_writable_folder, remove_abandoned, write_text
from mg.json_file import read_json_object
from mg.yaml_file import read_yaml

__all__ = [
    "clip_state",
    "differing",
    "input_state",
    "is_finished",
    "mark_begun",
    "mark_finished",
    "open_output_folder",
    "read_record",
    "record_path",
    "refuse_others",
]

OUTPUT_KEY = "output"
MAX_BYTES = 64 << 20  # a long clip's record has numbers for each frame

# Settings of scripts that decide which outputs there are, or how quickly, but not what is in them.
FREE_SETTINGS = frozenset(
    {
        "batch_size",
        "csv_path",
        "device",
        "input",
        "jit_level",
        "lpips_path",
        "mode",
        "output_path",
        "overwrite",
        "video_folder",
    }
)


def input_state(path: str | os.PathLike) -> dict[str, int]:
    """Return what tells, without reading it, whether an input is still the same: size and time."""
    return media_state(Path(path))._asdict()


def clip_state(clip: Clip) -> dict[str, Any]:
    """Return what tells whether a clip still has the same frames: its file, and how it is read."""
    reading = {"reading": READING_VERSION, "square_pixels": clip.reading.square_pixels}
    return {**media_state(clip.path)._asdict(), **reading}


def record_path(output: Path) -> Path:
    """Return where the record of an output stands: same name, suffix .json."""
    return output.with_suffix(".json")


def mark_begun(output: Path, made_from: Mapping[str, Any]) -> None:
    """Write the record of an output that is about to be written; replaces an older record."""
    _write(output, made_from, {}, num_bytes=None)


def mark_finished(output: Path, made_from: Mapping[str, Any], **more: Any) -> None:
    """Write the record of an output that is there now, with what else is to be known of it."""
    _write(output, made_from, more, num_bytes=output.stat().st_size)


def _write(
    output: Path, made_from: Mapping[str, Any], more: Mapping[str, Any], *, num_bytes: int | None
) -> None:
    about = {"name": output.name, "num_bytes": num_bytes}
    record = {**made_from, OUTPUT_KEY: about, **more}
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Names that are not UTF-8 hold half surrogates; what replaces these means the same in JSON.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    write_text(record_path(output), text, overwrite=True)


def read_record(output: Path) -> dict[str, Any] | None:
    """Return the record of an output; None if there is none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return read_json_object(record_path(output), max_bytes=MAX_BYTES)
    except FileNotFoundError:
        return None


def is_finished(
    output: Path, made_from: Mapping[str, Any], *, older: Mapping[str, Any] | None = None
) -> bool:
    """Return whether an output is there, whole and made from the same. If not, it may be written.

    Args:
        output: the file.
        made_from: all that decides it, as JSON can hold it.
        older: what is meant by keys that records of older versions lack.

    Raises:
        FileExistsError: an output without record.
        ValueError: it was made from something else, or changed since; or its record is damaged.
    """
    record = read_record(output)
    if record is None:
        if output.exists():
            raise FileExistsError(
                f"{output} exists, without {record_path(output).name} that would tell what it was "
                "made from; choose another output_path, or --overwrite"
            )
        return False
    about = record.get(OUTPUT_KEY)
    if not output.exists() and about is not None and not differing(about, {"name": output.name}):
        return False  # whatever it was
    refuse_others(record_path(output), {**(older or {}), **record}, made_from)
    if about is None:  # of an older version
        return output.exists()
    refuse_others(record_path(output), about, {"name": output.name})
    if about.get("num_bytes") is None:  # it was begun only
        return False
    if about["num_bytes"] != output.stat().st_size:
        raise ValueError(
            f"{output} has changed since it was written; choose another output_path, or --overwrite"
        )
    return True


def refuse_others(path: Path, found: Any, made_from: Mapping[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless a record says what `made_from` says.

    Args:
        path: where the record stands, for the message.
        found: the record, or what else was found there.
        made_from: the keys that must be there, and their values.
    """
    names = differing(found, made_from)
    if names:
        raise ValueError(
            f"{path} exists, but was made with other inputs or settings ({', '.join(names)} "
            "differ); choose another output_path, or --overwrite"
        )


def differing(found: Any, made_from: Mapping[str, Any]) -> list[str]:
    """Return the keys of `made_from` that differ in a record, `a.b` in nested mappings."""
    found = found if isinstance(found, dict) else {}
    names = []
    for name, value in made_from.items():
        other = found.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            names += [f"{name}.{below}" for below in differing(other, value)]
            names += [f"{name}.{below}" for below in other.keys() - value.keys()]
        elif other != value:
            names.append(name)
    return names


def open_output_folder(
    folder: str | os.PathLike, record_name: str, settings: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Make sure, before any work, that outputs with these settings may go into a folder.

    It is tried for writing, and rid of what killed runs left half written.

    Args:
        folder: of the outputs.
        record_name: of the YAML file in it that has the settings of the last run.
        settings: of this one, as YAML can hold them.
        overwrite: whether outputs of other settings may be there.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: it holds outputs of other settings, which are named.
    """
    folder = Path(folder)
    check_writable_folder(folder)
    remove_abandoned(folder, below=True)
    record = folder / record_name
    if overwrite or not folder.exists() or all(path == record for path in folder.iterdir()):
        return
    try:
        found = read_yaml(record)
    except FileNotFoundError:  # what is there tells by itself what it was made from
        return
    # Settings that an older version did not have yet are left out.
    known = found.keys() if isinstance(found, dict) else settings.keys()
    decisive = (settings.keys() & known) - FREE_SETTINGS
    refuse_others(record, found, {name: settings[name] for name in sorted(decisive)})
