"""What a run shows elsewhere: figures, pictures, videos in TensorBoard, W&B, Trackio or SwanLab.

The run's own folder has all of it; a tracker is another place to look at it. So a tracker that
fails is left out with a warning, and the run goes on.
"""

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mg.data.animation import gif_bytes
from mg.data.video import VideoReader

__all__ = ["TRACKERS", "Trackers", "missing_package"]

logger = logging.getLogger("mg")

PROJECT = "mg"
# Name in the settings -> (module, what pip installs).
TRACKERS = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
    "swanlab": ("swanlab", "swanlab"),
}
MAX_GIF_FRAMES = 128
UNKNOWN_FPS = 10.0  # of a GIF of a video that does not tell its rate


def missing_package(name: str) -> str | None:
    """Return what pip has to install for a tracker, or None if it is there. Nothing is imported."""
    module, package = TRACKERS[name]
    return None if importlib.util.find_spec(module) is not None else package


class Trackers:
    """The trackers of a run, which is a context; those that fail are left out from then on.

    Args:
        names: of `TRACKERS`.
        folder: of the run; its name is the run's, and what trackers write lies in it.
        config: settings of the run, as JSON can hold them.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        self._names = names
        self._folder = folder
        self._config = dict(config)
        self._open: dict[str, TensorBoard | ModuleTracker] = {}

    def __enter__(self) -> "Trackers":
        for name in self._names:
            try:
                if name == "tensorboard":
                    self._open[name] = TensorBoard(self._folder / "tensorboard")
                else:
                    module = importlib.import_module(TRACKERS[name][0])
                    kind = SwanLabTracker if name == "swanlab" else ModuleTracker
                    self._open[name] = kind(module, self._folder, self._config)
            except Exception as error:  # whatever a service says: the run does not need it
                logger.warning("%s cannot be used and is left out: %s", name, error)
        return self

    def __exit__(self, *exc_info) -> None:
        self._each(lambda tracker: tracker.close())

    def scalars(self, values: Mapping[str, Any], step: int, *, prefix: str = "") -> None:
        """Send the numbers among the values, under their names behind a prefix."""
        numbers = {
            f"{prefix}{name}": value
            for name, value in values.items()
            if isinstance(value, int | float) and name != "step"
        }
        self._each(lambda tracker: tracker.scalars(numbers, step))

    def file(self, name: str, path: Path | None, step: int) -> None:
        """Send a picture or video, by the suffix of its file, if it is there."""
        if path is None or not path.is_file():
            return
        kind = "video" if path.suffix == ".mp4" else "image"
        self._each(lambda tracker: getattr(tracker, kind)(name, path, step))

    def _each(self, act: Callable[[Any], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                act(tracker)
            except Exception as error:
                logger.warning("%s failed and is left out from here on: %s", name, error)
                del self._open[name]


class TensorBoard:
    """Events in a folder; a video is a GIF among the images there.

    Args:
        folder: of the events.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, path: Path, step: int) -> None:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def video(self, name: str, path: Path, step: int) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        content, height, width = _gif(path)
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=content
        )
        value = Summary.Value(tag=name, image=image)
        self._writer.file_writer.add_summary(Summary(value=[value]), step)

    def close(self) -> None:
        self._writer.close()


class ModuleTracker:
    """A service whose package has `init`, `log`, `Image`, `Video` and `finish`, as W&B's has.

    Args:
        module: wandb or trackio.
        folder: of the run.
        config: settings of the run.
    """

    def __init__(self, module: Any, folder: Path, config: Mapping[str, Any]) -> None:
        self._module = module
        module.init(project=PROJECT, name=folder.resolve().name, config=dict(config))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._module.log(dict(values), step=step)

    def image(self, name: str, path: Path, step: int) -> None:
        self._module.log({name: self._module.Image(str(path))}, step=step)

    def video(self, name: str, path: Path, step: int) -> None:
        self._module.log({name: self._module.Video(str(path))}, step=step)

    def close(self) -> None:
        self._module.finish()


class SwanLabTracker(ModuleTracker):
    """SwanLab, which takes GIFs alone as videos."""

    def video(self, name: str, path: Path, step: int) -> None:
        self._module.log({name: self._module.Video(_gif(path)[0])}, step=step)


def _gif(path: Path) -> tuple[bytes, int, int]:
    """Return a video's first frames as an endless GIF, and their height and width."""
    with VideoReader(path) as reader:
        frames = reader.read(range(min(reader.info.num_frames, MAX_GIF_FRAMES)))
        fps = reader.info.fps
    return gif_bytes(frames, fps=fps if fps > 0 else UNKNOWN_FPS), *frames.shape[1:3]
