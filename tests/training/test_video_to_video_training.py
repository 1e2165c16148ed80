"""A denoiser and the VAE under it: two phases, losses that are kept apart, what does not fit."""

import dataclasses
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import yaml
from mindspore import Tensor, nn, ops

from mg.cli import config_of_mapping, config_to_yaml
from mg.commands import train
from mg.commands.train import has_pretrained_section
from mg.data.edit_pairs import EditPairDataset, find_edit_pairs
from mg.data.video_writer import write_video
from mg.losses.perceptual import PerceptualLoss
from mg.models.families import AUTOENCODERS, autoencoder_family
from mg.models.perceptual import LPIPS, LPIPSConfig
from mg.models.reading import read_autoencoder
from mg.parallel.ranks import ONE_RANK
from mg.pipelines.video_to_video import VideoToVideo
from mg.shipped import find_shipped
from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.checkpoint_store import CheckpointStore
from mg.training.run.run_log import read_log
from mg.training.settings import OptimSettings
from mg.training.step import TrainStep
from mg.training.task import Controls
from mg.training.video_to_video import video_to_video_task
from mg.training.video_to_video.video_to_video_config import TrainVideoToVideoConfig
from mg.training.video_to_video.video_to_video_model import VideoToVideoDiffusion
from mg.training.video_to_video.video_to_video_task import VideoToVideoTask
from mg.training.video_to_video.video_to_video_trainer import VideoToVideoTrainer
from mg.vaes import VideoVAE
from mg.weights.checkpoint_file import write_weights
from mg.weights.stored_config import vae_metadata
from mg.yaml_file import read_yaml
from tests.contract.exercise.family import FAMILY as EXERCISE
from tests.tiny import DENOISERS, TAE_OF_ONE_LEVEL, TRANSFORMER

ROOT = Path(__file__).parents[2]
NUM_PAIRS, NUM_FRAMES, SIZE = 4, 4, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder: pairs of videos (the edit is the negative), their table, a tiny VAE."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = ["video,source,caption"]
    for number in range(NUM_PAIRS):
        t, y, x = np.mgrid[:NUM_FRAMES, :SIZE, :SIZE]
        waves = [127 + 120 * np.sin((x * a + y * number + 3 * t) / 5) for a in (1, 2, 3)]
        frames = np.stack(waves, axis=-1).astype(np.uint8)
        write_video(folder / f"source{number}.mp4", frames, fps=8, lossless=True)
        write_video(folder / f"edit{number}.mp4", 255 - frames, fps=8, lossless=True)
        rows.append(f"edit{number}.mp4,source{number}.mp4,negate it")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    ms.set_seed(1)
    network = autoencoder_family("tae").build(TAE_OF_ONE_LEVEL)
    save_final_weights(folder / "vae.safetensors", network.tensors(), TAE_OF_ONE_LEVEL.to_dict())
    return folder


def settings_of(folder, output_path, **changes):
    """Return the content of a YAML file of two phases of two steps each."""
    denoiser = {**TRANSFORMER, "family": "movie_gen", "position_table": [2, 8, 8]}
    return {
        "output_path": str(output_path),
        "csv_path": str(folder / "pairs.csv"),
        "steps": 4,
        "checkpoint_interval": 2,
        "keep_checkpoints": 3,
        "device": "CPU",
        "pretrained": {
            "use_pretrained": True,
            "vae": {"model_name": str(folder / "vae.safetensors"), "method": "auto"},
            "two_phase_training": True,
            "phase1_epochs": 1,
            "layer_lr_multipliers": {"vae_encoder": 0.1, "vae_decoder": 0.1, "unet": 1.0},
        },
        "model": {**denoiser, "latent_dim": 4, "in_channels": 3},
        "data": {"batch_size": 2, "resolution": [SIZE, SIZE], "sample_n_frames": NUM_FRAMES},
        "text": {"encoders": ["word,width=32,max_tokens=4"]},
        "optim": {"lr": 1e-3, "ema_decay": None},
        "sampling": {"steps": 2, "guidance": 1.0},
        **changes,
    }


def config_of(folder, output_path, **changes):
    return config_of_mapping(TrainVideoToVideoConfig, settings_of(folder, output_path, **changes))


def same(one, other):
    return [key for key in one if np.array_equal(one[key], other[key])]


def test_two_phases(data, tmp_path, in_graph_mode):
    held_out = {"csv_path": str(data / "pairs.csv"), "interval": 2, "num_times": 2, "num_clips": 3}
    config = config_of(data, tmp_path / "run", freeze=["vae.decoder.norm_out"], validation=held_out)
    assert config.batch_size == 2
    trainer = VideoToVideoTrainer(config)
    assert [stage.end for stage in trainer.task.stages] == [2, 4]
    vae, unet = trainer.task.vae, trainer.task.unet
    start, unet_start = vae.tensors(), unet.tensors()
    final = trainer.run()
    # The first phase leaves the VAE as it is; the second trains all but what is frozen.
    store = trainer.state.store
    after_first = store.load(2)
    assert len(same(start, after_first.tensors("vae"))) == len(start)
    assert len(same(unet_start, after_first.tensors("unet"))) < len(unet_start)
    end = vae.tensors()
    frozen = [key for key in start if key.startswith("decoder.norm_out")]
    assert frozen and set(frozen) <= set(same(start, end))
    changed = set(start) - set(same(start, end))
    assert any(key.startswith("encoder") for key in changed)
    assert any(key.startswith("decoder") for key in changed)
    log = read_log(tmp_path / "run" / "log.jsonl")
    assert ["vae_loss" in entry for entry in log] == [False, False, True, True]
    assert all(np.isfinite(entry["loss"]) for entry in log)
    # Held-out pairs are measured before, between and after; the VAE first changes in phase 2.
    measured = read_log(tmp_path / "run" / "validation.jsonl")
    assert [entry["step"] for entry in measured] == [0, 2, 4]
    assert all(np.isfinite(entry["flow_loss"]) for entry in measured)
    assert len({entry["flow_loss"] for entry in measured}) == 3
    names = ["edit0.mp4", "edit1.mp4", "edit2.mp4"]
    assert all(sorted(entry["psnr_per_clip"]) == names for entry in measured)
    qualities = [entry["psnr"] for entry in measured]
    assert qualities[0] == qualities[1] != qualities[2]
    # What is exported has both networks, and edits.
    generator = VideoToVideo.from_pretrained(final)
    assert len(same(end, generator.autoencoder.tensors())) == len(end)
    made = generator(data / "source0.mp4", "negate it", seed=1)
    assert made.frames.shape == (1, NUM_FRAMES, SIZE, SIZE, 3)


@pytest.fixture
def exercise(monkeypatch, tmp_path):
    """Return the weights of an autoencoder of one layer each way."""
    monkeypatch.setitem(AUTOENCODERS, "exercise", "tests.contract.exercise")
    ms.set_seed(0)
    config = EXERCISE.read_config({"channels": 4})
    fields = {"_class_name": EXERCISE.class_names[0], **config.to_dict()}
    path = tmp_path / "vae.safetensors"
    tensors = EXERCISE.build(config).tensors()
    write_weights(path, tensors, metadata=vae_metadata(fields))
    return path


def test_the_vae_learns_the_same_whatever_the_denoiser_does(
    data, tmp_path, exercise, in_graph_mode
):
    ends = []
    for factor in (1.0, 0.1):
        pretrained = {
            "vae": {"model_name": str(exercise)},
            "layer_lr_multipliers": {"unet": factor},
        }
        changes = {"pretrained": pretrained, "data": {"resolution": SIZE, "sample_n_frames": 2}}
        task = VideoToVideoTask(config_of(data, tmp_path / "run", **changes), ONE_RANK)
        start = task.vae.tensors()
        task.enter(task.stages[0])
        controls = Controls(step=0, lr=1e-2, loss_scale=1.0, max_norm=1e9)
        for number in range(2):
            task.run_batch(number, task.dataset.batch(number, 1), controls, is_last=True)
        ends.append((task.vae.tensors(), task.unet.tensors()))
    (vae, unet), (other_vae, other_unet) = ends
    assert len(same(vae, other_vae)) == len(vae) and len(same(vae, start)) == 0
    assert len(same(unet, other_unet)) < len(unet)


class Denoiser(nn.Cell):
    """A velocity of each pixel of the latent from itself and the time."""

    def __init__(self, channels):
        super().__init__()
        self.inner, self.outer = nn.Dense(channels + 1, 32), nn.Dense(32, channels)

    def construct(self, latent, t):
        pixels = latent.transpose(0, 2, 3, 4, 1)  # (B, T, H, W, C)
        time = ops.broadcast_to(t.reshape(-1, 1, 1, 1, 1), (*pixels.shape[:-1], 1))
        hidden = ops.relu(self.inner(ops.concat([pixels, time], axis=-1)))
        return self.outer(hidden).transpose(0, 4, 1, 2, 3)


class FlowOfVideos(nn.Cell):
    """The flow loss of videos: through the encoder, as is not done here, or not."""

    def __init__(self, autoencoder, network, *, stops):
        super().__init__(auto_prefix=False)
        self.autoencoder, self.flow, self.stops = autoencoder, FlowLoss(network), stops

    def construct(self, video, noise, times):
        mean, _ = self.autoencoder.moments(video)
        if self.stops:
            mean = ops.stop_gradient(mean)
        return self.flow(mean, mean * 0, noise, noise, times)


@pytest.mark.parametrize("stops", [False, True])
def test_a_flow_loss_through_the_encoder_collapses_the_latents(stops, in_graph_mode):
    ms.set_seed(0)
    vae, denoiser = EXERCISE.build(EXERCISE.read_config({"channels": 4})), Denoiser(4)
    rng = np.random.default_rng(0)
    video = Tensor(rng.uniform(-2, 2, (8, 3, 1, 8, 8)).astype(np.float32))
    before = vae.moments(video)[0].asnumpy()
    step = TrainStep(
        FlowOfVideos(vae, denoiser, stops=stops),
        OptimSettings(ema_decay=None),
        parameters=[*vae.down.get_parameters(), *denoiser.get_parameters()],
    ).set_train()
    scalars = [Tensor(value, ms.float32) for value in (1e-2, 1.0, 1e9)]
    for _ in range(300):
        noise = Tensor(rng.standard_normal(before.shape, np.float32))
        times = Tensor(rng.uniform(0, 1, 8).astype(np.float32))
        step(*scalars, True, video, noise, times)
    spread = vae.moments(video)[0].asnumpy().std(axis=0).mean() / before.std(axis=0).mean()
    # Latents of all clips become one and the same, which is easy to predict and says nothing.
    assert spread == 1 if stops else spread < 0.05


def test_model_from_a_yaml_file_with_another_vae(data, tmp_path):
    text = config_to_yaml(config_of(data, tmp_path / "run"))
    config = yaml.safe_load(text)
    model = VideoToVideoDiffusion(config, load_pretrained=True)
    assert model.unet.config.latent_channels == 4 and model.unet.config.condition_channels == 4
    vae = VideoVAE.from_pretrained(data / "vae.safetensors")
    unet = model.unet
    model.vae = vae
    assert model.vae is vae.network and model.unet is unet
    without = VideoToVideoDiffusion(config)
    with pytest.raises(ValueError, match="has no VAE yet"):
        _ = without.vae
    other = dataclasses.replace(TAE_OF_ONE_LEVEL, z_channels=2)
    with pytest.raises(ValueError, match=r"model.latent_dim=4, but the latents of the VAE"):
        without.vae = autoencoder_family("tae").build(other)
    frames = np.zeros((NUM_FRAMES, SIZE, SIZE, 3), np.uint8)
    made = model.pipeline()(frames, prompt="negate it")
    assert made.frames.shape == (1, *frames.shape) and made.settings.steps == 2
    model.save_pretrained(tmp_path / "saved")
    again = VideoToVideo.from_pretrained(tmp_path / "saved")
    assert len(same(model.unet.tensors(), again.transformer.tensors())) == len(unet.tensors())
    again.save_pretrained(tmp_path / "twice")
    twice = VideoToVideo.from_pretrained(tmp_path / "twice")
    assert twice.conditions.names == ("source",) and twice.defaults == again.defaults
    for network, other in (
        (again.transformer, twice.transformer),
        (again.autoencoder, twice.autoencoder),
    ):
        assert len(same(network.tensors(), other.tensors())) == len(network.tensors())


def test_a_model_needs_the_sections_that_describe_it_alone(data):
    """Those of a guide to training on pretrained VAEs, without a place to train in."""
    config = {
        "pretrained": {
            "use_pretrained": True,
            "vae": {
                "enabled": True,
                "model_name": str(data / "vae.safetensors"),
                "method": "auto",
                "inflate_method": "central",
                "freeze_epochs": 5,
            },
            "two_phase_training": True,
            "phase1_epochs": 10,
            "layer_lr_multipliers": {"vae_encoder": 0.1, "vae_decoder": 0.1, "unet": 1.0},
        },
        "data": {"batch_size": 1, "resolution": [SIZE, SIZE]},
        "model": {"latent_dim": 4, "in_channels": 3},
    }
    model = VideoToVideoDiffusion(config, load_pretrained=True)
    assert model.family.name == "unet" and model.unet.config.latent_channels == 4
    assert model.pipeline().transformer is model.unet
    for name, others in (("output_path", {}), ("csv_path", {"output_path": "out"})):
        without = VideoToVideoDiffusion({**config, **others})
        with pytest.raises(ValueError, match=f"^{name} is not set, and training needs it$"):
            VideoToVideoTrainer(without.config)
    with pytest.raises(ValueError, match="csv_path"):  # the settings of a run state both
        config_of_mapping(TrainVideoToVideoConfig, {**config, "output_path": "out"})


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("model", {"latent_dim": 8}, r"model.latent_dim=8, but the latents .* have 4 channels"),
        ("model", {"in_channels": 1}, r"model.in_channels=1, but the videos .* have 3 channels"),
        ("model", {"num_layer": 8}, "num_layers"),
        ("data", {"resolution": [8, 9]}, "data.resolution=.*width 9 is not a multiple"),
        ("data", {"sample_n_frames": 5}, "no clip has the 5 frames"),
        ("data", {"batch_size": 0}, "data.batch_size=0; expected 1 or more"),
        ("pretrained", {"use_pretrained": False}, "starts from a VAE's weights"),
        ("pretrained", {"phase1_epochs": 2}, "leaves none of steps=4"),
        ("validation", {"csv_path": "none.csv"}, "validation: .*none.csv"),
        ("validation", {"video_folder": "there"}, "no effect without validation.csv_path"),
    ],
)
def test_settings_that_do_not_fit(data, tmp_path, section, change, message):
    settings = settings_of(data, tmp_path / "run")
    settings[section] = {**settings.get(section, {}), **change}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        VideoToVideoTask(config_of_mapping(TrainVideoToVideoConfig, settings), ONE_RANK)


def test_the_vae_may_learn_from_lpips(data, tmp_path, exercise, in_graph_mode, monkeypatch):
    asked = []

    def small_lpips(settings, sizes):
        asked.append((settings.perceptual_loss_weight, list(sizes)))
        return PerceptualLoss(LPIPS(LPIPSConfig("vgg", (8,) * 5)))

    monkeypatch.setattr(video_to_video_task, "load_perceptual", small_lpips)
    losses = []
    for weight in (0.0, 1.0):
        config = config_of(
            data,
            tmp_path / "run",
            pretrained={"vae": {"model_name": str(exercise)}},
            data={"resolution": 32, "sample_n_frames": 2},
            loss={"perceptual_loss_weight": weight, "lpips_num_frames": 1},
        )
        task = VideoToVideoTask(config, ONE_RANK)
        task.enter(task.stages[0])
        controls = Controls(step=0, lr=1e-2, loss_scale=1.0, max_norm=1e9)
        batch = task.dataset.batch(0, 1)
        losses.append(task.run_batch(0, batch, controls, is_last=True)["vae_loss"])
    assert asked == [(1.0, [(32, 32)])] and losses[1] > losses[0] > 0


def test_both_sizes_of_a_batch_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size=3 and data.batch_size=2 are the same"):
        config_of(data, tmp_path, batch_size=3)


def test_pairs_are_cut_alike(data):
    dataset = EditPairDataset(
        find_edit_pairs(data / "pairs.csv"),
        config_of_pairs(),
        text_dropout=0.5,
        source_dropout=0.5,
    )
    dataset = pickle.loads(pickle.dumps(dataset))  # as workers get it
    kept = []
    for step in range(10):
        batch = dataset.batch(step, 2)
        np.testing.assert_allclose(batch.frames, -batch.sources, atol=0.05)  # the negative
        kept += batch.has_source.tolist()
        assert set(batch.captions) <= {"", "negate it"}
    assert 4 <= sum(kept) <= 16


def config_of_pairs():
    from mg.data.clips import ClipConfig

    return ClipConfig(sample_n_frames=2, size=8, crop="random")


def test_a_source_of_another_length_is_refused(data, tmp_path):
    for name, num_frames in (("a.mp4", 4), ("b.mp4", 5)):
        write_video(tmp_path / name, np.zeros((num_frames, 16, 16, 3), np.uint8), fps=8)
    table = tmp_path / "pairs.csv"
    table.write_text("video,source,caption\na.mp4,b.mp4,darker\n")
    with pytest.raises(ValueError, match=r"a.mp4 has num_frames 4 and its source b.mp4 5"):
        find_edit_pairs(table)
    table.write_text("video,source,caption\na.mp4,c.mp4,darker\n")
    with pytest.raises(ValueError, match=r"c.mp4 cannot be used"):
        find_edit_pairs(table)
    table.write_text("video,caption\na.mp4,darker\n")
    with pytest.raises(ValueError, match="no column `source`"):
        find_edit_pairs(table)


def test_which_training_settings_ask_for(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("pretrained:\n  use_pretrained: true\n")
    assert has_pretrained_section(["--config", str(path)])
    assert has_pretrained_section([f"--config={path}"])
    assert has_pretrained_section(["--pretrained.phase1_epochs=2"])
    path.write_text("pretrained: outputs/generator\n")
    assert not has_pretrained_section(["--config", str(path), "--pretrained", "x"])


def test_the_config_file_is_one_of_this_training():
    path = find_shipped("configs/movie_gen/train/video_to_video.yaml")
    assert has_pretrained_section(["--config", str(path)])
    config = config_of_mapping(TrainVideoToVideoConfig, read_yaml(path))
    assert config.pretrained.frozen_epochs == ("phase1_epochs", 10)
    assert config.data.height_width == (128, 128)


GUIDE = """
pretrained:
  use_pretrained: true  # Enable pretrained weights

  vae:
    enabled: true
    model_name: '{vae}'
    method: 'auto'
    inflate_method: 'central'  # For SD VAE only
    freeze_epochs: 5  # Freeze VAE for first N epochs

  two_phase_training: true  # Recommended
  phase1_epochs: 2  # Train U-Net only first

  layer_lr_multipliers:
    vae_encoder: 0.1  # 10% of base LR
    vae_decoder: 0.1
    unet: 1.0  # 100% of base LR

data:
  batch_size: 2
  resolution: [8, 8]
  sample_n_frames: 2

model:
  latent_dim: 4  # Match pretrained VAE
  in_channels: 3
  {unet}

csv_path: {table}
output_path: out
steps: 6
checkpoint_interval: 4
keep_checkpoints: 2
mode: pynative
device: CPU
text: {{encoders: ["word,width=32,max_tokens=4"]}}
optim: {{lr: 1.0e-3, ema_decay: null}}
"""


def test_the_guides_command_and_section(data, tmp_path, monkeypatch, caplog, pynative_mode):
    """`train.py --config config/train_config.yaml`; an epoch has two steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "setup_device", lambda config: "CPU")  # it is set up already
    fields = {name: value for name, value in DENOISERS["unet"].items() if name != "text_encoders"}
    text = GUIDE.format(
        vae=data / "vae.safetensors",
        table=data / "pairs.csv",
        unet="\n  ".join(f"{name}: {value}" for name, value in fields.items()),
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "train_config.yaml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", "config/train_config.yaml"])
    with caplog.at_level("INFO", "mg"):
        runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert "freeze_epochs=5 has no effect: two_phase_training is on" in caplog.text
    log = read_log(tmp_path / "out" / "log.jsonl")
    assert ["vae_loss" in entry for entry in log] == [False] * 4 + [True] * 2
    written = read_yaml(tmp_path / "out" / "config.yaml")
    assert written["lr_multipliers"] == {"vae_encoder": 0.1, "vae_decoder": 0.1, "unet": 1.0}
    start = read_autoencoder(data / "vae.safetensors").tensors
    store = CheckpointStore(tmp_path / "out" / "checkpoints", keep=2)
    assert len(same(start, store.load(4).tensors("vae"))) == len(start)
    end = store.load(6).tensors("vae")
    assert len(same(start, end)) == 0
    # Adam's first steps are about as long as the learning rate, of which the VAE has a tenth.
    assert 0 < max(np.abs(end[name] - start[name]).max() for name in start) < 3 * 0.1 * 1e-3
    made = VideoToVideo.from_pretrained(tmp_path / "out" / "generator")
    assert made.family.name == "unet"


def test_a_resumed_run_of_both_is_the_unbroken_one(data, tmp_path, exercise, in_graph_mode):
    pretrained = {"vae": {"model_name": str(exercise), "freeze_epochs": 1}}
    config = config_of(
        data,
        tmp_path / "run",
        pretrained=pretrained,
        data={"resolution": SIZE, "sample_n_frames": 2, "batch_size": 4},
        checkpoint_interval=3,
        optim={"lr": 1e-3, "ema_decay": 0.9},
    )
    unbroken = VideoToVideoTrainer(config)
    unbroken.run()
    ends = [unbroken.task.vae.tensors(), unbroken.task.unet.tensors()]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000004")
    # With the settings that the run has written, in which the section is resolved into phases.
    written = read_yaml(tmp_path / "run" / "config.yaml")
    resumed = VideoToVideoTrainer(
        config_of_mapping(TrainVideoToVideoConfig, {**written, "resume": True})
    )
    assert resumed.step == 3 and set(resumed.task.steps) == {"unet", "vae"}
    resumed.run()
    for end, again in zip(
        ends, [resumed.task.vae.tensors(), resumed.task.unet.tensors()], strict=True
    ):
        assert len(same(end, again)) == len(end)
