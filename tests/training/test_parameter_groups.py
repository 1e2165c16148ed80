"""The halves of an autoencoder, which learning rates and frozen parts are stated by."""

import dataclasses

import pytest

from mg.models.families import autoencoder_family
from mg.training.parameter_groups import (
    autoencoder_halves,
    learning_rate_multipliers,
    matching_names,
)
from mg.training.video_to_video.video_to_video_config import TARGET
from tests.tiny import AUTOENCODERS, TAE_WITH_LINEAR_PATH

CONFIGS = {
    **AUTOENCODERS,
    "tae with every part": dataclasses.replace(
        TAE_WITH_LINEAR_PATH, use_quant_conv=True, use_post_quant_conv=True
    ).to_dict(),
}


def trainable(kind: str, prefix: str) -> list[str]:
    """Return the names of the parameters of a small network that can train."""
    family = autoencoder_family(kind.split()[0])
    network = family.build(family.read_config(CONFIGS[kind]), has_values=False)
    names = [name for name, _ in network.parameters_and_names() if name not in network.constants]
    return [prefix + name for name in names]


@pytest.mark.parametrize("prefix", ["", "vae."])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_is_in_one_half(kind, prefix):
    names = trainable(kind, prefix)
    halves = autoencoder_halves(prefix)
    encoder, decoder = (matching_names(names, half, aliases=halves) for half in halves)
    assert encoder | decoder == set(names) and not encoder & decoder
    for name in names:
        is_decoder = "decoder" in name or "post_quant_conv" in name
        assert is_decoder == (name in decoder), name


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_parts_of_video_to_video_training_cover_the_vae(kind):
    names = [*trainable(kind, "vae."), "unet.encoder.weight", "unet.decoder.quant_conv.weight"]
    factors = {"vae_encoder": 0.1, "vae_decoder": 0.2, "unet": 3.0}
    multipliers = {TARGET.parts[part]: factor for part, factor in factors.items()}
    found = learning_rate_multipliers(names, multipliers, aliases=autoencoder_halves("vae."))
    assert {found.pop(name) for name in names if name.startswith("unet.")} == {3.0}
    assert set(found.values()) == {0.1, 0.2}
    for name, factor in found.items():
        if ".quant_conv." in name:
            assert factor == 0.1
        if ".post_quant_conv." in name:
            assert factor == 0.2
