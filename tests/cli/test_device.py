"""Choosing the device: one clear line, whatever MindSpore itself has to say."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import pytest

from mg import device
from mg.device import DeviceConfig, setup_device

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def restored_mode():
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


@pytest.fixture
def set_devices(monkeypatch):
    """Return the devices that MindSpore was told to use."""
    devices = []
    monkeypatch.setattr(ms, "set_device", devices.append)
    return devices


def pretend(monkeypatch, *usable):
    monkeypatch.setattr(device, "_is_usable", lambda name: name in usable)


def test_ascend_is_the_default_where_it_is_usable(monkeypatch, set_devices, caplog):
    pretend(monkeypatch, "Ascend", "GPU", "CPU")
    with caplog.at_level(logging.INFO, "mg"):
        assert setup_device(DeviceConfig()) == "Ascend"
    assert set_devices == ["Ascend"]
    assert caplog.messages == ["Running on Ascend (graph mode)."]


@pytest.mark.parametrize(("usable", "chosen"), [(("GPU", "CPU"), "GPU"), (("CPU",), "CPU")])
def test_the_next_best_is_taken_and_told_in_one_line(
    monkeypatch, set_devices, caplog, usable, chosen
):
    pretend(monkeypatch, *usable)
    with caplog.at_level(logging.INFO, "mg"):
        assert setup_device(DeviceConfig(mode="pynative")) == chosen
    assert set_devices == [chosen]
    assert caplog.messages == [f"Running on {chosen} (pynative mode; no Ascend device found)."]
    assert ms.get_context("mode") == ms.PYNATIVE_MODE


def test_a_device_that_was_asked_for_is_not_replaced(monkeypatch, set_devices):
    pretend(monkeypatch, "CPU")
    with pytest.raises(ValueError, match="device=Ascend: not usable here"):
        setup_device(DeviceConfig(device="Ascend"))
    assert set_devices == []


@pytest.mark.parametrize(("version", "warns"), [("2.10.0", 0), ("2.10.1", 0), ("2.11.0", 1)])
def test_an_untested_mindspore_is_told_in_one_line(
    monkeypatch, set_devices, caplog, version, warns
):
    pretend(monkeypatch, "CPU")
    monkeypatch.setattr(ms, "__version__", version)
    with caplog.at_level(logging.WARNING, "mg"):
        setup_device(DeviceConfig())
    assert [f"MindSpore {version} is not what" in text for text in caplog.messages] == [
        True
    ] * warns


def test_asking_for_a_device_is_quiet_and_leaves_logging_as_it_was(monkeypatch, caplog, capfd):
    class Missing:
        @staticmethod
        def is_available():
            logging.getLogger("noisy").warning("Load dynamic library: lib.so failed.")
            return False

    monkeypatch.setattr(ms.device_context, "ascend", Missing)
    assert device._is_usable("Ascend") is False
    assert caplog.messages == [] and capfd.readouterr().err == ""
    assert logging.root.manager.disable == logging.NOTSET
    assert device._is_usable("CPU") is True


PRINT_PRODUCT = """
import sys
import numpy as np
from mindspore import Tensor, nn
from mg.device import DeviceConfig, setup_device

class Times(nn.Cell):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def construct(self, x):
        return x * self.factor

setup_device(DeviceConfig(device="CPU"))
print(Times(int(sys.argv[1]))(Tensor(np.float32(1))))
"""


def test_no_graph_of_another_setting_is_taken_from_mindspores_cache(tmp_path):
    """With the cache, the second process would run the first one's graph."""
    cache = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(tmp_path)}
    (tmp_path / "times.py").write_text(PRINT_PRODUCT)
    for factor in (2, 3):
        done = subprocess.run(
            [sys.executable, tmp_path / "times.py", str(factor)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **cache},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.returncode) == (f"{factor}.0\n", 0), done.stderr
        assert "MS_COMPILER_CACHE_ENABLE has no effect here" in done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "cpu"}, "device='cpu'; expected one of auto, Ascend, GPU, CPU"),
        ({"mode": "eager"}, "mode='eager'"),
        ({"jit_level": "O2"}, "jit_level='O2'; expected one of default, O0, O1"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DeviceConfig(**values)
