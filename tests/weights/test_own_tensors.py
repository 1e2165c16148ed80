"""One rule finds a network's tensors in every file: prefixes, losses, discriminators, counters."""

import json
from pathlib import Path

import numpy as np
import pytest

from mg.weights.checkpoint_file import read_weights, write_weights
from mg.weights.conversion import convert_weights
from mg.weights.families import guess_family
from mg.weights.own_tensors import WRAPPERS, own_names, own_tensors, read_own_tensors

KEYS = Path(__file__).parents[1] / "fixtures" / "vae_keys"
MANIFESTS = sorted(path.stem for path in KEYS.glob("*.json"))
FIRST = "encoder.conv_in.weight"
SHAPES = {FIRST: (8, 3, 3, 3), "encoder.norm.weight": (8,), "quant_conv.bias": (1,)}
WRAPPED = (
    *("module.", "_orig_mod.", "network.", "model.", "autoencoder.", "_backbone."),
    *("module._orig_mod.", "autoencoder._backbone.", "network.module.model._orig_mod."),
    *("state_dict.first_stage_model.", "vae.", "module.module."),
)


def manifest(name):
    """Return {tensor name: shape} of a published file."""
    entries = json.loads((KEYS / f"{name}.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in entries.items()}


def own_shapes(shapes):
    return {own: shapes[name] for name, own in own_names(shapes).items()}


@pytest.mark.parametrize("prefix", ["", *WRAPPED])
@pytest.mark.parametrize("name", MANIFESTS)
def test_prefixes_of_every_family(name, prefix):
    shapes = manifest(name)
    own = {key: shape for key, shape in shapes.items() if not key.startswith("loss.")}
    assert own_shapes({prefix + key: shape for key, shape in shapes.items()}) == own
    assert guess_family(own) == guess_family(shapes)


@pytest.mark.parametrize("file_name", ["a.safetensors", "a.ckpt", "a.pt", "a.npz"])
def test_prefixes_in_every_format(tmp_path, file_name):
    tensors = {f"module._orig_mod.{name}": np.ones(shape) for name, shape in SHAPES.items()}
    if file_name == "a.npz":
        np.savez(tmp_path / file_name, **tensors)
    else:
        write_weights(tmp_path / file_name, tensors)
    assert read_weights(tmp_path).keys() == tensors.keys()  # as they are
    assert list(read_own_tensors(tmp_path)) == sorted(SHAPES, key=list(SHAPES).index)
    assert read_own_tensors(tmp_path, key="module").keys() == SHAPES.keys()
    with pytest.raises(ValueError, match="no key='ema'; there are module"):
        read_own_tensors(tmp_path, key="ema")


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_what_only_training_needs_is_left_out_and_listed(caplog, prefix):
    beside = {
        "loss.logvar": (),
        "loss.discriminator.main.3.num_batches_tracked": (),
        "loss.perceptual_loss.lin0.model.1.weight": (1, 64, 1, 1),
        "dics_model.main.0.weight": (64, 3, 4, 4),
        "discriminator.main.0.weight": (64, 3, 4, 4),
        "step": (),
        "global_step": (1,),
        "best_loss": (),
        "adam_m." + FIRST: (8, 3, 3, 3),
        f"moment2.{prefix}{FIRST}": (8, 3, 3, 3),
    }
    tensors = {prefix + name: np.zeros(shape) for name, shape in SHAPES.items()}
    # With the prefix before all names, and before the network's alone.
    for outer in {"", prefix}:
        others = {outer + name: np.zeros(shape) for name, shape in beside.items()}
        caplog.clear()
        with caplog.at_level("INFO", logger="mg"):
            assert own_tensors({**others, **tensors}).keys() == SHAPES.keys()
        assert "left out 10 tensors" in caplog.text and "loss.logvar" in caplog.text


def test_numbers_of_a_network_that_is_no_vae_stay():
    clip = {"logit_scale": (), "text_model.embeddings.token_embedding.weight": (9, 4)}
    assert own_shapes(clip) == clip
    opensora = {"scale": (), "shift": (), "spatial_vae.module." + FIRST: (8, 3, 3, 3)}
    assert own_shapes({**opensora, "step": ()}) == opensora
    counters = {"step": (), "lr": ()}
    assert own_shapes(counters) == counters  # nothing else is there


def test_a_network_of_the_left_out_kinds_alone_stays():
    discriminator = {
        "discriminator.main.0.weight": (64, 3, 4, 4),
        "discriminator.main.0.bias": (64,),
    }
    assert own_shapes(discriminator) == discriminator


def test_prefixes_that_not_all_names_share_stay():
    for shapes in ({"model.w": (2,), "module.b": (2,)}, {"model.w": (2,), "w": (2,)}):
        assert own_shapes(shapes) == shapes
    layers = {"networks.w": (2,), "networks.b": (2,), "network": (2,)}
    assert own_shapes(layers) == layers


def test_a_vae_in_a_whole_pipeline():
    pipeline = {"model.diffusion_model.out.weight": (4,), "cond_stage_model.logit_scale": ()}
    inner = {f"first_stage_model.{name}": shape for name, shape in SHAPES.items()}
    assert own_shapes({**pipeline, **inner, "first_stage_model.loss.logvar": ()}) == SHAPES
    with pytest.raises(ValueError, match=r"2 VAEs, with the prefixes '', 'vae\.'; .* key='vae'"):
        own_names({FIRST: (8, 3, 3, 3), "vae." + FIRST: (8, 3, 3, 3)})


def test_of_a_vae_and_its_average_the_average_is_taken():
    twice = {f"{prefix}{n}": s for prefix in ("model.", "ema.module.") for n, s in SHAPES.items()}
    names = own_names(twice)
    assert set(names) == {f"ema.module.{name}" for name in SHAPES}
    assert set(names.values()) == set(SHAPES)
    both = {f"{prefix}{FIRST}": (8, 3, 3, 3) for prefix in ("ema.", "ema_model.")}
    with pytest.raises(ValueError, match=r"2 VAEs, with the prefixes 'ema\.', 'ema_model\.'"):
        own_names(both)


def test_random_names_keep_their_ends():
    rng = np.random.default_rng(0)
    parts = (*WRAPPERS, "loss", "disc", "encoder", "conv_in", "weight", "step", "adam_m", "")
    for _ in range(300):
        names = {
            ".".join(rng.choice(parts, rng.integers(1, 6))): (int(rng.integers(1, 3)),)
            for _ in range(rng.integers(1, 6))
        }
        try:
            own = own_shapes(names)
        except ValueError as error:
            assert "VAEs, with the prefixes" in str(error)
            continue
        assert own and len(own) <= len(names)
        assert all(any(name.endswith(short) for name in names) for short in own)


def test_conversion_writes_clean_names(tmp_path):
    tensors = {f"module.{name}": np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    tensors["module.loss.logvar"] = np.zeros((), np.float32)
    write_weights(tmp_path / "a.pt", tensors)
    for target in ("b.safetensors", "b.ckpt", "b.pt"):
        convert_weights(tmp_path / "a.pt", tmp_path / target)
        assert read_weights(tmp_path / target).keys() == SHAPES.keys()
