"""tools/build_docs.py: the site builds strictly, loads nothing from elsewhere, has all settings."""

import subprocess
import sys
from pathlib import Path

import build_docs
from mg.cli.settings_table import settings_of
from mg.commands import COMMANDS
from mg.commands.train_tae import TrainTAEConfig

ROOT = Path(__file__).parents[2]


def test_the_site_builds():
    done = subprocess.run(
        [sys.executable, "tools/build_docs.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (ROOT / "outputs" / "site" / "reference" / "api.html").read_text(encoding="utf-8")
    assert "TemporalAutoencoder" in page and "save_generator" in page


def test_every_setting_and_every_command_has_a_row():
    page = build_docs.settings()
    for setting in settings_of(TrainTAEConfig):
        assert f"| `{setting.name}` |" in page
    for heading in ("### autoencoders: dc_ae", "### denoisers: unet"):
        assert f"\n{heading}\n" in page
    assert "| `model.width_list` |" in page and "| `model.preset` |" in page
    assert all(f"| `mg {name}` |" in build_docs.commands() for name in COMMANDS)


def test_links_out_of_the_site_become_names():
    page = "[x](../CONTRIBUTING.md) [y](data.md) [z](../README.md) [w](https://a.b)"
    expected = "x (`CONTRIBUTING.md`) [y](data.md) [z](index.md) [w](https://a.b)"
    assert build_docs.linked(page) == expected


def test_what_a_page_loads_from_elsewhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://fine.org"><script src="https://cdn.org/x.js"></script>'
    )
    assert build_docs.external_requests(tmp_path) == ["https://cdn.org/x.js"]
