"""What of the videos is reconstructed, and what is written (no MindSpore is imported here)."""

import dataclasses
from typing import Any

from mg.data.transforms import check_image_size
from mg.latent_spec import LatentSpec
from mg.metrics.protocol import Protocol

__all__ = ["ReconstructionSettings"]


@dataclasses.dataclass(frozen=True)
class ReconstructionSettings:
    """Which frames are reconstructed, and what is written.

    Args:
        num_frames: frames of each clip, from its beginning; 0 takes whole clips, in constant
            memory.
        image_size: side of a square, or (height, width), that frames are scaled to cover and
            cropped to; None keeps their size, cropped to multiples of the spatial compression.
        sample_stride: take every n-th frame of the source; 1 for whole clips.
        batch_size: clips of one size that go through the network together.
        side_by_side: write original | reconstruction; otherwise the reconstruction alone.
        lpips_path: weights of LPIPS; None takes those that were fetched, if they are there.
        memory_budget_gb: choose the tiles so that this is enough.
        overwrite: reconstruct all clips again and replace existing outputs.
    """

    num_frames: int = 16
    image_size: int | tuple[int, int] | None = 256
    sample_stride: int = 1
    batch_size: int = 1
    side_by_side: bool = True
    lpips_path: str | None = None
    memory_budget_gb: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("num_frames", 0), ("sample_stride", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; expected {least} or more")
        if self.image_size is not None:
            check_image_size("image_size", self.image_size)
        if not self.num_frames and (self.sample_stride > 1 or self.batch_size > 1):
            raise ValueError(
                "num_frames=0 streams whole clips one at a time: sample_stride and batch_size "
                "must be 1"
            )

    def of_result(self, lpips: str | None) -> dict[str, Any]:
        """Return what of the settings decides numbers and videos, with which LPIPS was measured."""
        settings = dataclasses.asdict(self)
        for key in ("overwrite", "lpips_path", "batch_size"):
            settings.pop(key)
        return {**settings, "lpips": lpips}

    def protocol(self, spec: LatentSpec) -> Protocol:
        """Return the protocol that the frames are measured by.

        `mg evaluate` with the same protocol measures two folders of videos alike.

        Args:
            spec: the autoencoder's latents; what frames keep their size for is cut to multiples.
        """
        return Protocol.of_covering_frames(
            "reconstruct",
            num_frames=self.num_frames or None,
            sample_rate=self.sample_stride,
            crop_size=self.image_size,
            crop_multiple=1 if self.image_size is not None else (spec.h, spec.w),
        )

    @property
    def num_source_frames(self) -> int:
        """Frames that a clip needs."""
        return max(1, (self.num_frames - 1) * self.sample_stride + 1)
