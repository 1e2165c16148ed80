"""The figures that reports know: the unit of each, its digits, and which way is good."""

from dataclasses import dataclass

__all__ = ["FIGURES", "Figure"]


@dataclass(frozen=True)
class Figure:
    """How one figure is shown and averaged.

    Args:
        unit: for tables and plots, "" for none.
        digits: behind the point.
        best: "high", "low", or "original" where the original's own figure, or 1 for a ratio, is
            the best.
        may_lack: whether frames or clips may have no such figure (NaN): they are left out of means.
            Elsewhere NaN stays NaN.
    """

    unit: str
    digits: int
    best: str
    may_lack: bool = False


FIGURES = {
    "psnr": Figure("dB", 3, "high"),
    "ssim": Figure("", 4, "high"),
    "ms_ssim": Figure("", 4, "high"),
    "lpips": Figure("", 4, "low"),
    "lpips_vgg": Figure("", 4, "low"),
    "lpips_alex": Figure("", 4, "low"),
    "flolpips": Figure("", 4, "low"),
    "flolpips_dis": Figure("", 4, "low"),
    "warping_error": Figure("", 6, "original", may_lack=True),
    "warping_error_original": Figure("", 6, "original", may_lack=True),
    "tof": Figure("px", 3, "low"),
    "flicker": Figure("levels", 3, "original", may_lack=True),
    "flicker_original": Figure("levels", 3, "original", may_lack=True),
    "vmaf": Figure("", 2, "high"),
    "xpsnr": Figure("dB", 3, "high"),
    "i3d_distance": Figure("", 3, "low"),
    "motion_energy_ratio": Figure("", 3, "original", may_lack=True),
}
