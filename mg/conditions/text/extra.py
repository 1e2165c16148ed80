"""What pretrained text encoders need besides what mg itself does."""

from contextlib import AbstractContextManager

from mg.extras import needs_extra

__all__ = ["needs_text_extra"]


def needs_text_extra() -> AbstractContextManager[None]:
    """Say how to install the packages of pretrained text encoders where an import finds none."""
    return needs_extra(
        "text",
        "pretrained text encoders (t5, byt5, clip, llama) need",
        otherwise=", or choose the encoder word or byte",
    )
