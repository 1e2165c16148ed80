"""Wrong inputs of the text-to-video scripts: one clear line, before anything is computed."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mg.cli import run_main
from mg.conditions.text.build import build_text_encoder
from mg.conditions.text.byte_encoder import ByteEncoder
from mg.conditions.text.cache import fill_text_cache
from mg.data.latent_files import LatentInfo, LatentWriter
from mg.data.video_writer import write_video
from mg.models.denoiser_config import TextInput
from mg.models.movie_gen.config import MovieGenConfig
from mg.models.movie_gen.parameter_shapes import parameter_shapes
from mg.pipelines.autoencoder import config_hash, tensors_hash
from mg.pipelines.generator_writer import save_generator
from mg.training.run.checkpoint import save_final_weights
from mg.weights.tae_layers import tae_shapes
from tests.tiny import TAE

HOSTILE = Path(__file__).parents[1] / "fixtures" / "hostile"
WORD = "word,width=32,max_tokens=8"
CAPTIONS = ("a red square", "a blue circle")
LONG = "word " * 8


def drawn(shapes, seed):
    rng = np.random.default_rng(seed)
    return {name: 0.1 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with two videos, their captions and latents, two TAEs and a generator."""
    folder = tmp_path_factory.mktemp("data")
    shapes = tae_shapes(TAE.to_dict())
    tensors = drawn(shapes, 0)
    save_final_weights(folder / "tae.safetensors", tensors, TAE.to_dict())
    save_final_weights(folder / "other_tae.safetensors", drawn(shapes, 1), TAE.to_dict())
    rows = []
    for number, caption in enumerate(CAPTIONS):
        name = f"{number}.mp4"
        frames = np.random.default_rng(number).integers(0, 256, (4, 16, 16, 3), np.uint8)
        write_video(folder / "videos" / name, frames, fps=16)
        info = LatentInfo(
            4, 16, 16, 16.0, name, TAE.to_dict(), config_hash(TAE), tensors_hash(tensors), {}
        )
        latent = np.full((4, 2, 8, 8), number, np.float32)
        with LatentWriter(folder / "latents" / f"{number}.safetensors", info) as writer:
            writer.write(latent, latent - 6)
        rows.append(f"{name},{caption}")
    (folder / "captions.csv").write_text("\n".join(["video,caption", *rows]) + "\n")
    (folder / "folder.mp4").mkdir()
    (folder / "uncaptioned.csv").write_text("video,label\n0.mp4,1\n")
    long = rows[0].replace(CAPTIONS[0], LONG)
    (folder / "long.csv").write_text("\n".join(["video,caption", long]) + "\n")
    fill_text_cache(folder / "text", build_text_encoder(WORD), CAPTIONS[:1])
    model = MovieGenConfig(
        num_layers=1,
        dim=32,
        ffn_dim=32,
        num_heads=2,
        latent_channels=4,
        position_table=(2, 4, 4),
        text_encoders=(TextInput("word", 32, 8),),
    )
    save_generator(
        folder / "generator",
        transformer_tensors=drawn(parameter_shapes(model), 0),
        transformer_config=model,
        autoencoder=folder / "tae.safetensors",
        text_encoders=[WORD],
        defaults={"num_frames": 4, "size": (16, 16), "fps": 16, "steps": 2},
    )
    mixed = shutil.copytree(folder / "generator", folder / "mixed_generator")
    config = json.loads((mixed / "denoiser" / "config.json").read_text())
    (mixed / "denoiser" / "config.json").write_text(json.dumps(config | {"num_layers": 2}))
    return folder


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Return a function that runs a script in this process: -> (exit code, stderr)."""
    # MindSpore takes a device only once per process, before its first kernel.
    monkeypatch.setattr(ms, "set_device", lambda name: None)
    mode = ms.get_context("mode")

    def run(name, *arguments):
        script = importlib.import_module(f"mg.commands.{name}")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            run_main(script.main)
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    yield run
    ms.set_context(mode=mode)


def train(**changes):
    """Return the arguments of scripts/train.py with some that are different."""
    settings = {
        "csv_path": "{data}/captions.csv",
        "latent_folder": "{data}/latents",
        "tae": "{data}/tae.safetensors",
        "output_path": "{out}",
        "device": "CPU",
        "model.num_layers": 1,
        "model.dim": 32,
        "model.ffn_dim": 32,
        "model.num_heads": 2,
        "model.position_table": "[2,4,4]",
        "text.encoders": f'["{WORD}"]',
        "batch_size": 2,
        "steps": 1,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return "train", *(f"--{name}={value}" for name, value in settings.items())


def generate(*arguments):
    defaults = ("--checkpoint={data}/generator", "--prompt=a red square", "--output={out}.mp4")
    return "generate", *defaults, *arguments


def encode_text(*arguments):
    return "encode_text", f"--encoder={WORD}", "--output_folder={out}", *arguments


def code(script, *arguments):
    """Return the arguments of a script that encodes, decodes or both, with some added."""
    source = "--input={data}/latents" if script == "decode" else "--video_folder={data}/videos"
    defaults = (source, "--ckpt_path={data}/tae.safetensors", "--output_path={out}", "--device=CPU")
    return script, *defaults, *arguments


CODERS = ("encode", "decode", "inference_vae")
SCRIPTS_WITH_CONFIG = (*CODERS, "train", "train_tae", "generate", "encode_text", "eval_prompts")
BELOW_A_FILE = "{data}/captions.csv/out"
SMALL_TABLE = "position_table=(2, 4, 4) is smaller"
NO_FOLDER = "captions.csv is a file, not a folder"
HUGE = 10**9

REFUSED = {
    # a prompt or caption that is too long
    "generate: long prompt": (
        generate(f"--prompt={LONG}"),
        "too long for the encoder 'word': 9 tokens, at most 8 fit; shorten it, or",
    ),
    "generate: long negative prompt": (generate(f"--negative_prompt={LONG}"), "9 tokens, at most"),
    "encode_text: long caption": (encode_text("--csv_path={data}/long.csv"), "9 tokens, at most 8"),
    "train: long caption": (train(csv_path="{data}/long.csv"), "9 tokens, at most 8 fit"),
    "train: long sample prompt": (
        train(samples__prompts=json.dumps([LONG])),
        "samples: the text 'word word",
    ),
    # an unknown encoder
    "encode_text: unknown encoder": (
        encode_text("--encoder=bert", "--captions=a"),
        "unknown text encoder 'bert'; expected byte, word, text, t5:FOLDER",
    ),
    "train: unknown encoder": (train(text__encoders='["bert"]'), "unknown text encoder 'bert'"),
    # position tables smaller than the latent
    "train: small table": (
        train(model__position_table="[1,4,4]"),
        "latents of 2x8x8: position_table=(1, 4, 4) is smaller",
    ),
    "generate: small table for frames": (
        generate("--num_frames=6"),
        "6 frames of 16x16 pixels: position_table=(2, 4, 4) is smaller",
    ),
    "generate: small table for pixels": (
        generate("--resolution=32"),
        "4 frames of 32x32 pixels: position_table=(2, 4, 4) is smaller",
    ),
    # a missing cache entry
    "train: caption without embedding": (
        train(text__cache_folder="{data}/text"),
        "1 of 3 texts have no embedding by 'word'; run mg encode-text",
    ),
    "train: cache of another encoder": (
        train(text__cache_folder="{data}/text", text__encoders='["word,width=32,max_tokens=9"]'),
        "were not made by the encoder",
    ),
    # an absent caption column
    "encode_text: no caption column": (
        encode_text("--csv_path={data}/uncaptioned.csv"),
        "the caption, named 'caption' (or one of text, prompt, description); columns found:",
    ),
    "train: no caption column": (
        train(csv_path="{data}/uncaptioned.csv"),
        "columns found: ['video', 'label']",
    ),
    # a cache of other weights
    "train: latents of another TAE": (
        train(tae="{data}/other_tae.safetensors"),
        "is stale: it was encoded with weights",
    ),
    # a checkpoint of another preset
    "train: weights of another network": (
        train(pretrained="{data}/generator", model__dim=64),
        "the weights are of another network: dim is 32 there and 64 here",
    ),
    "generate: weights that do not fit their config": (
        generate("--checkpoint={data}/mixed_generator"),
        "does not fit its config.json",
    ),
    "generate: a TAE in place of a generator": (
        generate("--checkpoint={data}/tae.safetensors"),
        "is not a generator",
    ),
    # sizes that do not fit the patch or the TAE
    "generate: size": (
        generate("--resolution=18"),
        "height=18 is not a multiple of 4 (2 of the autoencoder x 2 of the denoiser's patch)",
    ),
    "generate: no frames": (generate("--num_frames=0"), "num_frames=0; expected a whole number"),
    "encode: size": (
        ("encode", "--ckpt_path={data}/tae.safetensors", "--input={data}/videos",
         "--output_path={out}", "--device=CPU", "--image_size=15"),
        "height 15 is not a multiple of 2; resize or crop to 14 or 16",
    ),
    # steps
    "generate: negative steps": (generate("--steps=-1"), "steps=-1; expected a whole number of 1"),
    "eval_prompts: negative steps": (
        ("eval_prompts", "--checkpoint={data}/generator", "--output_folder={out}", "--steps=-1"),
        "steps=-1; expected a whole number of 1",
    ),
    "train: negative steps": (train(steps=-1), "steps=-1; expected 1 or more"),
    "train: negative sampling steps": (train(sampling__steps=-1), "sampling.steps=-1; expected 1"),
    "train: negative sample steps": (
        train(samples__prompts='["a"]', samples__steps=-1),
        "samples.steps=-1; expected 1 or more",
    ),
    # an output that cannot be written
    **{
        f"{script}: output below a file": (code(script, f"--output_path={BELOW_A_FILE}"), NO_FOLDER)
        for script in CODERS
    },
    "train: output below a file": (train(output_path=BELOW_A_FILE), NO_FOLDER),
    "generate: output below a file": (generate(f"--output={BELOW_A_FILE}/a.mp4"), NO_FOLDER),
    "generate: output that is a folder": (generate("--output={data}/folder.mp4"), "it is a folder"),
    "encode_text: output below a file": (
        encode_text("--captions=a", f"--output_folder={BELOW_A_FILE}"),
        NO_FOLDER,
    ),
    "eval_prompts: output below a file": (
        ("eval_prompts", "--checkpoint={data}/generator", f"--output_folder={BELOW_A_FILE}"),
        NO_FOLDER,
    ),
    # files that would take gigabytes, or for ever
    **{
        f"{script}: aliases without end": (
            (script, "--config={hostile}/aliases.yaml"),
            "aliases.yaml is not YAML that can be read: it has more than 10000 values",
        )
        for script in SCRIPTS_WITH_CONFIG
    },
    "decode: a device as config": (code("decode", "--model_config=/dev/zero"), "is a device"),
    "decode: a device as section": (code("decode", "--tiling=/dev/zero"), "is a device"),
    # numbers that are not finite
    "generate: endless rate": (generate("--fps=1e999"), "fps=inf; expected a finite number"),
    "train: endless learning rate": (train(optim__lr="1e999"), "lr=inf; expected a finite number"),
    "encode: endless memory": (
        code("encode", "--memory_budget_gb=1e999", "--enable_tile"),
        "memory_budget_gb=inf; expected a finite number",
    ),
    # sizes beyond any
    "generate: huge steps": (generate(f"--steps={HUGE}"), "steps=1000000000; at most 100000"),
    "generate: huge reference": (
        generate(f"--num_reference_steps={HUGE}"),
        "num_reference_steps=1000000000; at most 100000",
    ),
    "generate: huge video": (generate(f"--resolution={HUGE}"), SMALL_TABLE),
    "generate: long video": (generate(f"--num_frames={HUGE}"), SMALL_TABLE),
    "eval_prompts: many videos": (
        ("eval_prompts", "--checkpoint={data}/generator", f"--videos_per_prompt={HUGE}"),
        "videos_per_prompt=1000000000; expected 1 to 10000",
    ),
    "train: wide network": (train(model__dim=HUGE), "dim=1000000000: no network is that large"),
    "train: deep network": (train(model__num_layers=HUGE), "num_layers=1000000000: no network"),
    "train: large network": (
        train(model__num_layers=4000, model__dim=1 << 16, model__ffn_dim=1 << 16),
        "parameters; at most 1e+12 are taken",
    ),
    "train: large table": (
        train(model__position_table="[1000000000,4,4]"),
        "position_table=(1000000000, 4, 4): no network is that large",
    ),
    "train: large batch": (train(batch_size=HUGE), "batch_size=1000000000; at most 1048576"),
    "train: many workers": (train(data__num_workers=HUGE), "num_workers=1000000000; expected 0 to"),
    "train: wide encoder": (
        train(text__encoders='["word,width=1000000000"]'),
        "unknown text encoder",
    ),
    "train: long texts": (
        train(text__encoders='["word,max_tokens=100000000"]'),
        "max_tokens=100000000; expected 2 to 65536",
    ),
    "train_tae: wide network": (
        ("train_tae", "--output_path={out}", "--video_folder={data}/videos", f"--model.ch={HUGE}"),
        "ch=1000000000: no network is that large",
    ),
    "train_tae: large frames": (
        ("train_tae", "--output_path={out}", "--video_folder={data}/videos", f"--data.size={HUGE}"),
        "size must be one or two numbers of pixels from 1 to 16384",
    ),
    "encode: large frames": (
        code("encode", f"--image_size={HUGE}"),
        "image_size must be one or two numbers of pixels from 1 to 16384, not 1000000000",
    ),
    "inference_vae: large frames": (
        code("inference_vae", f"--image_size={HUGE}"),
        "image_size must be one or two numbers of pixels from 1 to 16384, not 1000000000",
    ),
}  # fmt: skip


@pytest.fixture
def nothing_computed(monkeypatch):
    """Let each text that is embedded and each network that is called fail the test."""

    def computes(*args, **kwargs):
        raise AssertionError("something was computed before the input was refused")

    monkeypatch.setattr(ByteEncoder, "embed", computes)
    monkeypatch.setattr(nn.Cell, "__call__", computes)
    monkeypatch.setattr(nn.Cell, "compile", computes)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, data, run_script, nothing_computed, tmp_path):
    (name, *arguments), message = REFUSED[case]
    places = {"{data}": data, "{out}": tmp_path / "out", "{hostile}": HOSTILE}
    for place, path in places.items():
        arguments = [argument.replace(place, str(path)) for argument in arguments]
    code, text = run_script(name, *arguments)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(errors) == 1 and "Traceback" not in text, text
    assert message in text[text.index("error: ") :]
    assert list(tmp_path.iterdir()) == []


def test_what_a_terminal_would_obey_is_shown_and_no_message_fills_the_screen(run_script, tmp_path):
    flags = ("--prompt=a", f"--output={tmp_path / 'a.mp4'}")
    code, text = run_script("generate", *flags, "--checkpoint=x\x1b[2J")
    assert code == 1 and r"error: x\x1b[2J does not exist" in text and "\x1b" not in text
    code, text = run_script("generate", *flags, "--checkpoint=" + "y" * 10**6)
    assert code == 1 and "yyy ... (" in text and len(text) < 3000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt="], "The prompt is empty: the video may show anything."),
        ([f"--prompt={LONG}", "--truncate"], "the encoder 'word' sees only the first 8 tokens"),
    ],
)
def test_said_and_done_all_the_same(
    arguments, message, data, run_script, nothing_computed, tmp_path, caplog
):
    flags = [f"--checkpoint={data / 'generator'}", f"--output={tmp_path / 'a.mp4'}", *arguments]
    with pytest.raises(AssertionError, match="something was computed"):
        run_script("generate", *flags)
    assert message in caplog.text


def test_a_cache_of_captions_is_not_filled_in_part(data, run_script, nothing_computed, tmp_path):
    """The second of two encoders would refuse: the first has embedded nothing by then."""
    arguments = [f"--csv_path={data / 'captions.csv'}", f"--output_folder={tmp_path / 'text'}"]
    code, text = run_script(
        "encode_text", "--encoder=byte", "--encoder=word,max_tokens=2", *arguments
    )
    assert code == 1 and "too long for the encoder 'word'" in text
    assert list(tmp_path.iterdir()) == []
