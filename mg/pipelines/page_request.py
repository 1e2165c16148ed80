"""One video for the page: what the fields say, and the making of it, one after the other."""

import dataclasses
import logging
import re
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mg.pipelines.generated_files import write_generated
from mg.pipelines.output_record import read_record
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["MAX_PROMPT", "MAX_SEED", "PageRequest", "VideoMaker"]

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
        if self.size is not None and not SIZE.fullmatch(str(self.size)[:100]):
            raise ValueError(
                f"size={str(self.size)[:100]!r}; expected height x width in pixels, such as 64x64"
            )
        is_whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not is_whole or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed={self.seed}; expected a whole number from 0 to {MAX_SEED}")

    def settings(self, generator: "TextToVideo") -> SamplingSettings:
        """Return how the video is sampled.

        Raises:
            ValueError: as `check_request`.
        """
        given = dataclasses.asdict(self)
        prompt, _, size = (given.pop(name) for name in ("prompt", "seed", "size"))
        if size is not None:
            given["height"], given["width"] = map(int, SIZE.fullmatch(size).groups())
        settings = SamplingSettings.of(generator.defaults, **given)
        check_request(generator, [prompt], settings)
        return settings


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
        self._one_at_a_time = threading.Lock()

    def make(
        self, request: PageRequest, on_step: Callable[[int], None] | None = None
    ) -> tuple[Path, dict[str, Any]]:
        """Return the new mp4 and what its JSON says.

        Args:
            request: what is wanted.
            on_step: called after each step of the sampler with how many are done. What it raises
                ends the video, of which nothing is kept.

        Raises:
            ValueError: as `check_request`, before anything is computed; or a result that is no
                number.
        """
        settings = request.settings(self.generator)
        # Unlike a running number it is free without looking, whoever else writes here.
        name = f"{datetime.now():%Y%m%d_%H%M%S}_{secrets.token_hex(3)}.mp4"
        path = self.folder / name
        with self._one_at_a_time:
            videos = write_generated(
                self.generator,
                [request.prompt],
                [path],
                seeds=[request.seed],
                settings=settings,
                origin=self.origin,
                on_step=on_step,
            )
            list(videos)
        logger.info("%s: %s", path, request.prompt)
        return path, read_record(path)
