"""tools/compare_runs.py: exit codes and what it prints."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "compare_runs.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("compare_runs", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return lambda *arguments: tool.main([str(argument) for argument in arguments])


@pytest.fixture
def runs(tmp_path):
    """Return the folders of three runs: a, its equal but for time, and one that is 1e-4 off."""
    folders = []
    for name, offset in (("a", 0.0), ("same", 0.0), ("off", 1e-4)):
        folder = tmp_path / name
        folder.mkdir()
        entries = (
            {"step": s, "loss": 0.5 + offset * (s == 13), "lr": 0.1, "seconds": len(name) * s}
            for s in range(20)
        )
        (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
        folders.append(folder)
    return folders


def test_two_runs(main, runs, capsys):
    a, same, off = runs
    assert main(a, same) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "20 steps compared",
        "key   tolerance  largest difference  at step    A    B  first beyond",
        "loss          0                   0        0  0.5  0.5             -",
        "lr            0                   0        0  0.1  0.1             -",
        "equal",
    ]
    assert main(a, off) == 1
    out = capsys.readouterr().out
    assert "loss          0              0.0001       13  0.5  0.5001            13" in out
    assert main(a, off, "--tolerance", "1e-3") == 0
    assert main(a, off / "log.jsonl", "--keys", "lr") == 0
    assert main(a, off, "--keys", "lr,loss") == 1


def test_reference_is_written_and_followed(main, runs, tmp_path, capsys):
    a, _, off = runs
    path = tmp_path / "curves" / "a.json"
    write = (a, "--write_reference", path, "--command", "python train.py", "--every", "5")
    assert main(*write, "--window", "5", "--tolerance", "0.001") == 0
    assert "4 points, {'loss': 0.001}" in capsys.readouterr().out
    assert json.loads(path.read_text())["command"] == "python train.py"
    assert main(off, path) == 0
    log = off / "log.jsonl"
    log.write_text(log.read_text().replace("0.5001", "0.6"))
    assert main(off, path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "NOT equal"
    assert main(*write) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(*write, "--overwrite") == 0


def test_what_cannot_be_compared_ends_with_2_and_one_line(main, runs, tmp_path, capsys):
    a, same, _ = runs
    reference = tmp_path / "r.json"
    assert main(a, "--write_reference", reference, "--command", "c") == 0
    for arguments, message in (
        ((a, tmp_path / "none"), "no training log"),
        ((a, tmp_path / "none.json"), "no reference curve"),
        ((reference, a), "give the run first"),
        ((a, reference, "--tolerance", "1"), "has its own keys and tolerances"),
        ((a, same, "--keys", "los"), "no entry has los"),
    ):
        assert main(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    for arguments, message in (
        ((a,), "give either a second run"),
        ((a, "--write_reference", "x"), "needs --command"),
        ((a, same, "--every", "3"), "are for --write_reference"),
    ):
        with pytest.raises(SystemExit) as end:
            main(*arguments)
        assert end.value.code == 2 and message in capsys.readouterr().err
