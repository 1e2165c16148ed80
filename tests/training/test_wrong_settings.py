"""Settings that no run can start from: one line that says what is wrong, before any work."""

import pytest

from fault_experiments.wrong_settings import (
    NEED_THE_NETWORK,
    WRONG_SETTINGS,
    fault_of_case,
    write_good_config,
)
from mg.training.autoencoder.autoencoder_config import LossSettings, OptimSettings


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a folder and good settings of a run on the video in it."""
    folder = tmp_path_factory.mktemp("settings")
    return folder, write_good_config(folder)


def test_there_are_sixty_and_more():
    assert len(WRONG_SETTINGS) >= 60
    changes = [str(changed) for changed, _ in WRONG_SETTINGS]
    assert len(set(changes)) == len(changes)


@pytest.mark.parametrize("case", WRONG_SETTINGS, ids=lambda case: str(case[0]))
def test_a_wrong_setting_is_refused_before_a_network_is_built(good, case):
    assert fault_of_case(*good, case, may_build=False) is None


@pytest.mark.parametrize("case", NEED_THE_NETWORK, ids=lambda case: str(case[0]))
def test_a_wrong_name_is_refused_when_the_network_is_there(good, case):
    assert fault_of_case(*good, case, may_build=True) is None


def test_the_check_notices_good_settings_and_other_messages(good):
    assert "was built" in fault_of_case(*good, ({}, "steps"), may_build=False)
    assert "not refused" in fault_of_case(*good, ({}, "steps"), may_build=True)
    assert "answered with" in fault_of_case(*good, ({"steps": 0}, "optim"), may_build=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimSettings(betas="ab"), "optim.betas='ab'; expected a list of 2: a finite"),
        (lambda: OptimSettings(lr=True), "optim.lr=True; expected a finite number"),
        (lambda: OptimSettings(warmup_steps=1.0), "optim.warmup_steps=1.0; expected a whole"),
        (lambda: LossSettings(lpips_path=3), "loss.lpips_path=3; expected text or null"),
    ],
)
def test_types_are_checked_without_a_command_line_too(make, message):
    with pytest.raises(ValueError, match=message):
        make()
