"""Texts that users read: settings have a meaning that begins with a noun, and no stiff phrases."""

import re
from pathlib import Path

import pytest

import build_docs
from mg.cli.family_settings import KINDS, family_settings
from mg.cli.settings_table import settings_of

ROOT = Path(__file__).parents[1]
BANNED = re.compile(r"told\s+as|otherwise\s+than|a\s+number\s+more|shared?\s+out")
OF_COMMANDS = {f"mg {name}": settings_of(config) for name, config in build_docs.SETTINGS.items()}
OF_FAMILIES = {
    f"{kind}: {name}": family_settings(kind, name)
    for kind, (names, _) in KINDS.items()
    for name in names
}


@pytest.mark.parametrize("place", [*OF_COMMANDS, *OF_FAMILIES])
def test_every_setting_and_field_of_a_family_has_a_text_that_begins_with_a_noun(place):
    settings = {**OF_COMMANDS, **OF_FAMILIES}[place]
    assert settings
    assert [s.name for s in settings if not s.text or s.text.startswith("of ")] == []


def test_pages_and_messages_have_no_stiff_phrases():
    files = [*(ROOT / "docs").glob("*.md"), *(ROOT / "mg").rglob("*.py")]
    found = {
        str(file.relative_to(ROOT)): BANNED.findall(text)
        for file in files
        if BANNED.search(text := file.read_text(encoding="utf-8"))
    }
    assert len(files) > 100 and found == {}
