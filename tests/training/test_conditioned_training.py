"""Training under source videos and known frames: it learns from them, exports, refuses."""

import dataclasses
import json
import re

import mindspore as ms
import numpy as np
import pytest

from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.latent_manifest import build_latent_manifest
from mg.flow.times import time_grid
from mg.flow.validation_loss import validation_losses
from mg.parallel.ranks import ONE_RANK
from mg.pipelines.autoencoder import config_hash, tensors_hash
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_lora import with_lora
from mg.pipelines.video_to_video import VideoToVideo
from mg.training.denoiser import denoiser_data
from mg.training.denoiser.denoiser_config import (
    ConditionSettings,
    FlowValidationSettings,
    LoraSettings,
    SamplingSettings,
    TextSettings,
    TrainDenoiserConfig,
)
from mg.training.denoiser.denoiser_task import DenoiserTask
from mg.training.denoiser.denoiser_trainer import DenoiserTrainer
from mg.training.run.checkpoint import save_final_weights
from mg.training.run.run_log import read_log
from mg.training.settings import OptimSettings
from mg.weights.lora_file import LORA_FILE, read_lora
from mg.weights.tae_layers import tae_shapes
from tests.tae_files import read_tae
from tests.tiny import DENOISERS, TAE, TRANSFORMER

NUM_PAIRS, NUM_STEPS = 24, 40
# HunyuanVideo has a second text input, of one token for the whole caption.
TEXTS = {"hunyuan": ["word,width=32,max_tokens=256", "text,width=32"]}


def write_latent(folder, tensors, name, mean):
    num_frames = 2 * mean.shape[1]
    info = LatentInfo(
        num_frames, 8, 8, 16.0, name, TAE.to_dict(), config_hash(TAE), tensors_hash(tensors), {}
    )
    with LatentWriter(folder / f"{name}.safetensors", info) as writer:
        writer.write(mean.astype(np.float32), np.full(mean.shape, -9.0, np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of pairs: the edit is the negative of the source."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    shapes = tae_shapes(TAE.to_dict())
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_final_weights(folder / "tae.safetensors", tensors, TAE.to_dict())
    for name in ("latents", "first_frames"):
        (folder / name).mkdir()
    rows = []
    for number in range(NUM_PAIRS + 8):
        source = np.repeat(rng.standard_normal((4, 1, 4, 4)), 2, axis=1)
        write_latent(folder / "latents", tensors, f"source{number}.mp4", source)
        write_latent(folder / "latents", tensors, f"edit{number}.mp4", -source)
        first = 1 - source[:, :1]  # unlike the first frame of the whole
        write_latent(folder / "first_frames", tensors, f"edit{number}.mp4", first)
        rows.append(f"edit{number}.mp4,negate it,source{number}")
    header = "video,caption,source"
    (folder / "train.csv").write_text("\n".join([header, *rows[:NUM_PAIRS]]) + "\n")
    (folder / "held_out.csv").write_text("\n".join([header, *rows[NUM_PAIRS:]]) + "\n")
    return folder


def make_config(data, output_path, conditions, **changes):
    values = {
        "csv_path": str(data / "train.csv"),
        "validation": FlowValidationSettings(
            csv_path=str(data / "held_out.csv"), interval=NUM_STEPS, num_times=4, batch_size=8
        ),
        "steps": NUM_STEPS,
        **changes,
    }
    return TrainDenoiserConfig(
        output_path=str(output_path),
        latent_folder=str(data / "latents"),
        tae=str(data / "tae.safetensors"),
        batch_size=8,
        device="CPU",
        model=TRANSFORMER | {"dim": 64},
        text=TextSettings(encoders=["word,width=32"], dropout=0.1),
        conditions=conditions,
        optim=OptimSettings(lr=2e-2, ema_decay=0.9),
        **values,
    )


@pytest.fixture(scope="module")
def finished_run(data, tmp_path_factory):
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    conditions = ConditionSettings(source=True, source_dropout=0.1)
    sampling = SamplingSettings(guidance_drops="text,source")
    output = tmp_path_factory.mktemp("run") / "o"
    trainer = DenoiserTrainer(make_config(data, output, conditions, sampling=sampling))
    trainer.run()
    ms.set_context(mode=before)
    return trainer


def test_the_network_learns_from_the_source(finished_run, pynative_mode):
    losses = [e["flow_loss"] for e in read_log(finished_run.output / "validation.jsonl")]
    task, dataset = finished_run.task, finished_run.task.dataset
    batch = dataset.batch(0, 8)
    assert batch.visual[0].shape == (8, 4, 2, 4, 4)
    assert losses[-1] < 0.8 * losses[0]

    def loss(visual):
        text = [ms.Tensor(array) for array in batch.text]
        values = validation_losses(
            task.network, batch.mean, [*text, ms.Tensor(visual)], times=time_grid(4)
        )
        return values.mean()

    shown = np.stack([dataset.manifest.spec.scale(m) for m in unscaled_sources(batch)])
    assert loss(shown.astype(np.float32)) < 0.9 * loss(np.zeros_like(shown, np.float32))


def unscaled_sources(batch):
    """Return the latents of the sources of a batch, from the edits."""
    return [(TAE.shift_factor - mean) / TAE.scaling_factor for mean in batch.mean]


def test_the_generator_knows_its_conditions_and_takes_them(finished_run, pynative_mode):
    folder = finished_run.output / "generator"
    assert load_generator(folder).conditions.to_dict() == {"source": True, "frames": []}
    index = json.loads((folder / "model_index.json").read_text())
    assert index["conditions"] == {"source": True, "frames": []}
    editor = VideoToVideo.from_pretrained(folder)
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    options = {"steps": 2, "guidance": 2.0}
    edited = editor(frames, "negate it", guidance_drops="text", **options).latents
    pushed = editor(frames, "negate it", guidance_drops="text,source", **options).latents
    np.testing.assert_array_equal(editor(frames, "negate it", **options).latents, pushed)
    others = {
        "other source": editor(255 - frames, "negate it", guidance_drops="text", **options).latents,
        "source dropped too": pushed,
        "without": super(VideoToVideo, editor).__call__("negate it", **options).latents,
    }
    for name, other in others.items():
        assert np.abs(other - edited).max() > 1e-3, name
    for options, message in (
        ({"first_frame": frames[0]}, r"first_frame: this generator was not trained with that"),
        (
            {"guidance_drops": "frames"},
            "frames is not a condition of this generator; it takes text, ",
        ),
        ({"guidance_drops": "frame"}, "expected some of text, source, frames"),
        ({"guidance_drops": "source", "negative_prompt": "x"}, "negative_prompt has no effect"),
    ):
        with pytest.raises(ValueError, match=message):
            editor(frames, "negate it", **options)


def test_a_run_can_start_from_a_generator_with_the_same_conditions_only(
    finished_run, data, tmp_path
):
    start = str(finished_run.output / "generator")
    same = ConditionSettings(source=True)
    task = DenoiserTask(make_config(data, tmp_path / "a", same, pretrained=start), ONE_RANK)
    weight = task.network.tensors()["condition_embedding.weight"]
    assert np.abs(weight).max() > 0
    with pytest.raises(ValueError, match="trained with source beside the latent; here are frames"):
        DenoiserTask(
            make_config(data, tmp_path / "b", ConditionSettings(mask=1.0), pretrained=start),
            ONE_RANK,
        )


def test_first_frames_come_from_their_own_latents_and_others_from_the_video(data, tmp_path):
    conditions = ConditionSettings(
        first_frame=0.5, suffix=0.4, first_frame_folder=str(data / "first_frames")
    )
    dataset = DenoiserTask(make_config(data, tmp_path / "a", conditions), ONE_RANK).dataset
    assert dataset.visual.conditions.frame_modes == ("first_frame", "suffix")
    kinds = set()
    for number in range(4):
        batch = dataset.batch(number, 8)
        for mean, shown in zip(batch.mean, batch.visual[0], strict=True):
            known = tuple(shown[4, :, 0, 0])
            kinds.add(known)
            first = mean[:, :1] + TAE.scaling_factor
            expected = {(1, 0): first, (0, 1): mean[:, 1:], (0, 0): mean[:, :0]}[known]
            found = shown[:4, np.array(known) > 0]
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert kinds == {(1, 0), (0, 1), (0, 0)}


@pytest.mark.parametrize(
    ("conditions", "table", "message"),
    [
        ({"first_frame": 0.5}, None, "--max_frames 1 "),
        ({"first_frame": 0.7, "mask": 0.7}, None, "sum up to more than 1"),
        ({"source_dropout": 1.0, "source": True}, None, "source_dropout=1.0; expected 0 to below"),
        ({"first_frame_folder": "x"}, None, "has no effect with conditions.first_frame=0"),
        ({"source": True}, "video,caption\nedit0.mp4,x\n", "has no column `source`"),
        (
            {"source": True},
            "video,caption,source\nedit0.mp4,x,nowhere.mp4\n",
            r"its source nowhere.mp4 has no latent",
        ),
        (
            {"source": True},
            "video,caption,source\nedit0.mp4,x,short.mp4\n",
            r"its source short.mp4 is 1x4x4 .* and it is 2x4x4",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(data, tmp_path, conditions, table, message):
    tensors, _ = read_tae(data / "tae.safetensors")
    if not (data / "latents" / "short.mp4.safetensors").exists():
        write_latent(data / "latents", tensors, "short.mp4", np.zeros((4, 1, 4, 4)))
    changes = {"validation": FlowValidationSettings()}
    if table is not None:
        (data / "other.csv").write_text(table)
        changes["csv_path"] = str(data / "other.csv")
    with pytest.raises(ValueError, match=message):
        config = make_config(data, tmp_path / "o", ConditionSettings(**conditions), **changes)
        DenoiserTask(config, ONE_RANK)


def test_chunks_are_trained_with_a_source_or_a_first_frame_alone(data, tmp_path, monkeypatch):
    def in_chunks(*args, **kwargs):
        manifest = build_latent_manifest(*args, **kwargs)
        return dataclasses.replace(manifest, spec=dataclasses.replace(manifest.spec, chunk=17))

    monkeypatch.setattr(denoiser_data, "build_latent_manifest", in_chunks)
    first_frames = {"first_frame": 0.5, "first_frame_folder": str(data / "first_frames")}
    message = re.escape(
        "conditions.prefix, conditions.mask: this autoencoder codes chunks of 17 frames; only "
        "conditions.source or conditions.first_frame can be trained"
    )
    refused = ConditionSettings(**first_frames, prefix=0.2, mask=0.2)
    with pytest.raises(ValueError, match=f"^{message}$"):
        DenoiserTask(make_config(data, tmp_path / "a", refused), ONE_RANK)
    taken = ConditionSettings(**first_frames, source=True)
    task = DenoiserTask(make_config(data, tmp_path / "b", taken), ONE_RANK)
    assert task.dataset.visual.conditions.names == ("source", "frames")
    assert task.dataset.visual.conditions.frame_modes == ("first_frame",)


@pytest.mark.parametrize(
    ("drops", "message"),
    [
        ("text,source", r"guidance_drops='text,source': source is no condition of this run; it "),
        ("sources", "sampling.guidance_drops='sources'; expected some of text, source, frames"),
        ("", "sampling.guidance_drops=''; expected some of"),
    ],
)
def test_guidance_without_what_is_no_condition_is_refused(data, tmp_path, drops, message):
    with pytest.raises(ValueError, match=message):
        sampling = SamplingSettings(guidance_drops=drops)
        make_config(data, tmp_path / "o", ConditionSettings(first_frame=0.5), sampling=sampling)


def test_a_lora_trains_alone_and_is_loaded(finished_run, data, tmp_path, pynative_mode):
    base = finished_run.output / "generator"
    config = make_config(
        data,
        tmp_path / "out",
        ConditionSettings(source=True),
        pretrained=str(base),
        lora=LoraSettings(rank=4),
        validation=FlowValidationSettings(),
        steps=3,
    )
    trainer = DenoiserTrainer(config)
    trainer.run()
    path = tmp_path / "out" / "lora" / LORA_FILE
    changes = read_lora(path)
    assert max(np.abs(change.up).max() for change in changes.values()) > 0
    tensors = trainer.task.network.tensors()
    for name, array in load_generator(base).transformer_tensors.items():
        np.testing.assert_array_equal(tensors[name], array)
    assert f"--checkpoint {base} --lora {path} --source VIDEO" in trainer.task.next_command(path)

    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    editor = VideoToVideo.from_pretrained(base)
    before = editor(frames, "negate it", steps=2).latents
    editor.load_lora(path)
    after = editor(frames, "negate it", steps=2).latents
    assert np.abs(after - before).max() > 1e-3
    assert set(editor.sha256) > {"lora x 1"}
    merged = VideoToVideo(with_lora(load_generator(base), path))
    np.testing.assert_array_equal(merged(frames, "negate it", steps=2).latents, after)
    assert merged.sha256 == editor.sha256
    editor.load_lora(path, weight=-1.0)
    again = editor(frames, "negate it", steps=2).latents
    np.testing.assert_allclose(again, before, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": None}, "lora needs the generator that it is to change"),
        ({"train": ["blocks"]}, "lora says what trains; leave train out"),
        ({"zero_stage": 3, "mode": "graph"}, "does not work with zero_stage=3"),
        ({"lora": {"rank": 0}}, "lora.rank=0; expected 1 or more"),
        ({"lora": {"alpha": -1.0}}, "lora.alpha=-1.0"),
    ],
)
def test_a_lora_that_cannot_be_trained_is_refused(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        lora = LoraSettings(**changes.pop("lora", {}))
        settings = {"pretrained": "somewhere", "lora": lora, **changes}
        make_config(data, tmp_path / "o", ConditionSettings(), **settings)


def test_matrices_are_not_shared_line_by_line(data, tmp_path):
    with pytest.raises(ValueError, match="zero_stage=3 works compiled alone: take mode=graph"):
        make_config(data, tmp_path / "o", ConditionSettings(), zero_stage=3, mode="pynative")


def test_texts_of_another_length_are_refused_before_training(data, tmp_path):
    config = dataclasses.replace(
        make_config(data, tmp_path / "out", ConditionSettings()),
        model={"family": "hunyuan", "preset": "tiny"},
        text=TextSettings(encoders=["word,max_tokens=16", "text"]),
    )
    with pytest.raises(ValueError, match=r"give \(width, tokens\) .*16.*; the transformer takes "):
        DenoiserTask(config, ONE_RANK)


@pytest.mark.parametrize("family", ["cogvideox", "hunyuan", "unet"])
def test_other_families_train_export_and_edit(family, data, tmp_path, pynative_mode):
    fields = {name: v for name, v in DENOISERS[family].items() if name != "text_encoders"}
    config = dataclasses.replace(
        make_config(data, tmp_path / "out", ConditionSettings(source=True), steps=2),
        model={"family": family, **fields},
        text=TextSettings(encoders=TEXTS.get(family, ["word,width=32"]), dropout=0.1),
        mode="pynative",
    )
    trainer = DenoiserTrainer(config)
    trainer.run()
    losses = [e["flow_loss"] for e in read_log(tmp_path / "out" / "validation.jsonl")]
    assert len(losses) == 2 and np.isfinite(losses).all()
    editor = VideoToVideo.from_pretrained(tmp_path / "out" / "generator")
    assert editor.family.name == family
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    one = editor(frames, "negate it", steps=2).latents
    assert one.shape == (1, 4, 2, 4, 4) and np.isfinite(one).all()
    with pytest.raises(ValueError, match=f"generator of the family '{family}', and model.family"):
        start = str(tmp_path / "out" / "generator")
        conditions = ConditionSettings(source=True)
        DenoiserTask(make_config(data, tmp_path / "b", conditions, pretrained=start), ONE_RANK)
