"""Which pip is called."""

import importlib.util
import sys

import pytest

from mg.pip_command import pip_command


@pytest.mark.parametrize(
    ("spec", "command"), [(object(), (sys.executable, "-m", "pip")), (None, ("pip",))]
)
def test_an_environment_without_pip_uses_that_on_path(monkeypatch, spec, command):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"pip": spec}[name])
    assert pip_command() == command
