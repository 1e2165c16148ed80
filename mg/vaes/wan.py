"""Wan's VAEs, 2.1 and 2.2, as a `VideoVAE`."""

from mg.vaes.diffusers_vae import DiffusersVAE

__all__ = ["WanVAE"]


class WanVAE(DiffusersVAE):
    """Wan 2.1's VAE (4x8x8) and 2.2's (4x16x16), 4k+1 frames.

    A clip is coded a few frames at a time, whatever its length, and the result is that of the whole
    clip. Decoded frames may leave [-1, 1] a little; diffusers clips them, and so does `decode` with
    `clip_output`. Tiles are blended pixel by pixel; with Wan 2.2 diffusers blends its patches of
    2 x 2.
    """

    family = "wan"

    @property
    def clip_output(self) -> bool:
        """Whether decoded frames are clipped to [-1, 1]; at first what the config says."""
        return self.network.clip_output

    @clip_output.setter
    def clip_output(self, clips: bool) -> None:
        self.network.clip_output = clips
