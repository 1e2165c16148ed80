"""Which weights the training of an autoencoder starts from, and which are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from mg.parallel.ranks import Ranks
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    LossSettings,
    OptimSettings,
    TrainVAEConfig,
)
from mg.training.autoencoder.autoencoder_task import AutoencoderTask
from mg.training.autoencoder.autoencoder_weights import load_start_weights
from mg.training.pretrained import PretrainedSettings, PretrainedVAESettings
from mg.training.settings import PhaseSettings
from mg.vaes import VideoVAE
from mg.weights.own_tensors import read_own_tensors

FIXTURES = Path(__file__).parents[1] / "fixtures"
CAUSAL = FIXTURES / "causal_vae"
KL = FIXTURES / "vaes" / "kl"
# Family -> a folder with weights.
FOLDERS = {
    "sd": KL,
    "cogvideox": FIXTURES / "vaes" / "cogvae",
    "hunyuan": FIXTURES / "vaes" / "hyvae",
    "wan": FIXTURES / "wan" / "wan21",
    "causal_vae": CAUSAL / "v1.1",
    "dc_ae": FIXTURES / "dc_ae",
}


def settings(weights, **model):
    return TrainVAEConfig(
        output_path="out", video_folder="clips", model={**model, "from_pretrained": str(weights)}
    )


def test_a_causal_vae_starts_from_an_image_vae(videos, tmp_path):
    """`mg train-vae --model.family causal_vae --pretrained SD_VAE`."""
    config = TrainVAEConfig(
        output_path=str(tmp_path / "out"),
        video_folder=str(videos / "train"),
        model={"family": "causal_vae"},
        pretrained=str(KL),
        data=DataSettings(sample_n_frames=5, size=16, num_workers=0),
        loss=LossSettings(perceptual_loss_weight=0.0),
        optim=OptimSettings(lr=1e-3),
        steps=1,
        device="CPU",
    )
    task = AutoencoderTask(config, Ranks())
    assert task.autoencoder.config.widths == [16, 32]
    assert task.next_command(tmp_path).endswith("--image_size 16")
    image = read_own_tensors(KL)
    weight = task.autoencoder.tensors()["encoder.conv_in.conv.weight"]
    assert np.array_equal(weight[:, :, -1], image["encoder.conv_in.weight"])
    assert not weight[:, :, :-1].any()


@pytest.mark.parametrize("states_config", [False, True])
def test_the_averaged_weights_of_v1_2_are_those_to_start_from(states_config):
    fields = json.loads((CAUSAL / "v1.2" / "config.json").read_text()) if states_config else {}
    tensors, config = load_start_weights(settings(CAUSAL / "v1.2", family="causal_vae", **fields))
    averaged = read_own_tensors(CAUSAL / "v1.2", key="ema_state_dict")
    assert config.hidden_size == 4 and tensors.keys() == averaged.keys()
    assert all(np.array_equal(array, averaged[name]) for name, array in tensors.items())


@pytest.mark.parametrize("wanted", ["tae", *FOLDERS])
@pytest.mark.parametrize("given", FOLDERS)
@pytest.mark.parametrize("states_config", [False, True])
def test_weights_of_another_family_are_refused_in_one_line(wanted, given, states_config):
    if given == wanted or (given == "sd" and wanted in ("tae", "causal_vae")):
        return
    model = {"family": wanted}
    if states_config and wanted in FOLDERS:
        model |= json.loads((FOLDERS[wanted] / "config.json").read_text())
    elif states_config:
        model |= {"ch": 32}
    with pytest.raises(ValueError, match=f"holds weights of family '{given}'") as caught:
        load_start_weights(settings(FOLDERS[given], **model))
    message = str(caught.value)
    assert f"but the network is of family '{wanted}', which takes: {wanted} (" in message
    assert message.startswith(str(FOLDERS[given])) and "\n" not in message


def probe(**_):
    raise AssertionError("videos were probed")


@pytest.fixture
def start(videos, tmp_path, monkeypatch):
    """Return a function that makes the task of settings, in which no video may be probed."""
    monkeypatch.setattr("mg.training.autoencoder.autoencoder_task.build_manifest", probe)

    def make(family, weights, **changes):
        config = TrainVAEConfig(
            **{
                "output_path": str(tmp_path / "out"),
                "video_folder": str(videos / "train"),
                "model": {"family": family},
                "pretrained": str(FOLDERS[weights or family]),
                "loss": LossSettings(perceptual_loss_weight=0.0),
                "device": "CPU",
                **changes,
            }
        )
        return AutoencoderTask(config, Ranks())

    return make


@pytest.mark.parametrize("family", ["hunyuan", "cogvideox", "dc_ae", "sd"])
@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"train": ["temporal"]}, "train"),
        ({"freeze": ["temporal"]}, "freeze"),
        ({"phases": [{"steps": 1, "train": ["temporal"]}, {}]}, r"phases\.train"),
        ({"freeze_epochs": 2}, r"pretrained\.vae\.freeze_epochs=2"),
    ],
)
def test_layers_along_time_that_a_family_has_not_are_told_at_once(start, family, changes, setting):
    if "freeze_epochs" in changes:
        vae = PretrainedVAESettings(model_name=str(FOLDERS[family]), **changes)
        changes = {"pretrained": PretrainedSettings(vae=vae)}
    if "phases" in changes:
        changes = {"phases": [PhaseSettings(**phase) for phase in changes["phases"]]}
    message = f"^{setting}: 'temporal' stands for layers .* of the family '{family}' has none; name"
    with pytest.raises(ValueError, match=message) as caught:
        start(family, None, **changes)
    assert "\n" not in str(caught.value)


def test_a_network_whose_samplers_have_no_weights_has_no_layers_along_time(start):
    vae = PretrainedVAESettings(model_name=str(KL), freeze_epochs=1)
    with pytest.raises(ValueError, match=r"freeze_epochs=1: 'temporal' stands .* has none"):
        start("causal_vae", "sd", pretrained=PretrainedSettings(vae=vae))
    with pytest.raises(ValueError, match=r"^train: no parameter matches 'decodr'; did you mean"):
        start("causal_vae", "sd", train=["decodr"])


def test_weights_of_another_version_are_refused_in_one_line(start, monkeypatch):
    fields = json.loads((CAUSAL / "v1.1" / "config.json").read_text())
    monkeypatch.undo()
    data = DataSettings(sample_n_frames=5, size=16, num_workers=0)
    model = {"family": "causal_vae", **fields}
    with pytest.raises(ValueError, match="encoder_conv_in is Conv2d in the config") as caught:
        start("causal_vae", None, model=model, pretrained=str(CAUSAL / "v1.0"), data=data)
    assert str(caught.value).startswith(str(CAUSAL / "v1.0")) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="encoder_conv_in is Conv2d in the config") as caught:
        VideoVAE.from_pretrained(CAUSAL / "v1.0", config=fields)
    assert str(caught.value).startswith(str(CAUSAL / "v1.0")) and "\n" not in str(caught.value)
