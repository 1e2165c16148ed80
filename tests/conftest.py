"""Settings that every test shares: a home of its own for each, and MindSpore's modes."""

import itertools
import os
import tempfile
from pathlib import Path

import pytest

# By what the user's home, caches and folder for temporary files are found.
HOME_VARIABLES = {
    "HOME": "",
    "USERPROFILE": "",
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "MG_CACHE": ".cache/mg",
    "HF_HOME": ".cache/huggingface",
}
TEMPORARY_VARIABLES = ("TMPDIR", "TEMP", "TMP")
UNSET = ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "MG_DEBUG", "MS_COMPILER_CACHE_ENABLE")

# Before anything is imported that looks there: what modules and fixtures of wider scope find.
_home_of_all = tempfile.TemporaryDirectory(prefix="mg_tests_")
os.environ |= {key: str(Path(_home_of_all.name, place)) for key, place in HOME_VARIABLES.items()}
for _name in UNSET:
    os.environ.pop(_name, None)
# Matplotlib lists all fonts where it has no folder: once, not in each test's home.
os.environ["MPLCONFIGDIR"] = str(Path(_home_of_all.name, "matplotlib"))
# Quiet MindSpore's warnings about its own kernels before it is imported anywhere.
os.environ.setdefault("GLOG_v", "3")

_numbers = itertools.count()


def _keep_to_one_core():
    """Keep a worker of pytest-xdist on a core of its own, before MindSpore starts its threads.

    Line by line, MindSpore hands every operation from thread to thread. Between cores that takes
    twice as long, and on cores that other workers use as well, several times.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
    os.environ["OMP_NUM_THREADS"] = "1"


_keep_to_one_core()


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory):
    """Give each test a home, caches and a folder for temporary files of its own."""
    folder = tmp_path_factory.getbasetemp() / "homes" / str(next(_numbers))
    (folder / "tmp").mkdir(parents=True)
    before = tempfile.tempdir
    with pytest.MonkeyPatch.context() as patch:
        for name, place in HOME_VARIABLES.items():
            patch.setenv(name, str(folder / place))
        for name in TEMPORARY_VARIABLES:
            patch.setenv(name, str(folder / "tmp"))
        tempfile.tempdir = None  # so that the variables are looked at again
        yield folder
    tempfile.tempdir = before


def _run_in_mode(name):
    """Yield with MindSpore in one mode; a test that changes it leaves nothing behind."""
    import mindspore as ms

    # Without it PyNative reports an error at some later line than the one at fault.
    ms.runtime.launch_blocking()
    before = ms.get_context("mode")
    ms.set_context(mode=getattr(ms, name))
    yield
    ms.set_context(mode=before)


@pytest.fixture
def graph_mode():
    """Compile each network before it runs."""
    yield from _run_in_mode("GRAPH_MODE")


@pytest.fixture
def pynative_mode():
    """Run line by line: quicker than compiling a graph for each of many small shapes."""
    yield from _run_in_mode("PYNATIVE_MODE")
