"""Whether the end of a video file is missing, from the lengths that its container declares.

A decoder plays a cut-off file up to its last bytes and invents what is missing of the last frame.
"""

from mg.data.media_source import MediaSource, media_state, open_media

__all__ = ["num_missing_bytes"]

EBML_HEADER_ID = b"\x1a\x45\xdf\xa3"
MATROSKA_SEGMENT_ID = b"\x18\x53\x80\x67"


def num_missing_bytes(path: MediaSource) -> int:
    """Return by how many bytes a Matroska, WebM or AVI file is shorter than its header says.

    0 for a complete file, and where nothing is declared (other containers, live recordings).
    """
    with open_media(path) as file:
        head = file.read(4096)
    if head.startswith(EBML_HEADER_ID):
        declared = _matroska_length(head)
    elif head.startswith(b"RIFF"):
        declared = 8 + int.from_bytes(head[4:8], "little")
    else:
        declared = 0
    return max(0, declared - media_state(path).num_bytes)


def _matroska_length(head: bytes) -> int:
    """Return the declared length of a Matroska file: EBML header, then one segment (RFC 9559)."""
    header_length, position = _read_ebml_number(head, len(EBML_HEADER_ID))
    position += header_length
    if not head.startswith(MATROSKA_SEGMENT_ID, position):
        return 0
    segment_length, position = _read_ebml_number(head, position + len(MATROSKA_SEGMENT_ID))
    return position + segment_length


def _read_ebml_number(data: bytes, position: int) -> tuple[int, int]:
    """Return (value, position after it) of a variable-length number (RFC 8794, section 4).

    A number with all bits set means "unknown" and is returned as 0.
    """
    if position >= len(data) or data[position] == 0:
        return 0, position
    num_bytes = 9 - data[position].bit_length()
    num_value_bits = 7 * num_bytes
    value = int.from_bytes(data[position : position + num_bytes], "big")
    value &= (1 << num_value_bits) - 1
    unknown = value == (1 << num_value_bits) - 1
    return (0 if unknown else value), position + num_bytes
