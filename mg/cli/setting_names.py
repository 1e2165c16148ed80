"""Names of settings: one name per thing in every command, and what other projects call them."""

import logging
import re
from collections.abc import Iterable, Sequence

from mg.cli.setting_synonyms import SYNONYMS, synonym_of
from mg.console import one_line

__all__ = [
    "ONE_NAME",
    "SHARED_NAMES",
    "own_name",
    "say_renamed",
    "shared_name",
    "unknown_setting",
]

logger = logging.getLogger("mg")

# What every command calls a thing, whatever its config's field is called.
SHARED_NAMES = ("weights", "input", "output", "size", "num_frames")
# These, and names of elsewhere that are taken too: the config's own, the first that it has.
ONE_NAME = {
    "weights": ("ckpt_path", "checkpoint", "pretrained"),
    "input": ("input", "video_folder"),
    "output": ("output", "output_path", "output_folder"),
    "output_path": ("output_path", "output", "output_folder"),
    "output_folder": ("output_folder", "output", "output_path"),
    "size": ("image_size", "crop_size", "resolution", "data.size"),
    "num_frames": ("num_frames", "data.sample_n_frames"),
    # Open-Sora's, whose commands are taken as they stand.
    "dataset.data_path": ("input", "video_folder"),
    "save_dir": ("output", "output_path", "output_folder"),
    "grad_checkpoint": ("recompute",),
    "bucket_config": ("data.bucket_config",),
    "model.from_pretrained": ("ckpt_path",),  # of training it is an entry of `model`
}
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")  # of a `dataset.data_path`: it is the csv_path then
MAX_HINTS = 3
LONG_WORD, MAX_LETTERS = 6, 40  # letters


def own_name(name: str, known: Iterable[str], value: str = "") -> str:
    """Return a config's own name of a setting that is given by its one name, else the name.

    Args:
        name: as given, dotted; hyphens stand for underscores.
        known: the names of all settings.
        value: that it is given; of data it tells a table from a folder.
    """
    known, plain = set(known), name.replace("-", "_")
    if plain in known:
        return plain
    meant = ONE_NAME.get(plain, ())
    if plain == "dataset.data_path" and value.lower().endswith(TABLE_SUFFIXES):
        meant = ("csv_path", *meant)
    return next((ours for ours in meant if ours in known), name)


def say_renamed(given: str, own: str) -> None:
    """Log that a setting was given by another name, unless all commands share that name."""
    plain = given.replace("-", "_")
    if own.replace("-", "_") != plain and plain not in SHARED_NAMES:
        logger.info("%s is taken as %s, its name in this command.", given, own)


def shared_name(own: str, known: Iterable[str]) -> str | None:
    """Return what all commands call a setting, where its own name is another; else None.

    Args:
        own: its name in the config, dotted.
        known: the names of all settings.
    """
    known = set(known)
    names = (name for name in SHARED_NAMES if name not in known and own_name(name, known) == own)
    return next(names, None)


def unknown_setting(name: str, known: Sequence[str]) -> str:
    """Return the message about a setting that there is not: with the right one, if one is meant.

    Names that are known to mean something come first, then right names in the wrong section, then
    what is spelt almost alike; a name that is merely similar is no hint.

    Args:
        name: as given, dotted.
        known: the names of all settings.
    """
    plain = name.lower().replace("-", "_")
    help_of = _help_of_section(plain, known)
    hint = _hint(plain, known) if help_of is None else _question([help_of])
    return f"unknown setting {one_line(name)!r}; {hint}"


def _hint(name: str, known: Sequence[str]) -> str:
    last = name.rsplit(".", 1)[-1]
    synonym = synonym_of(last, known)
    if synonym is None:
        theirs = [] if "." in name else [n for s in SYNONYMS for n in s.theirs.split()]
        near = [n for n in theirs if is_near(last, n)]
        meant = (
            [setting for setting in known if is_near(name, setting)]
            or _in_this_section(name, known)
            or _in_other_sections(last, known)
            or [setting for setting in known if is_near(last, setting.rsplit(".", 1)[-1])]
        )
        if meant or not near:
            return _question(meant)
        synonym = synonym_of(near[0], known)
    if synonym.ours:
        return " ".join(filter(None, [_question(synonym.ours[:1]), synonym.note]))
    return synonym.note or _question(_in_other_sections(last, known))


def _help_of_section(name: str, known: Sequence[str]) -> str | None:
    """Return the `SECTION.help` that a name is but for slips of the pen; None if it is none."""
    section, _, last = name.partition(".")
    sections = dict.fromkeys(setting.split(".")[0] for setting in known if "." in setting)
    if last != "help" and not is_near(last, "help"):
        return None
    ours = [own for own in sections if own == section] or [
        own for own in sections if is_near(section, own)
    ]
    return f"{ours[0]}.help" if ours else None


def _question(meant: Sequence[str]) -> str:
    if not meant:
        return "--help-all lists the settings"
    return f"did you mean {' or '.join(map(repr, meant[:MAX_HINTS]))}?"


def _in_this_section(name: str, known: Sequence[str]) -> list[str]:
    """Return the settings of the section named whose last part begins or ends with the name's."""
    section, _, last = name.rpartition(".")
    below = [setting for setting in known if section and setting.rpartition(".")[0] == section]
    return [s for s in below if f"{s}_".startswith(f"{name}_") or s.endswith(f"_{last}")]


def _in_other_sections(last: str, known: Sequence[str]) -> list[str]:
    """Return the settings whose last part is this, or begins with it if it has several words."""
    lasts = [(setting, setting.rsplit(".", 1)[-1]) for setting in known]
    same = [setting for setting, other in lasts if other == last]
    if same or "_" not in last:
        return same
    begun = [setting for setting, other in lasts if other.startswith(f"{last}_")]
    return begun if len(begun) == 1 else []


def is_near(name: str, other: str) -> bool:
    """Return whether two names are the same words but for a slip or two of the pen.

    A slip is a letter too many, too few, in place of another, or a pair that changed places. Short
    words allow one, long ones two, and the first letter is right: `fps` is not `eps`.
    """
    if name.replace("_", "") == other.replace("_", ""):
        return True
    words, others = (re.split(r"[._]", text) for text in (name, other))
    if len(words) != len(others) or name.count(".") != other.count("."):
        return False
    slips = 0
    for word, right in zip(words, others, strict=True):
        distance = 0 if word == right else _num_slips(word, right)
        if distance and (word[:1] != right[:1] or distance > 1 + (len(right) > LONG_WORD)):
            return False
        slips += distance
    return 0 < slips <= 2


def _num_slips(word: str, other: str) -> int:
    """Return how many slips lead from one word to the other (optimal string alignment)."""
    word, other = word[:MAX_LETTERS], other[:MAX_LETTERS]
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(word, start=1):
        row = [i]
        for j, right in enumerate(other, start=1):
            row.append(min(row[j - 1], rows[-1][j], rows[-1][j - 1] - (letter == right)) + 1)
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == right:
                row[j] = min(row[j], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
