"""A small decoder for a frozen encoder's latents: what comes from where, and what is written."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.losses.attention_transfer import attention_transfer_loss
from mg.models.tae.config import TAEConfig
from mg.models.tae.tae import TemporalAutoencoder
from mg.pipelines.autoencoder import config_hash
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    LossSettings,
    OptimSettings,
    PretrainedSettings,
    PretrainedVAESettings,
    TrainVAEConfig,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.training.autoencoder.autoencoder_weights import load_start_weights
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.run_log import read_log
from mg.vaes import VideoVAE
from mg.vaes.video_vae import family_class
from mg.weights.checkpoint_file import read_weights
from mg.weights.tae_names import infer_tae_config
from tests.tiny import AUTOENCODERS as TINY
from tests.tiny import TAE_OF_ONE_LEVEL

ROOT = Path(__file__).parents[2]
TEACHER = TAE_OF_ONE_LEVEL


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return the path of a TAE with random weights."""
    path = tmp_path_factory.mktemp("teacher") / "tae.safetensors"
    save_final_weights(path, TemporalAutoencoder(TEACHER).tensors(), TEACHER.to_dict())
    return path


def make_config(videos, folder, weights, *, model, parts=("encoder",), **changes):
    section = PretrainedSettings(
        vae=PretrainedVAESettings(model_name=str(weights), parts=list(parts))
    )
    return TrainVAEConfig(
        output_path=str(folder),
        video_folder=str(videos / "train"),
        model=model,
        pretrained=section,
        freeze=list(parts),
        device="CPU",
        steps=2,
        data=DataSettings(sample_n_frames=4, size=16, num_workers=0),
        loss=LossSettings(perceptual_loss_weight=0.0, kl_loss_weight=0.0),
        optim=OptimSettings(lr=1e-2, weight_decay=0.1, ema_decay=None),
        **changes,
    )


@pytest.mark.usefixtures("pynative_mode")
def test_a_smaller_decoder_learns_and_the_encoder_stays(videos, teacher, tmp_path):
    model = {"family": "tae", "decoder_ch": 4}
    trainer = AutoencoderTrainer(make_config(videos, tmp_path / "run", teacher, model=model))
    before = trainer.task.autoencoder.tensors()
    weights = trainer.run()
    student = TemporalAutoencoder(pretrained=weights)
    expected = TemporalAutoencoder(pretrained=teacher).tensors()
    found = student.tensors()
    assert student.config.decoder_ch == 4 and student.config.scaling_factor == 1.5305
    for name, array in found.items():
        if name.startswith("encoder."):
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert found["decoder.conv_out.conv_spat.weight"].shape[1] == 4
    moved = [n for n in found if n.startswith("decoder.") and (found[n] != before[n]).any()]
    assert len(moved) > 20
    # The latents are the teacher's, and the family is read from the file.
    video = Tensor(np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 16, 16)).astype(np.float32))
    mean = TemporalAutoencoder(pretrained=teacher).posterior(video)[0].asnumpy()
    vae = VideoVAE.from_pretrained(weights)
    np.testing.assert_array_equal(vae.encode(video).mean.asnumpy(), mean)
    assert vae.decode(vae.encode(video)).shape == video.shape


def test_a_part_of_the_weights_and_fields_that_differ(videos, tmp_path):
    """Of a family whose own config tells the decoder's width."""
    teacher = family_class("wan").from_tensors
    shapes = family_class("wan").shapes(TINY["wan"])
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    teacher(tensors, TINY["wan"]).save_pretrained(tmp_path / "wan")
    config = make_config(
        videos,
        tmp_path / "run",
        tmp_path / "wan",
        model={"family": "wan", "decoder_base_dim": 2},
        parts=("encoder", "quant_conv"),
    )
    start, network = load_start_weights(config)
    assert {name.split(".")[0] for name in start} == {"encoder", "quant_conv"}
    assert (network.base_dim, network.decoder_base_dim, network.z_dim) == (4, 2, 4)
    assert network.latents_mean == (0.5, -0.5, 0.0, 1.0)  # of the weights' config
    with pytest.raises(ValueError, match="no parameter matches 'encodr'; did you mean 'encoder'"):
        load_start_weights(
            make_config(
                videos, tmp_path, tmp_path / "wan", model={"family": "wan"}, parts=["encodr"]
            )
        )


@pytest.mark.usefixtures("pynative_mode")
def test_features_are_learnt_from_the_teachers_decoder(videos, teacher, tmp_path):
    """The other terms are off but for a trace, so that what improves is the likeness."""
    config = make_config(
        videos, tmp_path / "run", teacher, model={"family": "tae", "decoder_ch": 4}
    )
    terms = {"perceptual_loss_weight": 0.0, "kl_loss_weight": 0.0, "l1_weight": 1e-6}
    config = dataclasses.replace(config, steps=8, loss=LossSettings(**terms, feature_weight=1.0))
    trainer = AutoencoderTrainer(config)
    before = {p.name: p.asnumpy().copy() for p in trainer.task.teacher.get_parameters()}
    trainer.run()
    log = read_log(tmp_path / "run" / "log.jsonl")
    for entry in log:
        assert entry["loss"] == pytest.approx(entry["features"] + 1e-6 * entry["l1"], rel=1e-5)
    likeness = [entry["features"] for entry in log]
    assert likeness[-1] < 0.8 * likeness[0]
    for parameter in trainer.task.teacher.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])
    assert not [
        name for name in read_weights(tmp_path / "run" / "tae.safetensors") if "teach" in name
    ]
    with pytest.raises(ValueError, match="feature_weight compares a new decoder with that of"):
        dataclasses.replace(config, pretrained=str(teacher), freeze=[])


def test_attention_transfer_compares_maps_of_any_width():
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((3, c, 4, 5)).astype(np.float32) for c in (6, 2))
    maps = [np.square(f).mean(1).reshape(3, -1) for f in (first, second)]
    maps = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps]
    expected = np.square(maps[0] - maps[1]).sum(1).mean()
    found = attention_transfer_loss(Tensor(first), Tensor(second)).asnumpy()
    assert found == pytest.approx(expected, rel=1e-5)
    # Neither the scale nor the order of channels counts.
    same = attention_transfer_loss(Tensor(first), Tensor(-3 * first[:, ::-1].copy())).asnumpy()
    assert same == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("pynative_mode")
def test_parts_that_do_not_fit_the_network_are_refused(videos, teacher, tmp_path):
    model = {"family": "tae", "ch": 16}
    with pytest.raises(ValueError, match="ch: the file says 8, the config says 16"):
        AutoencoderTrainer(make_config(videos, tmp_path / "run", teacher, model=model))
    with pytest.raises(ValueError, match="takes nothing; null takes all"):
        PretrainedVAESettings(model_name="weights", parts=[])


def test_the_decoders_width_in_configs_and_in_weights():
    config = TAEConfig(**{**TEACHER.to_dict(), "decoder_ch": 4})
    tensors = TemporalAutoencoder(config).tensors()
    assert infer_tae_config(tensors)["decoder_ch"] == 4
    assert "decoder_ch" not in infer_tae_config(TemporalAutoencoder(TEACHER).tensors())
    same = TAEConfig(**{**TEACHER.to_dict(), "decoder_ch": 8})
    assert same == TEACHER and config_hash(same) != config_hash(config)
    with pytest.raises(ValueError, match=r"decoder_ch=6 .* multiples of norm_groups=4"):
        TAEConfig(**{**TEACHER.to_dict(), "decoder_ch": 6})
    with pytest.raises(ValueError, match="decoder_ch=0; expected a whole number of 1 or more"):
        TAEConfig(**{**TEACHER.to_dict(), "decoder_ch": 0})


def test_the_config_for_wan_runs_on_a_small_wan(videos, tmp_path):
    """The script with the shipped config; only what makes it small and CPU's is changed."""
    tensors = {
        name: 0.1 * np.random.default_rng(len(name)).standard_normal(shape, np.float32)
        for name, shape in family_class("wan").shapes(TINY["wan"]).items()
    }
    family_class("wan").from_tensors(tensors, TINY["wan"]).save_pretrained(tmp_path / "wan")
    # fmt: off
    command = [
        sys.executable, ROOT / "scripts" / "train_vae.py",
        "--config", ROOT / "configs" / "vae" / "train" / "distill_wan_decoder.yaml",
        "--video_folder", videos / "train", "--output_path", tmp_path / "run",
        "--pretrained.vae.model_name", tmp_path / "wan", "--model.decoder_base_dim", "2",
        "--data.bucket_config", '{"16x16": {5: [1.0, 2]}}', "--data.num_workers", "0",
        "--device", "CPU", "--mode", "pynative", "--dtype", "float32", "--steps", "2",
        # LPIPS needs a file that is not shipped.
        "--loss.perceptual_loss_weight", "0", "--optim.warmup_steps", "1",
        "--adversarial.weight", "0.05", "--adversarial.start_step", "1",
        "--adversarial.network", "{kind: video, ch: 4, num_layers: 1, norm_groups: 2}",
    ]
    # fmt: on
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    log = read_log(tmp_path / "run" / "log.jsonl")
    assert len(log) == 2 and all(entry["is_applied"] for entry in log)
    for entry in log:  # the config's weights of the terms
        adversarial = entry["adv_weight"] * entry["adv"]  # nothing before start_step
        terms = entry["l1"] + 0.1 * entry["features"]
        assert entry["features"] > 0
        assert entry["loss"] == pytest.approx(terms + adversarial, rel=1e-4)
    assert ["disc_loss" in entry for entry in log] == [False, True]
    student = VideoVAE.from_pretrained(tmp_path / "run" / "vae")
    assert (student.config["base_dim"], student.config["decoder_base_dim"]) == (4, 2)
    trained = student.tensors()
    kept = [n for n in trained if n.split(".")[0] in ("encoder", "quant_conv", "post_quant_conv")]
    assert len(kept) > 20
    for name in kept:
        np.testing.assert_array_equal(trained[name], tensors[name], err_msg=name)
