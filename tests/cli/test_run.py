"""run.py: what it installs, when, and what it runs; without installing anything."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
HERE = sys.version_info[:2]


@pytest.fixture
def bootstrap(monkeypatch):
    """Return the module run.py, with `commands_run`: what it would have run."""
    spec = importlib.util.spec_from_file_location("run_py", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.commands_run = []
    versions, modules = {}, {"pip", "ensurepip"}

    def run(command):
        module.commands_run.append(command)
        if command[1:3] == ["-m", "venv"]:
            venv = Path(command[-1])
            (venv / "bin").mkdir(parents=True, exist_ok=True)
            (venv / "pyvenv.cfg").touch()
            versions[str(venv / "bin" / "python")] = HERE

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(
        module, "version_of", lambda p: versions.get(str(p), HERE if p == sys.executable else None)
    )
    monkeypatch.setattr(module, "has_module", lambda python, name: name in modules)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    module.pretend = SimpleNamespace(versions=versions, modules=modules)
    return module


def test_the_first_run_makes_and_installs_and_the_second_does_not(bootstrap, tmp_path):
    venv = tmp_path / "venv"
    python = str(venv / "bin" / "python")
    bootstrap.main(["--venv", str(venv), "test", "tests/data", "-x"])
    tests = [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "pytest", "tests/data", "-x"],
    ]
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-e", ".[test]"]
    assert bootstrap.commands_run == [[sys.executable, "-m", "venv", str(venv)], pip, *tests]
    bootstrap.commands_run.clear()
    bootstrap.main(["--venv", str(venv), "test", "tests/data", "-x"])
    assert bootstrap.commands_run == tests


def test_a_changed_setup_installs_again(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setenv("MG_VENV", str(tmp_path / "venv"))
    bootstrap.main(["test"])
    (tmp_path / "venv" / bootstrap.MARKER).write_text("of an older setup.py")
    bootstrap.commands_run.clear()
    bootstrap.main(["test"])
    assert "install" in bootstrap.commands_run[0] and "venv" not in bootstrap.commands_run[0]


def test_uv_is_used_where_it_is(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    bootstrap.pretend.modules.clear()  # neither pip nor ensurepip is needed then
    python = bootstrap.install(tmp_path / "venv")
    make, install = bootstrap.commands_run
    assert "--without-pip" in make
    assert install == ["/bin/uv", "pip", "install", "--python", str(python), "-e", ".[test]"]


def test_arguments_are_passed_on_to_the_demo(bootstrap):
    start = ("scripts/adapt_tae.py", "--config", "configs/tae/train/adapt.yaml")
    assert bootstrap.commands("demo", ["--steps", "3"]) == [(*start, "--steps", "3")]
    flag = ["--video_folder", "mine"]
    assert bootstrap.commands("demo", flag) == [(*start, *flag)]


def test_the_exit_code_is_that_of_the_command(bootstrap, tmp_path, monkeypatch):
    bootstrap.install(tmp_path / "venv")

    def fail(command):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(bootstrap, "run", fail)
    with pytest.raises(SystemExit) as caught:
        bootstrap.main(["--venv", str(tmp_path / "venv"), "test"])
    assert caught.value.code == 3


def error(bootstrap, venv):
    with pytest.raises(SystemExit) as caught:
        bootstrap.main(["--venv", str(venv), "test"])
    assert bootstrap.commands_run == []
    return caught.value.code


def test_what_the_user_has_to_mend_is_told(bootstrap, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "is not a virtual environment and not empty" in error(bootstrap, tmp_path / "full")
    bootstrap.pretend.modules.discard("ensurepip")
    message = "sudo apt install python{}.{}-venv".format(*HERE)
    assert message in error(bootstrap, tmp_path / "venv")
    bootstrap.pretend.versions[sys.executable] = (3, 9)
    assert error(bootstrap, tmp_path / "venv").startswith("error: Python 3.10, 3.11 or 3.12")


def test_an_older_python_finds_a_newer_one_on_the_path(bootstrap, monkeypatch):
    bootstrap.pretend.versions.update({sys.executable: (3, 9), "/bin/python3.12": None})
    bootstrap.pretend.versions["/bin/python3.11"] = (3, 11)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/bin/{name}")
    assert bootstrap.find_python() == "/bin/python3.11"


def test_questions_to_a_real_python():
    spec = importlib.util.spec_from_file_location("run_py_real", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.version_of(sys.executable) == HERE
    assert module.has_module(sys.executable, "json")
    assert not module.has_module(sys.executable, "no_such_module_here")
    assert module.version_of(ROOT / "none") is None
    assert str(ROOT) in module.fingerprint()


def test_all_tests_run_each_once(bootstrap):
    *_, most, rest = bootstrap.commands("test", [])
    assert most == ("-m", "pytest", *bootstrap.PARALLEL)
    assert "--ignore=" + rest[-1] in most and rest[:2] == ("-m", "pytest")
