"""Where and how MindSpore runs: device, mode and compile level, all chosen here."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Sized

from mg.known_names import one_of
from mg.numpy_two import prepare_for_numpy_two
from mg.versions import untested_mindspore

__all__ = [
    "DeviceConfig",
    "announce_compilation",
    "compiles_graphs",
    "device_in_use",
    "runs_on_cpu",
    "setup_device",
]

logger = logging.getLogger("mg")

DEVICES = ("auto", "Ascend", "GPU", "CPU")
MODES = ("graph", "pynative")
JIT_LEVELS = ("default", "O0", "O1")
GRAPH_CACHE = "MS_COMPILER_CACHE_ENABLE"


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """Device settings that every script shares.

    Args:
        device: Ascend, GPU or CPU; auto takes the first of these that is usable.
        mode: graph compiles the whole network first; pynative runs line by line, for debugging.
        jit_level: how hard the graph compiler works, O0 or O1; default leaves it to MindSpore.
    """

    device: str = one_of("auto", DEVICES)
    mode: str = one_of("graph", MODES)
    jit_level: str = one_of("default", JIT_LEVELS)

    def __post_init__(self) -> None:
        _check("device", self.device, DEVICES)
        _check("mode", self.mode, MODES)
        _check("jit_level", self.jit_level, JIT_LEVELS)


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; expected one of {', '.join(allowed)}")


def setup_device(config: DeviceConfig) -> str:
    """Set MindSpore's device, mode and compile level; return the device in use.

    Raises:
        ValueError: the device that was asked for is not usable on this machine.
    """
    import mindspore as ms

    prepare_for_numpy_two()
    warning = untested_mindspore(ms.__version__)
    if warning is not None:
        logger.warning(warning)
    wanted = ("Ascend", "GPU", "CPU") if config.device == "auto" else (config.device,)
    device = next((name for name in wanted if _is_usable(name)), None)
    if device is None:
        raise ValueError(
            f"device={config.device}: not usable here (is its MindSpore build and driver "
            "installed?); leave the setting out to take the best one there is"
        )
    try:
        ms.set_device(device)
    except RuntimeError:  # something has run already, in this process
        if device_in_use() != device:
            raise
    # `set_context` is to go. Up to MindSpore 2.10 nothing takes its place for the mode, and for the
    # compile level only an argument of `ms.jit`, function by function, which cells do not have.
    ms.set_context(mode=ms.GRAPH_MODE if config.mode == "graph" else ms.PYNATIVE_MODE)
    if device == "CPU" and config.mode == "pynative":
        # Otherwise threads that hand operators on spin for cores they share with the operators:
        # 10 to 30 times slower on one core. It also makes errors name the right line.
        with contextlib.suppress(RuntimeError):  # something has run already: threads are there
            ms.runtime.launch_blocking()
    _refuse_stored_graphs()
    if config.jit_level != "default":
        ms.set_context(jit_config={"jit_level": config.jit_level})
    fell_back = config.device == "auto" and device != "Ascend"
    found = "; no Ascend device found" if fell_back else ""
    logger.info("Running on %s (%s mode%s).", device, config.mode, found)
    return device


def _refuse_stored_graphs() -> None:
    """Turn MindSpore's cache of compiled graphs off, and say so if it was on.

    It knows a graph by its place in the order of compiling and by the scripts' source alone
    (MindSpore 2.10): a run that is resumed behind the first phase gets the first one's graph, one
    with another config that of the old config, and neither is reported.
    """
    import mindspore as ms

    is_set = ms.get_context("enable_compile_cache")  # the older way to switch it on
    if is_set or os.environ.get(GRAPH_CACHE, "0") not in ("", "0"):
        logger.warning(
            "MindSpore's cache of compiled graphs cannot be used, it would give graphs of other "
            "phases and settings: %s has no effect here.",
            GRAPH_CACHE,
        )
        os.environ[GRAPH_CACHE] = "0"
        if is_set:
            ms.set_context(enable_compile_cache=False)


def device_in_use() -> str:
    """Return the device that MindSpore runs on: Ascend, GPU or CPU."""
    import mindspore as ms

    return ms.get_current_device().device_target


def compiles_graphs() -> bool:
    """Return whether networks are compiled before their first run."""
    import mindspore as ms

    return ms.get_context("mode") == ms.GRAPH_MODE


def announce_compilation(what: str, work: Sized) -> None:
    """Say that the first part of some work, if there is any, compiles `what`."""
    if len(work) and compiles_graphs():
        logger.info("Compiling %s, which can take minutes ...", what)


def runs_on_cpu() -> bool:
    """Return whether MindSpore runs on CPU, where some operations need another form."""
    return device_in_use() == "CPU"


def _is_usable(name: str) -> bool:
    import mindspore as ms

    if name == "CPU":
        return True
    context = ms.device_context.ascend if name == "Ascend" else ms.device_context.gpu
    with _quiet():  # a "no" comes with warnings about the libraries of every other device
        return bool(context.is_available())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back all log messages below the level of errors for the time of the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
