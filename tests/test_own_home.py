"""Tests see nothing of the user's home and caches, nor of each other's."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mg.metrics.lpips import lpips_weights_path
from mg.weights.hub import weights_folder


def test_home_caches_and_temporary_files_are_the_tests_own(own_home):
    places = (Path.home(), lpips_weights_path(), weights_folder(), Path(tempfile.gettempdir()))
    assert all(place.is_relative_to(own_home) for place in places)
    program = "import tempfile, pathlib; print(pathlib.Path.home(), tempfile.gettempdir())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stdout.split() == [str(own_home), str(own_home / "tmp")]


@pytest.fixture(scope="module")
def home_of_a_module():
    return Path.home(), weights_folder()


def test_fixtures_of_wider_scope_have_a_home_that_is_not_the_users(home_of_a_module, own_home):
    home, weights = home_of_a_module
    assert home.name.startswith("mg_tests_") and weights.is_relative_to(home)
    assert not own_home.is_relative_to(home)
