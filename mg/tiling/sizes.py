"""Sizes of tiles, checked against the latents that they must fit."""

import dataclasses
import math
from collections.abc import Callable

from mg.latent_spec import LatentSpec

__all__ = ["Tiling", "nearest_multiples"]

# What tiles have where a spec allows it: those of Movie Gen's TAE.
FRAMES = 32
PIXELS = 256
# Sides of tiles in pixels that `Tiling.auto` chooses from; smaller ones are mostly overlap.
AUTO_TILE_SIZES = (1024, 768, 512, 384, 256, 192, 128)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Sizes of the tiles.

    Args:
        frames: length of a tile in frames of video. Where the first frame has a latent frame of
            its own, a tile has one frame more, which it shares with the tile before.
        overlap_frames: overlap of neighbouring tiles in time, when decoding. Encoding has none.
        height, width: size of a tile in pixels, multiples of the spatial compression; 0 does not
            cut this axis.
        overlap_pixels: smallest overlap of neighbouring tiles along height and width, in pixels.

    Raises:
        ValueError: sizes that no tiles can be made with.
    """

    frames: int = FRAMES
    overlap_frames: int = FRAMES // 2
    height: int = PIXELS
    width: int = PIXELS
    overlap_pixels: int = PIXELS // 4

    def __post_init__(self) -> None:
        if self.frames < 1 or not 0 <= self.overlap_frames < self.frames:
            raise ValueError(
                f"frames={self.frames} and overlap_frames={self.overlap_frames}: expected "
                "0 <= overlap_frames < frames"
            )
        if self.overlap_pixels < 0:
            raise ValueError(f"overlap_pixels={self.overlap_pixels}: expected 0 or more")
        for name in ("height", "width"):
            size = getattr(self, name)
            if size != 0 and size <= self.overlap_pixels:
                raise ValueError(
                    f"{name}={size}: a tile must be larger than overlap_pixels="
                    f"{self.overlap_pixels}, or 0 for no tiles along this axis"
                )

    @classmethod
    def default(cls, spec: LatentSpec) -> "Tiling":
        """Return tiles of about 32 frames and 256 pixels that fit the latents of a spec."""
        unit = frames_unit(spec)
        frames = max(1, round(FRAMES / unit)) * unit
        overlap = 0 if spec.chunk else frames // 2 // spec.t * spec.t
        side = math.lcm(spec.h, spec.w)
        size = max(4, PIXELS // side) * side
        return cls(frames, overlap, size, size, size // 4 // side * side)

    @classmethod
    def auto(
        cls,
        spec: LatentSpec,
        height: int,
        width: int,
        *,
        memory_gb: Callable[[int, int, int], float],
        memory_budget_gb: float,
    ) -> "Tiling":
        """Return the largest tiles for which the memory stays within a budget.

        Whole frames come first, then tiles of fewer pixels, then tiles of half as many frames.

        Args:
            spec: the latents.
            height, width: size of the video, in pixels.
            memory_gb: what a process takes, in GB, by frames, height and width of a tile.
            memory_budget_gb: what the whole process may take, in GB (10^9 bytes).

        Raises:
            ValueError: even the smallest tiles need more.
        """
        sides = [0, *(side for side in AUTO_TILE_SIZES if side < max(height, width))]
        least = math.inf
        pair = 2 * frames_unit(spec)  # so that half a tile is whole latents
        for frames in (max(pair, 32 // pair * pair), max(pair, 16 // pair * pair)):
            for side in sides:
                needed = memory_gb(frames, min(side or height, height), min(side or width, width))
                if needed <= memory_budget_gb:
                    overlap = 0 if spec.chunk else frames // 2
                    return cls(frames=frames, overlap_frames=overlap, height=side, width=side)
                least = min(least, needed)
        raise ValueError(
            f"memory_budget_gb={memory_budget_gb}: the smallest tiles of a {width}x{height} video "
            f"need about {least:.1f} GB"
        )

    def check(self, spec: LatentSpec) -> None:
        """Raise ValueError unless the tiles fall on whole frames and pixels of the latent."""
        factors = {
            "frames": frames_unit(spec),
            "overlap_frames": spec.t,
            "height": spec.h,
            "width": spec.w,
            "overlap_pixels": math.lcm(spec.h, spec.w),
        }
        for name, factor in factors.items():
            size = getattr(self, name)
            if size % factor:
                least = 0 if name.startswith("overlap") else factor
                raise ValueError(
                    f"tiling {name}={size} is not a multiple of {factor}, the network's "
                    f"compression; use {nearest_multiples(size, factor, least)}"
                )
        if spec.chunk and self.overlap_frames:
            raise ValueError(
                f"tiling overlap_frames={self.overlap_frames}: this network codes every "
                f"{spec.chunk} frames by themselves, and nothing overlaps; use 0"
            )


def nearest_multiples(size: int, unit: int, least: int) -> str:
    """Return the multiples of a unit on both sides of a size, "24 or 32", as far as they are legal.

    Args:
        size: no multiple, or less than `least`.
        unit: what must be whole.
        least: the smallest legal one, a multiple itself.
    """
    below = size // unit * unit
    return f"{below} or {below + unit}" if below >= least else f"{least}"


def frames_unit(spec: LatentSpec) -> int:
    """Return what the length of a tile in frames must be a multiple of."""
    return spec.chunk or math.lcm(spec.t, spec.step)
