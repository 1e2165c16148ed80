"""The command `mg`: its list, its names, its doors in scripts and tools, doctor, completion."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mg import commands
from mg.commands import COMMANDS, doctor
from mg.versions import PACKAGES, PYTHONS, version_numbers

ROOT = Path(__file__).parents[2]
DOORS = [
    path
    for folder in ("scripts", "tools")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "run_command(" in path.read_text(encoding="utf-8")
]


def mg(*arguments, folder=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "mg", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_overview_lists_every_command():
    text = commands.overview()
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main_with_help(name, capsys):
    module = importlib.import_module(f"mg.commands.{COMMANDS[name].module}")
    assert module.main.__doc__ is None or module.main.__doc__.strip()
    with pytest.raises(SystemExit) as ended:
        commands.run_command(name, ["--help"], program=f"mg {name}")
    assert ended.value.code in (0, None)
    assert f"usage: mg {name}" in capsys.readouterr().out


@pytest.mark.parametrize("door", DOORS, ids=lambda path: path.stem)
def test_every_door_leads_to_a_command(door):
    text = door.read_text(encoding="utf-8")
    name = re.search(r'run_command\("([\w-]+)"\)', text)[1]
    assert COMMANDS[name]
    assert re.match(rf'"""`mg {name}` (from a checkout|under the name that)', text)


def test_unknown_commands_are_refused_with_the_nearest_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mg", "generat"])
    with pytest.raises(SystemExit, match="unknown command 'generat'; did you mean `mg generate`"):
        commands.main()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("infer", "did you mean `mg reconstruct`?"),
        ("inference", "did you mean `mg reconstruct`?"),
        ("sample", "did you mean `mg generate`?"),
        ("eval", "did you mean `mg evaluate`?"),
        ("docs", "`mg --help` lists the commands"),
    ],
)
def test_names_of_other_projects_are_answered_with_our_commands(monkeypatch, name, hint):
    monkeypatch.setattr(sys, "argv", ["mg", name])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == f"error: unknown command {name!r}; {hint}"


@pytest.mark.parametrize("flags", [["--help"], ["--help-all"], ["--model.help"]])
def test_output_that_nobody_reads_ends_quietly(flags):
    process = subprocess.Popen(
        [sys.executable, "-m", "mg", "train-vae", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() in (0, 141)


def test_a_command_finds_shipped_files_from_another_folder(tmp_path):
    done = mg("inspect", "assets/tae_tiny/tae_tiny.safetensors", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "family      tae" in done.stdout


def test_a_config_that_a_command_has_is_taken_unless_another_is_given(monkeypatch):
    seen = []
    monkeypatch.setattr(commands, "run_main", lambda main: seen.append(sys.argv))
    monkeypatch.setattr(sys, "argv", [])
    commands.run_command("demo", ["--steps", "3"], program="mg demo")
    commands.run_command("demo", ["--config=mine.yaml"], program="mg demo")
    assert seen == [
        ["mg demo", "--config", "configs/tae/train/adapt.yaml", "--steps", "3"],
        ["mg demo", "--config=mine.yaml"],
    ]


def test_completion_knows_the_commands():
    script = mg("completion", "bash").stdout
    program = script + "COMP_WORDS=(mg train); COMP_CWORD=1; _mg; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["train-tae", "train-vae", "train", "train-demo"]


def test_doctor_finds_this_machine_fine(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "setup_device", lambda config: "CPU")  # it is set already
    monkeypatch.setattr(sys, "argv", ["mg doctor"])
    assert doctor.main() == 0
    report = capsys.readouterr().out
    for subject in ("Python", "mindspore", "memory", "LPIPS", "matrix product", "gradient"):
        assert re.search(rf"^ok +{subject}", report, re.MULTILINE), subject


def test_doctor_wants_what_is_installed_with_the_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, (lowest, below, tested) in PACKAGES.items():
        bounds = f">={lowest}" + (f",<{below}" if below else "")
        assert re.search(rf'^    "{name}{re.escape(bounds)}",', text, re.MULTILINE), name
        numbers = version_numbers(tested)
        assert version_numbers(lowest) <= numbers < version_numbers(below or "999")
    lowest, below = (f"{major}.{minor}" for major, minor in PYTHONS)
    assert f'requires-python = ">={lowest},<{below}"' in text


def test_doctor_names_what_is_wrong():
    found = doctor.package_finding("numpy", "3.0.0", PACKAGES["numpy"])
    assert not found.is_fine and "pip install 'numpy>=1.26,<3'" in found.text
    assert not doctor.package_finding("numpy", "1.20", PACKAGES["numpy"]).is_fine
    assert not doctor.package_finding("av", None, PACKAGES["av"]).is_fine
    assert doctor.package_finding("av", "17.2.0", PACKAGES["av"]).is_fine
    assert doctor.package_finding("opencv-python", "4.13.0", PACKAGES["opencv-python"]).is_fine
    assert not doctor.python_finding((3, 9)).is_fine
    assert not doctor.memory_finding(1.0).is_fine

    class Result:
        def float(self):
            return self

        def asnumpy(self):
            return np.ones(2)

    assert doctor.operation_finding("sum", Result, np.ones(2)).is_fine
    assert not doctor.operation_finding("sum", Result, np.full(2, 2.0)).is_fine
    assert "failed: division" in doctor.operation_finding("sum", lambda: 1 / 0, np.ones(2)).text
