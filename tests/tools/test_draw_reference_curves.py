"""The picture of the reference curves in the documentation."""

from pathlib import Path

import pytest
from matplotlib import figure, pyplot

from draw_reference_curves import main

ROOT = Path(__file__).parents[2]
CURVES = ROOT / "configs" / "vae" / "train" / "curves"


def test_every_curve_is_drawn(tmp_path, monkeypatch, capsys):
    drawn = {}

    def keep(closed: figure.Figure) -> None:
        drawn.update({line.get_label(): line for line in closed.axes[0].get_lines()})

    monkeypatch.setattr(pyplot, "close", keep)
    picture = tmp_path / "curves.png"
    main([str(CURVES), str(picture)])
    assert {name.partition(":")[0] for name in drawn} == {path.stem for path in CURVES.iterdir()}
    wan = next(line for name, line in drawn.items() if name.startswith("wan_tiny: 0.53 to 0.20"))
    assert (wan.get_xdata()[0], wan.get_ydata()[0]) == (50, pytest.approx(0.527997))
    assert picture.read_bytes().startswith(b"\x89PNG") and "kB" in capsys.readouterr().out


def test_the_picture_of_the_documentation_is_there_and_small():
    picture = ROOT / "docs" / "images" / "vae_curves.png"
    assert picture.stat().st_size < 60_000
    assert "images/vae_curves.png" in (ROOT / "docs" / "vae.md").read_text(encoding="utf-8")


def test_a_folder_without_curves_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "curves.png")])
    assert "holds no curves (.json)" in capsys.readouterr().err
