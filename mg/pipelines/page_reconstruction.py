"""What the page does with an upload and the autoencoder alone: through it and back."""

import dataclasses
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mg.data.transforms import check_image_size, from_model_range
from mg.data.video_writer import write_video
from mg.metrics.measures import Measures
from mg.metrics.protocol import Protocol
from mg.pipelines.decode import DEFAULT_FPS
from mg.pipelines.page_request import VideoMaker, parse_size
from mg.pipelines.page_uploads import Upload, Uploads

if TYPE_CHECKING:
    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["ReconstructionRequest"]

MAX_VALUES = 1 << 26  # pixels of all frames; 64 frames of 1024x1024


class FramesTaken(NamedTuple):
    """How many of the first frames of an upload are taken, and the height and width they get."""

    num_frames: int
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionRequest:
    """What the fields say; what is None is the generator's default.

    Attributes:
        upload: the video.
        num_frames: how many of its first frames are taken.
        size: "HEIGHTxWIDTH" in pixels, which frames are scaled to cover and cropped to.
        folder: where the result is put, under a name that nobody guesses.
    """

    upload: Upload | None
    num_frames: int | None = None
    size: str | None = None
    folder: Path

    @property
    def title(self) -> str:
        """What the video is shown under."""
        return "reconstruction"

    def settings(self, generator: "TextToVideo") -> FramesTaken:
        """Return what is taken of the upload.

        Raises:
            ValueError: there is no upload, or the autoencoder cannot take this much of it.
        """
        if self.upload is None:
            raise ValueError("no video to reconstruct; upload one first")
        num_frames = self.num_frames
        if num_frames is None:
            num_frames = min(generator.defaults.num_frames, self.upload.num_frames)
        size = tuple(generator.defaults.size) if self.size is None else parse_size(self.size)
        is_whole = isinstance(num_frames, int) and not isinstance(num_frames, bool)
        if not is_whole or num_frames < 1:
            raise ValueError(f"num_frames={num_frames!r}; expected a whole number of 1 or more")
        if num_frames > self.upload.num_frames:
            raise ValueError(
                f"num_frames={num_frames}; {self.upload.name} has {self.upload.num_frames}"
            )
        for side in size:
            check_image_size("size", side)
        generator.autoencoder.check_video_shape((1, 3, 1, *size))
        if num_frames * size[0] * size[1] > MAX_VALUES:
            raise ValueError(
                f"{num_frames} frames of {size[0]}x{size[1]} are more than the {MAX_VALUES} pixels "
                "that are taken in all; take fewer or smaller ones"
            )
        return FramesTaken(num_frames, size)

    def num_steps(self, settings: FramesTaken) -> int:
        """Return how many frames there are to be told of."""
        return settings.num_frames

    def departures(self, generator: "TextToVideo", settings: FramesTaken) -> str:
        """Return what is new to the generator about this request: nothing."""
        return ""

    def run(
        self,
        maker: VideoMaker,
        uploads: Uploads,
        settings: FramesTaken,
        on_step: Callable[[int], None],
    ) -> tuple[Path, dict[str, Any]]:
        """Return the video original | reconstruction, and the figures of it.

        Raises:
            ValueError: the upload is gone or broken, or the decoder gave what is not a number.
        """
        num_frames, size = settings
        original = uploads.frames(self.upload, num_frames, size)
        autoencoder = maker.generator.autoencoder
        with maker.one_at_a_time:
            frames = _through(autoencoder, original, on_step)
        protocol = Protocol.of_covering_frames("page", num_frames=num_frames, crop_size=size)
        values, _ = Measures(["psnr", "ssim"], protocol.metrics)(original, frames)
        path = self.folder / secrets.token_hex(16) / "reconstruction.mp4"
        fps = self.upload.fps or DEFAULT_FPS
        write_video(path, np.concatenate([original, frames], axis=2), fps=fps)
        spec = autoencoder.spec
        numbers = np.prod(spec.latent_shape(num_frames, *size)) / original.size
        return path, {
            "num_frames": num_frames,
            "height": size[0],
            "width": size[1],
            "compression": f"{spec.t}x{spec.h}x{spec.w}, {spec.channels} channels",
            "share_of_numbers_kept": round(float(numbers), 4),
            **{name: round(float(np.mean(value)), 3) for name, value in values.items()},
        }


def _through(autoencoder, frames: np.ndarray, on_step: Callable[[int], None]) -> np.ndarray:
    """Return frames as the autoencoder gives them back, uint8 (T, H, W, 3)."""
    from mg.pipelines.streaming import decode_latents, encode_frames  # imports MindSpore

    means = (mean for mean, _ in encode_frames(autoencoder, frames))
    pieces, num_done = [], 0
    for video in decode_latents(autoencoder, means, len(frames)):
        pieces.append(from_model_range(video))
        num_done += len(pieces[-1])
        on_step(num_done)
    return np.concatenate(pieces)
