"""Reference networks of the families, and a tiny TAE, as loaded VAEs."""

from pathlib import Path

import numpy as np
import pytest

from mg.vaes import VideoVAE
from mg.vaes.tae import TAEVideoVAE
from tests.tiny import AUTOENCODERS

VAES = Path(__file__).parents[1] / "fixtures" / "vaes"

# Fixture folder of each family that diffusers has.
FIXTURES = {"sd": "kl", "cogvideox": "cogvae", "hunyuan": "hyvae"}

TINY_TAE = {
    **AUTOENCODERS["tae"],
    "attn_type": "vanilla",
    "temporal_upsample_level": [1],
    "temporal_padding": "replicate",
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}


def load_reference(family: str) -> VideoVAE:
    """Return a family's reference network, a 2-D one frame by frame."""
    inflate_method = "none" if family == "sd" else "central"
    return VideoVAE.from_pretrained(VAES / FIXTURES[family], inflate_method=inflate_method)


def make_tae() -> TAEVideoVAE:
    """Return a tiny TAE with random weights."""
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in TAEVideoVAE.shapes(TINY_TAE).items()
    }
    return TAEVideoVAE.from_tensors(tensors, TINY_TAE)


@pytest.fixture(scope="session")
def all_vaes():
    """Return {family: VAE}; tests leave them as they are."""
    return {"tae": make_tae(), **{family: load_reference(family) for family in FIXTURES}}


@pytest.fixture
def new_vae():
    """Return the function that loads a family's reference network anew, to be changed."""
    return load_reference
