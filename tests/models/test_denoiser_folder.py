"""Denoisers of every family, saved and read back."""

import json

import numpy as np
import pytest

from mg.models.denoiser import Denoiser
from mg.models.families import DENOISERS, denoiser_family
from tests.tiny import DENOISERS as SMALL


@pytest.mark.parametrize("name", list(DENOISERS))
def test_every_family_comes_back_bit_for_bit(name, tmp_path):
    family = denoiser_family(name)
    network = family.build(family.read_config({**SMALL[name], "latent_channels": 4}))
    network.save_pretrained(tmp_path)
    again = Denoiser.from_pretrained(tmp_path)
    assert type(again) is type(network) and again.config == network.config
    before, after = network.tensors(), again.tensors()
    assert set(before) == set(after)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    with pytest.raises(FileExistsError):
        network.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path, overwrite=True)
    other = denoiser_family("unet" if name != "unet" else "movie_gen")
    with pytest.raises(ValueError, match=f"of family '{name}', not '{other.name}'"):
        type(
            other.build(other.read_config({**SMALL[other.name], "latent_channels": 4}))
        ).from_pretrained(tmp_path)


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        Denoiser.from_pretrained(tmp_path)
    family = denoiser_family("unet")
    config = family.read_config({**SMALL["unet"], "latent_channels": 4})
    family.build(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    for changes, message in (
        ({"_class_name": "UNet"}, "class 'UNet' is not known"),
        ({"channels": 16}, "does not fit its config.json"),
    ):
        path.write_text(json.dumps({**fields, **changes}))
        with pytest.raises(ValueError, match=message):
            Denoiser.from_pretrained(tmp_path)
