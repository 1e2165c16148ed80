"""tools/compare_reports.py: what it compares, and what it refuses."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "compare_reports.py"
REPORT = {
    "protocol": {"name": "mg", "version": 1, "hash": "0123456789ab"},
    "weights": {"lpips_vgg": "aa"},
    "clips": [{"name": "a.mp4"}, {"name": "b.mp4"}],
    "psnr": 30.0,
    "lpips_vgg": 0.25,
    "motion_energy_ratio": 1.1,
    "ssim": None,
}


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("compare_reports_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder: Path, **changes) -> str:
    folder.mkdir()
    content = {**copy.deepcopy(REPORT), **changes}
    (folder / "report.json").write_text(json.dumps(content))
    return str(folder)


def test_equal_protocols_are_compared(tool, tmp_path, capsys):
    paths = write(tmp_path / "a"), write(tmp_path / "b", psnr=31.5, lpips_vgg=0.3)
    assert tool.main(list(paths)) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["psnr"] == ["30.000", "31.500", "+1.500", "second"]
    assert lines["lpips_vgg"] == ["0.2500", "0.3000", "+0.0500", "first"]
    assert lines["motion_energy_ratio"] == ["1.100", "1.100", "+0.000"]
    assert lines["ssim"] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"protocol": {"name": "mg+", "version": 1, "hash": "ba9876543210"}},
            "protocol mg v1 0123456789ab against mg+ v1 ba9876543210",
        ),
        ({"clips": [{"name": "a.mp4"}]}, "1 clips are in one of them only, such as b.mp4"),
        ({"weights": {"lpips_vgg": "bb"}}, "lpips_vgg was measured by other weights"),
    ],
)
def test_others_are_refused_unless_asked(tool, tmp_path, capsys, changes, message):
    paths = write(tmp_path / "a"), write(tmp_path / "b", **changes)
    assert tool.main(list(paths)) == 1
    output = capsys.readouterr()
    assert message in output.err and "--force" in output.err and not output.out
    assert tool.main([*paths, "--force"]) == 0
    assert capsys.readouterr().out.startswith(f"NOT COMPARABLE: {message}")


def test_what_is_no_report(tool, tmp_path, capsys):
    (tmp_path / "bad.json").write_text("[]")
    path = write(tmp_path / "a")
    for other, message in (("none", "no such report"), ("bad.json", "is not a report of")):
        assert tool.main([path, str(tmp_path / other)]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
