"""The section `pretrained`: what it becomes, what it refuses, and a run of two phases from it."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

from mg.cli import parse_config
from mg.commands.train_tae import TrainTAEConfig
from mg.models.tae.config import TAEConfig
from mg.training.autoencoder.autoencoder_config import LossSettings, ValidationSettings
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.pretrained import (
    PretrainedSettings,
    PretrainedTarget,
    PretrainedVAESettings,
    apply_pretrained,
    find_start_weights,
    resolve_pretrained,
)
from mg.training.settings import PhaseSettings
from mg.weights.safetensors_file import write_safetensors
from mg.weights.tae_layers import image_vae_shapes
from tests.tae_files import read_tae

ROOT = Path(__file__).parents[2]
FULL = yaml.safe_load(
    """
    use_pretrained: true
    vae:
      enabled: true
      model_name: stabilityai/sd-vae-ft-mse
      method: auto
      inflate_method: central
      freeze_epochs: 5
    two_phase_training: true
    phase1_epochs: 10
    layer_lr_multipliers:
      vae_encoder: 0.1
      vae_decoder: 0.2
      unet: 1.0
    """
)
DIFFUSION = PretrainedTarget(
    families=("tae", "cogvideox"),
    trained_first=("model",),
    parts={"vae_encoder": "vae.encoder", "vae_decoder": "vae.decoder", "unet": "model"},
)


# What training the TAE makes of `pretrained`.
TAE = TrainTAEConfig(output_path="out", video_folder="videos").target()


def section(**changes) -> PretrainedSettings:
    """Return the full section with changes; those of the VAE by vae_NAME."""
    of_vae = {name[4:]: value for name, value in changes.items() if name.startswith("vae_")}
    others = {name: value for name, value in changes.items() if not name.startswith("vae_")}
    vae = PretrainedVAESettings(**{**FULL["vae"], **of_vae})
    return PretrainedSettings(**{**FULL, **others, "vae": vae})


def resolve(settings, target=TAE, *, num_steps=1000, steps_per_epoch=8):
    return resolve_pretrained(
        settings, target, num_steps=num_steps, steps_per_epoch=steps_per_epoch
    )


def parse(tmp_path, content, *flags) -> TrainTAEConfig:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"output_path": "out", "video_folder": "v", **content}))
    return parse_config(TrainTAEConfig, ["--config", str(path), *flags], description="")


# -- what the section becomes ----------------------------------------------------------------------


def test_two_phases_train_the_temporal_layers_and_then_all():
    resolved = resolve(section())
    assert resolved.phases == [PhaseSettings(steps=80, train=["temporal"]), PhaseSettings()]
    assert resolved.lr_multipliers == {"vae_encoder": 0.1, "vae_decoder": 0.2}
    assert resolved.vae == dataclasses.replace(section().vae, freeze_epochs=0)
    assert len(resolved.warnings) == 2
    assert "freeze_epochs=5 has no effect: two_phase_training is on" in resolved.warnings[0]
    assert "layer_lr_multipliers.unet has no effect" in resolved.warnings[1]


@pytest.mark.parametrize(
    ("changes", "first_steps", "num_warnings"),
    [
        ({"two_phase_training": False, "phase1_epochs": None}, 40, 0),
        ({"two_phase_training": False}, 40, 1),  # phase1_epochs has no effect
        ({"vae_freeze_epochs": 0}, 80, 0),
        ({"vae_freeze_epochs": 10}, 80, 0),  # both say the same
        ({"vae_freeze_epochs": 5}, 80, 1),
        ({"two_phase_training": False, "phase1_epochs": None, "vae_freeze_epochs": 0}, None, 0),
    ],
)
def test_epochs_become_steps(changes, first_steps, num_warnings):
    resolved = resolve(section(layer_lr_multipliers={}, **changes))
    assert [phase.steps for phase in resolved.phases] == (
        [first_steps, None] if first_steps else []
    )
    assert len(resolved.warnings) == num_warnings


def test_another_training_maps_the_parts_otherwise():
    resolved = resolve(section(), DIFFUSION)
    assert resolved.phases[0].train == ["model"]
    assert resolved.lr_multipliers == {"vae.encoder": 0.1, "vae.decoder": 0.2, "model": 1.0}
    assert len(resolved.warnings) == 1


@pytest.mark.parametrize(
    ("changes", "num_warnings"), [({"use_pretrained": False}, 0), ({"vae_enabled": False}, 1)]
)
def test_a_section_that_is_off_changes_nothing(changes, num_warnings):
    resolved = resolve(section(**changes))
    assert resolved.vae is None and resolved.phases == [] and resolved.lr_multipliers == {}
    assert len(resolved.warnings) == num_warnings


def test_a_first_phase_that_takes_all_steps_is_refused():
    assert len(resolve(section(), num_steps=81).phases) == 2
    with pytest.raises(ValueError, match=r"phase1_epochs=10 takes 80 steps \(8 per epoch\).*=80"):
        resolve(section(), num_steps=80)


def test_resolved_settings_are_plain_ones_and_stay_as_they_are(tmp_path, caplog):
    config = parse(tmp_path, {"pretrained": FULL})
    with caplog.at_level(logging.WARNING, "mg"):
        resolved = apply_pretrained(config, TAE, steps_per_epoch=8)
    assert len(caplog.records) == 2
    assert resolved.phases == [PhaseSettings(steps=80, train=["temporal"]), PhaseSettings()]
    assert resolved.lr_multipliers == {"vae_encoder": 0.1, "vae_decoder": 0.2}
    assert resolved.start_weights() == dataclasses.replace(config.start_weights(), freeze_epochs=0)
    assert apply_pretrained(resolved, TAE, steps_per_epoch=3) == resolved
    off = dataclasses.replace(config, pretrained=section(use_pretrained=False))
    assert apply_pretrained(off, TAE, steps_per_epoch=8).pretrained is None


# -- the section in files and flags ----------------------------------------------------------------


def test_a_section_with_every_setting_is_understood(tmp_path):
    assert parse(tmp_path, {"pretrained": FULL}).pretrained == section()


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--pretrained.vae.inflate_method=average", section(vae_inflate_method="average")),
        ("--pretrained.use_pretrained=false", section(use_pretrained=False)),
        ("--pretrained=models/tae.ckpt", "models/tae.ckpt"),
        ("--pretrained=null", None),
    ],
)
def test_flags_change_the_section_or_replace_it(tmp_path, flag, expected):
    assert parse(tmp_path, {"pretrained": FULL}, flag).pretrained == expected


def test_the_shipped_example():
    path = ROOT / "configs" / "tae" / "train" / "from_pretrained_vae.yaml"
    flags = ["--config", str(path), "--video_folder=videos"]
    config = parse_config(TrainTAEConfig, flags, description="")
    resolved = apply_pretrained(config, TAE, steps_per_epoch=100)
    assert resolved.phases == [PhaseSettings(steps=1000, train=["temporal"]), PhaseSettings()]
    assert resolved.lr_multipliers == {"vae_encoder": 0.1}
    assert resolved.start_weights().model_name == "stabilityai/sd-vae-ft-mse"


def changed(**changes):
    """Return the full section as plain values with changes; those of the VAE by vae_NAME."""
    of_vae = {name[4:]: value for name, value in changes.items() if name.startswith("vae_")}
    others = {name: value for name, value in changes.items() if not name.startswith("vae_")}
    return {**FULL, **others, "vae": {**FULL["vae"], **of_vae}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"two_phase": True}, "did you mean 'pretrained.two_phase_training'"),
        ({"vae_modelname": "x"}, "did you mean 'pretrained.vae.model_name'"),
        ({"layer_lr_multipliers": {"vae_encodr": 1}}, "'vae_encodr'; did you mean 'vae_encoder'"),
        ({"layer_lr_multipliers": {"unet": 0}}, "multipliers.unet=0.0; expected more than 0"),
        ({"layer_lr_multipliers": {"unet": "x"}}, "layer_lr_multipliers: expected float, got x"),
        ({"vae_method": "sdd"}, "pretrained.vae.method='sdd'; did you mean 'sd'"),
        ({"vae_method": "tae"}, "method='tae', but stabilityai/sd-vae-ft-mse is of family 'sd'"),
        ({"vae_inflate_method": "centre"}, "did you mean 'central'"),
        ({"vae_model_name": None}, "pretrained.vae.model_name is missing"),
        ({"vae_model_name": "THUDM/CogVideoX-5b"}, "of family 'cogvideox', which this training"),
        ({"vae_model_name": "x.pt", "vae_method": "hunyuan"}, "of family 'hunyuan', which this"),
        ({"vae_freeze_epochs": -1}, "freeze_epochs=-1; expected 0 or more"),
        ({"vae_freeze_epochs": 1.5}, "vae.freeze_epochs: expected int, got 1.5"),
        ({"phase1_epochs": 0}, "phase1_epochs=0; expected 1 or more"),
        ({"phase1_epochs": None}, "two_phase_training needs pretrained.phase1_epochs"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(ValueError) as caught:
        parse(tmp_path, {"pretrained": changed(**changes)})
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"phases": [{"steps": 5}, {"lr_multiplier": 2.0}]}, "phase1_epochs=10 and phases both"),
        ({"train": ["decoder"]}, "phase1_epochs=10 and train both say what trains"),
        ({"lr_multipliers": {"encoder": 0.5}}, "layer_lr_multipliers and lr_multipliers both"),
    ],
)
def test_the_section_and_the_runs_own_settings_must_not_say_the_same(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        parse(tmp_path, {"pretrained": FULL, **content})
    off = changed(use_pretrained=False)
    assert not parse(tmp_path, {"pretrained": off, **content}).pretrained.is_used


def test_weights_of_another_family_are_refused_by_name_alone_too(tmp_path):
    with pytest.raises(ValueError, match=r"OpenSora-VAE-v1\.2 are weights of family 'opensora'"):
        parse(tmp_path, {"pretrained": "hpcai-tech/OpenSora-VAE-v1.2"})
    assert parse(tmp_path, {"pretrained": "sd-vae"}).start_weights().family() == "sd"


# -- finding the weights ---------------------------------------------------------------------------


def test_files_come_before_public_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd-vae").mkdir()
    monkeypatch.setattr("mg.training.pretrained.fetch", lambda name: Path("fetched") / name)
    there = PretrainedVAESettings(model_name="sd-vae")
    assert find_start_weights(there) == Path("sd-vae")
    public = PretrainedVAESettings(model_name="sdxl-vae")
    assert find_start_weights(public) == Path("fetched/sdxl-vae")


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("none.ckpt", "auto", "weights not found: none.ckpt does not exist$"),
        ("stabilityai/sd-vae-ft-ms", "auto", "did you mean 'stabilityai/sd-vae-ft-mse'"),
        ("stabilityai/sd-vae-ft-mse", "local", "sd-vae-ft-mse does not exist$"),
    ],
)
def test_weights_that_are_nowhere_are_told(tmp_path, monkeypatch, name, method, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        find_start_weights(PretrainedVAESettings(model_name=name, method=method))


# -- a run -----------------------------------------------------------------------------------------

TINY = TAEConfig(
    ch=4,
    ch_mult=(1,),
    num_res_blocks=1,
    z_channels=4,
    norm_groups=2,
    attn_type="spat_only",
    temporal_downsample_level=(),
    temporal_upsample_level=(),
    scaling_factor=0.18215,
    shift_factor=0.0,
)


@pytest.fixture
def image_vae(tmp_path, monkeypatch) -> str:
    """Return the public name of a small random image VAE that lies where fetched weights do."""
    monkeypatch.setenv("MG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "weights" / "sd-vae"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.1, shape).astype(np.float32)
        for name, shape in image_vae_shapes(TINY.to_dict()).items()
    }
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", tensors)
    config = {
        "norm_num_groups": 2,
        "block_out_channels": [4],
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return "stabilityai/sd-vae-ft-mse"


def test_the_first_phase_keeps_the_image_vae_bit_for_bit(
    make_config, image_vae, tmp_path, in_graph_mode, monkeypatch
):
    """Two clips: an epoch has two steps. The run is ended behind the first phase."""
    settings = section(vae_model_name=image_vae, vae_freeze_epochs=0, phase1_epochs=1)
    config = dataclasses.replace(
        make_config(tmp_path / "out", freeze=[], model=TINY, steps=3, pretrained=settings),
        validation=ValidationSettings(),
        loss=LossSettings(perceptual_loss_weight=0),
    )
    trainer = AutoencoderTrainer(config)
    stages = trainer.task.stages
    assert [stage.end for stage in stages] == [2, 3]
    start = trainer.task.autoencoder.tensors()
    monkeypatch.setattr(trainer, "_must_end", lambda: trainer.step == stages[0].end)
    trainer.run()
    after = trainer.task.autoencoder.tensors()
    spatial = [name for name in start if ".conv_temp." not in name]
    assert len(spatial) == len(image_vae_shapes(TINY.to_dict())) > 40
    assert all(np.array_equal(start[name], after[name]) for name in spatial)
    temporal = [name for name in start if ".conv_temp." in name]
    moved = [name for name in temporal if not np.array_equal(start[name], after[name])]
    assert len(moved) > 0.8 * len(temporal) > 10
    trainer.task.enter(stages[1])
    assert len(trainer.task.steps["tae"].parameters) == len(start)


def test_a_run_saves_what_the_section_became(make_config, image_vae, tmp_path, monkeypatch):
    settings = section(vae_model_name=image_vae, vae_freeze_epochs=0, phase1_epochs=1)
    config = make_config(tmp_path / "out", freeze=[], model=TINY, pretrained=settings)
    trainer = AutoencoderTrainer(config)
    monkeypatch.setattr(trainer, "validate", lambda: None)
    monkeypatch.setattr(trainer, "_train", lambda: None)  # no step is needed for this
    trainer.run()
    path = tmp_path / "out" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    assert saved["lr_multipliers"] == {"vae_encoder": 0.1, "vae_decoder": 0.2}
    assert [phase["steps"] for phase in saved["phases"]] == [2, None]
    assert saved["pretrained"]["vae"]["model_name"] == image_vae
    again = parse_config(TrainTAEConfig, ["--config", str(path)], description="")
    assert again == trainer.config
    tensors = AutoencoderTrainer(
        dataclasses.replace(again, overwrite=True)
    ).task.autoencoder.tensors()
    start = trainer.task.autoencoder.tensors()
    assert all(np.array_equal(start[name], tensors[name]) for name in start)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae_method": "tae"}, "method='tae', but these are weights of family 'sd'"),
        ({"vae_inflate_method": "average"}, None),
    ],
)
def test_method_and_inflation_reach_the_weights(make_config, image_vae, tmp_path, changes, message):
    folder = str(tmp_path / "cache" / "weights" / "sd-vae")
    given = {
        "vae_model_name": folder,
        "vae_freeze_epochs": 0,
        "layer_lr_multipliers": {},
        **changes,
    }
    settings = section(two_phase_training=False, phase1_epochs=None, **given)
    config = make_config(tmp_path / "out", freeze=[], model=None, pretrained=settings)
    if message is not None:
        with pytest.raises(ValueError, match=message):
            AutoencoderTrainer(config)
        return
    central = read_tae(folder)[0]
    tensors = AutoencoderTrainer(config).task.autoencoder.tensors()
    differ = [name for name in central if not np.array_equal(central[name], tensors[name])]
    assert differ and all(".conv_temp." in name for name in differ)
