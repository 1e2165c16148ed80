"""What a CausalVideoVAE's config.json says of its training, as settings of `mg train-vae`."""

import json
import math
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.cli import save_config
from mg.commands.train_vae import parse
from mg.models.families import autoencoder_family
from mg.training.autoencoder.autoencoder_config import LossSettings
from mg.training.autoencoder.autoencoder_loss import LOSS_TERMS, AutoencoderLoss
from mg.training.autoencoder.stated_training import stated_settings, weights_beside_pixels
from tests.tiny import AUTOENCODERS

ROOT = Path(__file__).parents[2]
SHIPPED = ["--config", str(ROOT / "configs/vae/train/causal_vae.yaml"), "--video_folder", "clips"]
STATED = {
    "_class_name": "CausalVAEModel",
    **AUTOENCODERS["causal_vae"],
    "loss_type": "opensora.models.ae.videobase.losses.LPIPSWithDiscriminator3D",
    "loss_params": {
        "disc_start": 41,
        "disc_weight": 0.25,
        "disc_factor": 2.0,
        "disc_num_layers": 2,
        "disc_loss": "vanilla",
        "kl_weight": 1e-5,
        "logvar_init": 0.5,
        "perceptual_weight": 0.1,
        "pixelloss_weight": 2.0,
        "use_actnorm": True,
        "disc_conditional": False,
        "disc_in_channels": 3,
        "temperature": 1.0,
    },
    "lr": 3e-5,
}


def write(path, **changes):
    path.write_text(json.dumps({**STATED, **changes}))
    return str(path)


def test_all_of_it_is_a_setting_or_warned_about(tmp_path, caplog):
    path = write(tmp_path / "config.json")
    with caplog.at_level("INFO"):
        config = parse([*SHIPPED, "--model.config", path, "--data.size", "64"])
    scale = 3 * 64 * 64 * math.exp(-0.5)
    assert config.loss.kl_loss_weight == pytest.approx(1e-5 / scale, rel=1e-6)
    assert config.loss.perceptual_loss_weight == 0.1
    assert (config.optim.lr, config.adversarial.lr) == (3e-5, 3e-5)
    adversarial = config.adversarial
    assert (adversarial.start_step, adversarial.weight) == (20, 0.5)
    assert adversarial.max_adaptive_weight == pytest.approx(1e4 / scale, rel=1e-6)
    assert (adversarial.loss, adversarial.network.kind) == ("non_saturating", "video")
    assert adversarial.network.num_layers == 2
    for name in ("pixelloss_weight=2.0", "use_actnorm=True", "temperature=1.0"):
        assert f"loss_params.{name} has no effect" in caplog.text
    assert "disc_conditional" not in caplog.text and "disc_in_channels" not in caplog.text
    assert "disc_loss=vanilla" in caplog.text and "joins at step 20" in caplog.text
    assert f"{path} sets optim.lr=3e-05" in caplog.text


def test_flags_win_and_so_does_a_file_that_names_the_config(tmp_path):
    path = write(tmp_path / "config.json")
    flags = ["--model.config", path, "--loss.kl_loss_weight", "1e-9", "--adversarial.lr", "1e-3"]
    config = parse([*SHIPPED, *flags])
    assert (config.loss.kl_loss_weight, config.optim.lr, config.adversarial.lr) == (
        1e-9,
        3e-5,
        1e-3,
    )
    assert parse([*SHIPPED, *flags[:2], "--adversarial", "null"]).adversarial is None

    own = tmp_path / "own.yaml"
    own.write_text(
        f"output_path: out\nvideo_folder: clips\nmodel: {{family: causal_vae, config: {path}}}\n"
        "data: {sample_n_frames: 5, size: 32}\nadversarial: {weight: 0.125}\n"
    )
    config = parse(["--config", str(own)])
    assert (config.adversarial.weight, config.adversarial.network.kind) == (0.125, "video")
    assert config.optim.lr == 3e-5
    save_config(tmp_path / "saved.yaml", config)
    assert parse(["--config", str(tmp_path / "saved.yaml")]) == config


def test_losses_without_a_discriminator_and_of_squares(tmp_path):
    path = write(tmp_path / "a.json", loss_type="losses.SimpleLPIPS", loss_params={"kl_weight": 1})
    assert parse([*SHIPPED, "--model.config", path]).adversarial is None
    path = write(tmp_path / "b.json", loss_params={"disc_factor": 0.0, "loss_type": "l2"})
    config = parse([*SHIPPED, "--model.config", path])
    assert config.adversarial is None
    assert (config.loss.l1_weight, config.loss.mse_weight) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_params": {"disc_start": "abc"}}, "loss_params.disc_start='abc'; expected a whole"),
        ({"loss_params": {"kl_weight": True}}, "loss_params.kl_weight=True; expected a number"),
        ({"loss_params": {"disc_loss": "wgan"}}, "disc_loss='wgan'; expected one of hinge, vanil"),
        ({"loss_params": [1]}, r"loss_params=\[1\]; expected {name: value}"),
        ({"lr": "fast"}, "lr='fast'; expected a number"),
    ],
)
def test_wrong_values_are_named(changes, message, tmp_path):
    path = write(tmp_path / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        parse([*SHIPPED, "--model.config", path])


def test_the_shipped_config_is_that_of_its_release_json():
    config = parse(SHIPPED)
    fields = json.loads((ROOT / "configs/vae/train/causal_vae_release.json").read_text())
    stated = stated_settings(fields, height_width=config.data.height_width, place="release.json")
    assert len(stated) == 7
    for name, value in stated.items():
        found = config
        for part in name.split("."):
            found = getattr(found, part)
        assert found == (value if isinstance(value, str) else pytest.approx(value, rel=0.01)), name


@pytest.mark.usefixtures("pynative_mode")
def test_the_loss_is_open_sora_plans_but_for_a_factor():
    """Equation: sum |x - y| / (B T) + k sum KL / B, as LPIPSWithDiscriminator has it."""
    family = autoencoder_family("causal_vae")
    ms.set_seed(0)
    network = family.build(family.read_config(AUTOENCODERS["causal_vae"]))
    rng = np.random.default_rng(0)
    video = rng.uniform(-1, 1, (2, 3, 5, 16, 8)).astype(np.float32)
    mean, logvar = (
        tensor.asnumpy().astype(np.float64) for tensor in network.moments(Tensor(video))
    )
    noise = rng.standard_normal(mean.shape).astype(np.float32)
    kl_weight = 0.1  # so that KL is a large part of it
    settings = weights_beside_pixels((16, 8), kl_weight=kl_weight)
    loss = AutoencoderLoss(
        network,
        LossSettings(perceptual_loss_weight=0.0, kl_loss_weight=settings["loss.kl_loss_weight"]),
    )
    found, terms, frames = loss(Tensor(video), Tensor(noise), Tensor([0], ms.int32))
    pixels = np.abs(video - frames.asnumpy().astype(np.float64)).sum() / (2 * 5)
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum() / 2
    assert terms[LOSS_TERMS.index("kl")].asnumpy() == pytest.approx(kl, rel=1e-5)
    assert found.asnumpy() * 3 * 16 * 8 == pytest.approx(pixels + kl_weight * kl, rel=1e-5)
    assert kl_weight * kl > 0.01 * pixels
    assert weights_beside_pixels((256, 256), kl_weight=1e-6) == {
        "loss.kl_loss_weight": pytest.approx(1e-6 / 196608, rel=1e-12),
        "adversarial.max_adaptive_weight": pytest.approx(1e4 / 196608, rel=1e-12),
    }
