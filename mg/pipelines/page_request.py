"""What the page is asked for, and the making of it, one video after the other."""

import dataclasses
import logging
import re
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.pipelines.generated_files import write_generated
from mg.pipelines.output_record import read_record
from mg.pipelines.page_uploads import Upload, Uploads
from mg.pipelines.sampling_checks import check_request, departures_of
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import VisualInputs

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = [
    "MAX_PROMPT",
    "MAX_SEED",
    "EditRequest",
    "PageRequest",
    "VideoMaker",
    "parse_size",
]

logger = logging.getLogger("mg")

MAX_SEED = 2**53 - 1  # larger numbers are not exact in a browser
MAX_PROMPT = 4000  # characters; the longest that any text encoder takes are about half of it
SIZE = re.compile(r"\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*", re.ASCII | re.IGNORECASE)  # noqa: RUF001


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageRequest:
    """What the fields of the page say; what is None is the generator's default.

    Attributes:
        prompt: what the video is to show.
        negative_prompt: what it is pushed away from.
        num_frames: of the video.
        size: "HEIGHTxWIDTH" in pixels.
        steps: steps of the sampler.
        guidance: weight of the text; 1 turns guidance off.
        seed: of the noise.

    Raises:
        ValueError: a text that is too long, a size of another form, or a seed out of range.
    """

    prompt: str
    negative_prompt: str = ""
    num_frames: int | None = None
    size: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > MAX_PROMPT:
                given = f"{len(text)} characters" if isinstance(text, str) else repr(text)
                raise ValueError(
                    f"{name}: expected text of at most {MAX_PROMPT} characters, got {given}"
                )
        if self.size is not None:
            parse_size(self.size)
        is_whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not is_whole or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed={self.seed}; expected a whole number from 0 to {MAX_SEED}")

    def settings(self, generator: "TextToVideo") -> SamplingSettings:
        """Return how the video is sampled.

        Raises:
            ValueError: as `check_request`.
        """
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("prompt", "seed", "size", "upload"):
            given.pop(name, None)
        if self.size is not None:
            given["height"], given["width"] = parse_size(self.size)
        settings = SamplingSettings.of(generator.defaults, **given)
        check_request(generator, [self.prompt], settings, inputs=self._inputs())
        return settings

    def _inputs(self) -> list[VisualInputs] | None:
        return None

    @property
    def title(self) -> str:
        """What the video is shown under."""
        return self.prompt

    def num_steps(self, settings: SamplingSettings) -> int:
        """Return how many steps there are to be told of."""
        return len(settings.times()) - 1

    def departures(self, generator: "TextToVideo", settings: SamplingSettings) -> str:
        """Return what is new to the generator about this request; "" for nothing."""
        return departures_of(generator, [self.prompt], settings)

    def run(
        self,
        maker: "VideoMaker",
        uploads: Uploads,
        settings: SamplingSettings,
        on_step: Callable[[int], None],
    ) -> tuple[Path, dict[str, Any]]:
        """Return the video and what is to be told of it, as `VideoMaker.make`."""
        return maker.make(self, settings, on_step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRequest(PageRequest):
    """The same for a video that is made from another one.

    Attributes:
        strength: how much of it is made anew, up to 1.
        upload: the source.
    """

    strength: float = 1.0
    upload: Upload | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.strength, bool) or not isinstance(self.strength, int | float):
            raise ValueError(f"strength={self.strength!r}; expected a number")

    def settings(self, generator: "TextToVideo") -> SamplingSettings:
        """Return how the video is sampled.

        Raises:
            ValueError: as `check_request`; or there is no source, or one that is too short.
        """
        if self.upload is None:
            raise ValueError("no video to start from; upload one first")
        settings = super().settings(generator)
        if self.upload.num_frames < settings.num_frames:
            raise ValueError(
                f"{self.upload.name} has {self.upload.num_frames} frames and the video is to have "
                f"{settings.num_frames}; take fewer frames, or upload a longer video"
            )
        return settings

    def _inputs(self) -> list[VisualInputs] | None:
        return [VisualInputs(source=self.upload.path)]

    def run(
        self,
        maker: "VideoMaker",
        uploads: Uploads,
        settings: SamplingSettings,
        on_step: Callable[[int], None],
    ) -> tuple[Path, dict[str, Any]]:
        """Return the video and what is to be told of it, as `VideoMaker.make`."""
        size = settings.height, settings.width
        source = uploads.frames(self.upload, settings.num_frames, size)
        return maker.make(self, settings, on_step, source=source)


def parse_size(size: object) -> tuple[int, int]:
    """Return (height, width) of a text such as 64x96.

    Raises:
        ValueError: a text of another form.
    """
    text = str(size)[:100]
    found = SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"size={text!r}; expected height x width in pixels, such as 64x64")
    height, width = map(int, found.groups())
    return height, width


class VideoMaker:
    """Makes one video after the other, and keeps each with its JSON in a folder.

    MindSpore runs a network in whichever thread calls it, but only one at a time.
    """

    def __init__(
        self, generator: "TextToVideo", folder: Path, *, origin: dict[str, Any] | None = None
    ) -> None:
        """Keep what videos are made with.

        Args:
            generator: of the videos.
            folder: for the videos; made if missing.
            origin: what else the JSONs say about where the videos come from.
        """
        self.generator = generator
        self.folder = folder.resolve()
        self.origin = origin
        self.folder.mkdir(parents=True, exist_ok=True)
        self.one_at_a_time = threading.Lock()

    def make(
        self,
        request: PageRequest,
        settings: SamplingSettings,
        on_step: Callable[[int], None] | None = None,
        *,
        source: np.ndarray | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        """Return the new mp4 and what its JSON says.

        Args:
            request: what is wanted.
            settings: of the request.
            on_step: called after each step of the sampler with how many are done. What it raises
                ends the video, of which nothing is kept.
            source: frames of the video that it is made from, uint8 (T, H, W, 3), if any.

        Raises:
            ValueError: as `check_request`, before anything is computed; or a result that is no
                number.
        """
        # Unlike a running number it is free without looking, and nobody guesses it.
        name = f"{datetime.now():%Y%m%d_%H%M%S}_{secrets.token_hex(8)}.mp4"
        path = self.folder / name
        with self.one_at_a_time:
            videos = write_generated(
                self.generator,
                [request.prompt],
                [path],
                seeds=[request.seed],
                settings=settings,
                inputs=None if source is None else [VisualInputs(source=source)],
                origin=self.origin,
                on_step=on_step,
            )
            list(videos)
        logger.info("%s: %s", path, request.prompt)
        return path, read_record(path)
