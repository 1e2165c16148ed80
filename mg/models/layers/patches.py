"""Blocks of pixels and frames into channels and back.

Layouts: see `mg.models.layers`.
"""

from mindspore import Tensor, ops

from mg.models.layers.frames import fold_frames, unfold_frames

__all__ = ["fold_patches", "unfold_patches"]


def fold_patches(video: Tensor, patch_t: int, patch: int) -> tuple[Tensor, int]:
    """Return (B, C, T, H, W) folded, (B*t, C*patch_t*patch*patch, H/patch, W/patch), and t.

    t = ceil(T / patch_t): T is completed to whole patches by repeating the last frame.

    Args:
        video: (B, C, T, H, W), H and W multiples of `patch`.
        patch_t, patch: frames, and pixels along each side, of a patch.
    """
    if patch_t == patch == 1:
        return fold_frames(video), video.shape[2]
    missing = -video.shape[2] % patch_t
    if missing:
        video = ops.concat((video, *[video[:, :, -1:]] * missing), 2)
    batch, channels, frames, height, width = video.shape
    t, h, w = frames // patch_t, height // patch, width // patch
    x = video.reshape(batch, channels, t, patch_t, h, patch, w, patch)
    x = x.transpose(0, 2, 1, 3, 5, 7, 4, 6)  # (B, t, C, patch_t, patch, patch, h, w)
    return x.reshape(batch * t, channels * patch_t * patch**2, h, w), t


def unfold_patches(x: Tensor, num_frames: int, patch_t: int, patch: int) -> Tensor:
    """Return the video (B, C, t*patch_t, h*patch, w*patch); the inverse of `fold_patches`.

    Args:
        x: folded patches (B*t, C*patch_t*patch*patch, h, w).
        num_frames: t.
        patch_t, patch: frames, and pixels along each side, of a patch.
    """
    if patch_t == patch == 1:
        return unfold_frames(x, num_frames)
    total, channels, height, width = x.shape
    batch, channels = total // num_frames, channels // (patch_t * patch**2)
    x = x.reshape(batch, num_frames, channels, patch_t, patch, patch, height, width)
    x = x.transpose(0, 2, 1, 3, 6, 4, 7, 5)  # (B, C, t, patch_t, h, patch, w, patch)
    return x.reshape(batch, channels, num_frames * patch_t, height * patch, width * patch)
