"""Settings that every test shares."""

import os

import pytest

# Quiet MindSpore's warnings about its own kernels before it is imported anywhere.
os.environ.setdefault("GLOG_v", "3")


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
