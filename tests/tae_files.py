"""Reading a TAE's weight file, for tests of what writes one."""

from typing import Any

import numpy as np

from mg.models.reading import read_autoencoder

__all__ = ["read_tae"]


def read_tae(path, **options) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensors and config of a TAE, or of an image VAE that is inflated into one."""
    parts = read_autoencoder(path, into="tae", **options)
    return dict(parts.tensors), parts.config.to_dict()
