"""How many frames go into the temporal VAE at a time, and how many come out.

A video is coded in chunks of `micro_frame_size` frames (17 in the published checkpoint), each by
itself. A chunk of t frames is completed with zeros at its front to a multiple of the temporal
compression r (4), so it has ceil(t / r) frames of latent; after decoding, as many frames as were
added are dropped at the front. So 17 frames become 5 of latent, and 51 become 15.
"""

__all__ = ["chunk_lengths", "latent_lengths", "num_padding_frames"]


def num_padding_frames(num_frames: int, compression: int) -> int:
    """Return how many zero frames complete a chunk at its front."""
    return -num_frames % compression


def chunk_lengths(num_frames: int, micro_frame_size: int | None) -> list[int]:
    """Return the lengths of the chunks of a video: full ones and, last, what is left.

    Args:
        num_frames: 1 or more.
        micro_frame_size: frames of a chunk; None codes any video in one.
    """
    if micro_frame_size is None:
        return [num_frames]
    num_full, rest = divmod(num_frames, micro_frame_size)
    return [micro_frame_size] * num_full + ([rest] if rest else [])


def latent_lengths(chunks: list[int], compression: int) -> list[int]:
    """Return the number of latent frames of each chunk."""
    return [-(-length // compression) for length in chunks]
