"""One command that sets everything up: python3 run.py demo, test, docs or wheel.

Needs Python 3.10, 3.11 or 3.12 and nothing else. Makes a virtual environment beside this file,
installs the project into it (once), then runs the demo training or the tests, builds the
documentation, or uses the wheel in a fresh environment. Arguments after the task are passed on to
it; paths in them are relative to the folder of this file.

    python3 run.py demo --video_folder my_clips
    python3 run.py test tests/data
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SUPPORTED = ((3, 10), (3, 11), (3, 12))
MARKER = "mg_installed"  # in the virtual environment: what it was installed from
REQUIREMENT = ".[test]"
# MindSpore's CPU kernels run on one core: a process per core, each test file whole in one of them.
# In the order of their names: by number of tests, slow files with few tests would come last, alone.
# Tests that start several processes themselves come after them, one by one.
PARALLEL = (
    *("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"),
    "--ignore=tests/parallel",
)
DOCS = ("tools/build_docs.py",)
WHEEL = ("tools/check_wheel.py",)
DEMO = ("scripts/adapt_tae.py", "--config", "configs/tae/train/adapt.yaml")


class SetupError(Exception):
    """Something that the user has to mend; the message says how."""


def main(argv=None):
    """Set up, run the task, and end with its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--venv",
        metavar="DIR",
        default=os.environ.get("MG_VENV") or str(ROOT / ".venv"),
        help="the virtual environment; default: the environment variable MG_VENV, or .venv here",
    )
    parser.add_argument("task", choices=("demo", "test", "docs", "wheel"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the task")
    options = parser.parse_args(argv)
    try:
        python = install(Path(options.venv).expanduser().resolve())
        for command in commands(options.task, options.arguments):
            run([str(python), *command])
    except SetupError as error:
        sys.exit("error: " + str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else 1)  # it has said why itself
    except KeyboardInterrupt:
        sys.exit(130)


def commands(task, arguments):
    """Return the arguments of Python for each command of a task."""
    if task == "test":
        lint = [("-m", "ruff", "check", "."), ("-m", "ruff", "format", "--check", ".")]
        if arguments:
            return [*lint, ("-m", "pytest", *arguments)]
        return [*lint, ("-m", "pytest", *PARALLEL), ("-m", "pytest", "tests/parallel")]
    return [(*{"demo": DEMO, "docs": DOCS, "wheel": WHEEL}[task], *arguments)]


def install(venv):
    """Return the Python of the virtual environment `venv`, with the project installed in it."""
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = venv / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == fingerprint():
        if version_of(python) in SUPPORTED:
            return python
        raise SetupError(f"{venv} does not work any more; delete it and start again")
    uv = shutil.which("uv")
    if not (version_of(python) and (uv or has_module(python, "pip"))):
        make_venv(venv, with_pip=uv is None)
    if version_of(python) not in SUPPORTED:
        raise SetupError(f"{venv} is not for Python 3.10 to 3.12; delete it, or choose --venv DIR")
    print("Installing the project and what it needs (about 3 GB, some minutes) ...", flush=True)
    if uv:
        run([uv, "pip", "install", "--python", str(python), "-e", REQUIREMENT])
    else:
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "-e", REQUIREMENT])
    marker.write_text(fingerprint(), encoding="utf-8")
    return python


def fingerprint():
    """Return a text that changes when the project has to be installed again."""
    content = b"".join((ROOT / name).read_bytes() for name in ("setup.py", "pyproject.toml"))
    return f"{ROOT} {REQUIREMENT} {hashlib.sha256(content).hexdigest()}\n"


def make_venv(venv, *, with_pip):
    """Make a virtual environment, or complete one that was left half-made."""
    if venv.is_dir() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        raise SetupError(f"{venv} is not a virtual environment and not empty; choose --venv DIR")
    base = find_python()
    if with_pip and not has_module(base, "ensurepip"):
        name = "python{}.{}-venv".format(*version_of(base))
        raise SetupError(
            f"{base} lacks the modules that make virtual environments; install them (Debian, "
            f"Ubuntu: sudo apt install {name}) and start again"
        )
    run([str(base), "-m", "venv", *([] if with_pip else ["--without-pip"]), str(venv)])


def find_python():
    """Return a supported Python: the running one, or one that is on PATH."""
    names = ["python{}.{}".format(*version) for version in reversed(SUPPORTED)]
    for candidate in [sys.executable, *filter(None, map(shutil.which, names))]:
        if version_of(candidate) in SUPPORTED:
            return candidate
    here = "{}.{}".format(*sys.version_info)
    raise SetupError(
        f"Python 3.10, 3.11 or 3.12 is needed; this is {here}, and none of {', '.join(names)} is "
        "on PATH. Install one of them (python.org, or your system's packages) and start again"
    )


def version_of(python):
    """Return the version of an interpreter as (major, minor), or None if it does not run."""
    result = ask(python, "import sys; print(*sys.version_info[:2])")
    return tuple(map(int, result.stdout.split())) if result and result.returncode == 0 else None


def has_module(python, name):
    """Return whether an interpreter can import a module."""
    result = ask(python, f"import {name}")
    return result is not None and result.returncode == 0


def ask(python, code):
    """Return what an interpreter answers to a line of code, or None if it cannot be started."""
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    except OSError:
        return None


def run(command):
    """Print a command, run it in the project's folder, raise CalledProcessError if it fails."""
    print("+ " + " ".join(map(shlex.quote, command)), flush=True)
    subprocess.run(command, cwd=str(ROOT), check=True)


if __name__ == "__main__":
    main()
