"""What pretrained text encoders need besides what mg itself does."""

import contextlib
from collections.abc import Iterator

__all__ = ["needs_text_extra"]


@contextlib.contextmanager
def needs_text_extra() -> Iterator[None]:
    """Say how to install the packages of pretrained text encoders where an import finds none."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"pretrained text encoders (t5, byt5, clip, llama) need {error.name}, which is not "
            "installed: pip install 'mg-video[text]', or choose the encoder word or byte"
        ) from error
