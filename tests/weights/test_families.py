"""Families recognised by the names and shapes of the real files, with and without prefixes."""

import json
from pathlib import Path

import pytest

from mg.weights.families import FAMILIES, guess_family

FIXTURES = Path(__file__).parents[1] / "fixtures"
MANIFESTS = {
    "causalvae-v1.0.0": "causalvae",
    "cogvideox-2b-transformer": "cogvideox-transformer",
    "cogvideox-vae": "cogvideox",
    "hunyuanvideo-transformer-diffusers": "hunyuanvideo-transformer",
    "hunyuanvideo-vae": "hunyuanvideo",
    "opensora-vae-v1.2": "opensora-v1.2",
    "sd-vae-ft-mse": "sd",
    "sd35-vae": "sd3",
    "video-dc-ae-f32t4c128": "dc-ae",
}


def manifest(name: str) -> dict[str, list[int]]:
    content = json.loads((FIXTURES / "vae_keys" / f"{name}.json").read_text())
    return {key: shape for key, (shape, _) in content.items()}


def published_tae() -> dict[str, tuple[int, ...]]:
    lines = (FIXTURES / "published_tae_names.txt").read_text().splitlines()
    pairs = (line.split(" ", 1) for line in lines)
    return {
        name: tuple(map(int, shape.strip("()").replace(",", " ").split())) for name, shape in pairs
    }


def ldm_names(latent_channels: int) -> dict[str, tuple[int, ...]]:
    return {
        "encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3),
        "decoder.conv_in.weight": (512, latent_channels, 3, 3),
    }


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model.", "module.vae."])
def test_real_manifests(name, prefix):
    shapes = {prefix + key: shape for key, shape in manifest(name).items()}
    assert guess_family(shapes) == MANIFESTS[name]


@pytest.mark.parametrize("version", ["wan21", "wan22"])
def test_wan_under_both_publications_names(version):
    names = json.loads((FIXTURES / "wan" / f"{version}_names.json").read_text())
    assert guess_family({old: shape for old, (_, shape) in names.items()}) == "wan-original"
    assert guess_family({new: shape for _, (new, shape) in names.items()}) == "wan"


def test_movie_gens_autoencoder():
    shapes = published_tae()
    assert guess_family(shapes) == "tae"
    assert guess_family({f"autoencoder._backbone.{key}": s for key, s in shapes.items()}) == "tae"


@pytest.mark.parametrize(("latent_channels", "family"), [(4, "sd-ldm"), (16, "sd3-ldm")])
def test_ldm_names_inside_a_whole_generator(latent_channels, family):
    vae = {f"first_stage_model.{key}": s for key, s in ldm_names(latent_channels).items()}
    unet = {"model.diffusion_model.out.2.weight": (4, 320, 3, 3), "betas": (1000,)}
    assert guess_family(unet | vae) == family


def test_what_is_no_family():
    assert guess_family({}) is None
    assert guess_family({"weight": (3, 3)}) is None
    assert guess_family(ldm_names(8)) is None
    halves = ldm_names(4)
    split = {f"{prefix}.{key}": halves[key] for prefix, key in zip("ab", halves, strict=True)}
    assert guess_family(split) is None  # marks behind different prefixes
    flat = {key: shape[:2] for key, shape in halves.items()}
    assert guess_family(flat) is None


def test_every_family_fits_its_own_marks():
    for name, family in FAMILIES.items():
        shapes = {key: tuple(7 if n is None else n for n in s) for key, s in family.marks.items()}
        assert guess_family(shapes) == name
