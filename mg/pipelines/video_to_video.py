"""From a video and a prompt to another video."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mg.pipelines.text_to_video import GeneratedVideos, TextToVideo

__all__ = ["VideoToVideo"]


class VideoToVideo(TextToVideo):
    """A video generator that is called with a source video: `TextToVideo`, source first."""

    def __call__(
        self,
        source: np.ndarray | str | os.PathLike,
        prompts: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> GeneratedVideos:
        """Return a video of each prompt, made from the source.

        Args:
            source: uint8 RGB (T, H, W, 3), or the path of a video; it is scaled and cropped to the
                size of the result, and cut to its length.
            prompts: one or several; None where the settings have them embedded, or as `prompt`.
            settings: as of `TextToVideo`; `strength` below 1 is needed where the generator was
                trained on text alone.

        Raises:
            FileNotFoundError, ValueError: as `TextToVideo`.
        """
        return super().__call__(prompts, source=source, **settings)
