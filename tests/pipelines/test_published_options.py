"""Published pipelines beyond what was recorded: texts, a second branch, edits of a source."""

import json
import shutil
import sys

import numpy as np
import pytest
from mindspore import Tensor

from mg.commands import generate
from mg.flow.scheduler_config import build_scheduler, predicted_by
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.text_to_video import TextToVideo
from mg.weights.safetensors_file import read_safetensors
from tests.published_pipelines import CALL, FIXTURES, folder_of
from tests.text_encoders import LLAMA, by_the_equations, write_clip, write_llama, write_shards

pytestmark = pytest.mark.usefixtures("pynative_mode")

LLAMA_OF_16 = {"hidden_size": 16, "intermediate_size": 24}
TEMPLATE = {"template": "w5 w6 w7 {} w9", "crop_start": 4}
LATENT = {**CALL, "output_type": "latent"}
NAMES = ("cogvideox", "cogvideox_rope_dpm", "hunyuan")
SOURCE = np.random.default_rng(5).integers(0, 256, (9, 48, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """HunyuanVideo with its text encoders, as it is published: the first one in shards."""
    folder = folder_of("hunyuan", tmp_path_factory.mktemp("published"))
    write_llama(folder / "text_encoder", **LLAMA_OF_16)
    write_shards(folder / "text_encoder")
    write_clip(folder / "text_encoder_2", 8)
    classes = {
        "text_encoder": "LlamaModel",
        "tokenizer": "LlamaTokenizerFast",
        "text_encoder_2": "CLIPTextModel",
        "tokenizer_2": "CLIPTokenizer",
    }
    for name in ("tokenizer", "tokenizer_2"):
        encoder = folder / name.replace("tokenizer", "text_encoder")
        (folder / name).mkdir()
        shutil.move(encoder / "tokenizer.json", folder / name / "tokenizer.json")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {name: ["transformers", kind] for name, kind in classes.items()}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def with_texts(folder):
    return TextToVideo.from_pretrained(folder)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return a function that opens a recorded pipeline; each is built once."""
    built = {}

    def open_pipeline(name):
        if name not in built:
            built[name] = TextToVideo.from_pretrained(
                folder_of(name, tmp_path_factory.mktemp("pipeline"))
            )
        return built[name]

    return open_pipeline


def embeds_of(name, *, negative=False):
    """Return arguments of a call: the texts of the recorded pipeline."""
    recorded = np.load(FIXTURES / f"{name}.npz")
    if name != "hunyuan":
        return {"prompt_embeds": recorded["o:prompt_embeds"]}
    embeds = {
        "prompt_embeds": recorded["i:prompt_embeds"],
        "pooled_prompt_embeds": recorded["i:pooled"],
        "prompt_attention_mask": recorded["i:mask"],
    }
    if negative:
        embeds = {f"negative_{key}": -array for key, array in embeds.items()}
        embeds["negative_prompt_attention_mask"] = np.array([[1, 1, 1, 0, 0, 0, 0, 0]])
    return embeds


def test_texts_go_through_both_encoders(with_texts, folder):
    """A prompt gives the video of the states that the equations give for it."""
    tensors = read_safetensors(folder / "text_encoder")
    config = {**LLAMA, **LLAMA_OF_16}
    states = by_the_equations(tensors, [0, 5, 6, 7, 10, 11, 9], num_layers=2, config=config)[4:]
    llama, clip = with_texts.text_encoders
    assert (llama.name, llama.max_tokens, clip.name, clip.max_tokens) == ("llama", 256, "clip", 1)
    pooled = clip.encode(["w10 w11"]).values[:, 0]
    call = {**LATENT, "num_inference_steps": 2, "seed": 1}
    found = with_texts("w10 w11", prompt_template=TEMPLATE, **call)
    embedded = with_texts(prompt_embeds=states[np.newaxis], pooled_prompt_embeds=pooled, **call)
    np.testing.assert_allclose(found.frames, embedded.frames, atol=1e-4)
    other = with_texts("w12 w13", prompt_template=TEMPLATE, **call)
    assert np.abs(other.frames - found.frames).max() > 1e-3
    assert found.settings.prompt_template.crop_start == 4


def test_a_crop_that_reaches_into_prompts_is_told(with_texts, caplog):
    call = {**LATENT, "num_inference_steps": 1}
    with_texts("w10 w11", prompt_template=TEMPLATE, **call)
    assert "crop_start" not in caplog.text
    template = {"template": "w5 w6 w7 {} w8 w9", "crop_start": 5}
    with_texts("w10 w11", prompt_template=template, **call)
    assert "crop_start=5 leaves out the beginning of prompts too" in caplog.text


def test_a_text_without_template_says_where_to_get_it(with_texts):
    with pytest.raises(ValueError, match=r"none is given: pass prompt_template.*DEFAULT_PROM") as e:
        with_texts("w10", **CALL)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="prompt_template has no effect with prompt_embeds"):
        with_texts(prompt_template=TEMPLATE, **embeds_of("hunyuan"), **CALL)
    with pytest.raises(ValueError, match=r"prompt_template has the keys \['text'\]"):
        with_texts("w10", prompt_template={"text": "{}"}, **CALL)
    with pytest.raises(ValueError, match="17 tokens, at most 16 fit"):  # of CLIP
        with_texts(" ".join(["w10"] * 15), prompt_template=TEMPLATE, **CALL)


def test_a_saved_pipeline_finds_its_text_encoders(with_texts, folder, tmp_path):
    with_texts.save_pretrained(tmp_path / "own")
    encoders = load_generator(tmp_path / "own").text_encoders
    identities = [encoder.identity for encoder in with_texts.text_encoders]
    assert [encoder.identity for encoder in encoders] == identities
    assert encoders[1].spec == f"clip:{folder / 'text_encoder_2'},max_tokens=16,pooled"
    half = load_generator(folder).with_text_dtype("float16").text_encoders
    assert "dtype=float16" in half[0].identity and half[1].identity == identities[1]


def test_precisions_of_texts(with_texts, folder, opened):
    parts = load_generator(folder)
    assert parts.with_text_dtype("float32").text_encoders == parts.text_encoders
    with pytest.raises(ValueError, match="dtype='int4' of a text encoder; expected one of"):
        parts.with_text_dtype("int4")
    with pytest.raises(ValueError, match="text_dtype='float16' has no effect: of the text encod"):
        load_generator(folder_of("hunyuan", folder / "none")).with_text_dtype("float16")


def test_generate_takes_the_template_from_a_file(folder, tmp_path, monkeypatch):
    file = tmp_path / "template.json"
    file.write_text(json.dumps(TEMPLATE))
    # fmt: off
    arguments = [
        "generate", "--checkpoint", folder, "--prompt", "w10 w11", "--output", tmp_path / "a.mp4",
        "--prompt_template", file, "--negative_prompt", "w12", "--true_cfg_scale", "2",
        "--resolution", "[48, 32]", "--num_frames", "9", "--steps", "1", "--mode", "pynative",
    ]
    # fmt: on
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    monkeypatch.setattr(generate, "setup_device", lambda config: None)  # it is set up already
    generate.main()
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["prompt_template"] == TEMPLATE and record["true_cfg_scale"] == 2.0


def test_a_true_scale_of_1_is_none_and_2_is_the_formula(opened):
    """After one Euler step the latent is linear in the prediction."""
    generator = opened("hunyuan")
    text, negative = embeds_of("hunyuan"), embeds_of("hunyuan", negative=True)
    call = {**LATENT, "num_inference_steps": 1, "seed": 3}
    under = generator(**text, **call).frames
    np.testing.assert_array_equal(generator(**text, true_cfg_scale=1.0, **call).frames, under)
    as_prompt = {name.removeprefix("negative_"): array for name, array in negative.items()}
    without = generator(**as_prompt, **call).frames
    assert np.abs(under - without).max() > 1e-2
    for scale, two_passes in ((2.0, False), (3.0, True)):
        found = generator(
            **text, **negative, true_cfg_scale=scale, two_passes=two_passes, **call
        ).frames
        np.testing.assert_allclose(found, without + scale * (under - without), atol=1e-4)


def test_a_true_scale_takes_the_negative_prompt(with_texts):
    call = {**LATENT, "num_inference_steps": 1, "prompt_template": TEMPLATE}
    under = with_texts("w10", **call).frames
    without = with_texts("w12", **call).frames
    found = with_texts("w10", negative_prompt="w12", true_cfg_scale=2.0, **call).frames
    np.testing.assert_allclose(found, 2 * under - without, atol=1e-4)
    with pytest.raises(ValueError, match="runs once per step, unless true_cfg_scale is above 1"):
        with_texts("w10", negative_prompt="w12", **call)


def test_a_true_scale_needs_a_negative_text(opened):
    with pytest.raises(ValueError, match=r"for '': give .*negative_prompt_embeds, or true_cfg_s"):
        opened("hunyuan")(**embeds_of("hunyuan"), true_cfg_scale=2.0, **CALL)


class Recorder:
    """A network of a published pipeline that predicts a tenth of what it sees; it keeps that."""

    def __init__(self):
        self.seen = []

    def __call__(self, latent, t, *conditions):
        self.seen.append((latent.asnumpy(), float(t.asnumpy()[0])))
        return Tensor(0.1 * latent.asnumpy())


def unguided(name):
    return embeds_of(name) | ({} if name == "hunyuan" else {"guidance_scale": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_begins_with_the_noised_source(opened, name, monkeypatch):
    """4 steps at a strength of 0.6 are int(2.4) = 2; each is as the scheduler takes it."""
    generator, network = opened(name), Recorder()
    monkeypatch.setattr(generator, "transformer", network)
    call = {**LATENT, **unguided(name), "seed": 7}
    found = generator(source=SOURCE, strength=0.6, **call).frames
    sizes = (4, 3, 6, 4)
    noise = np.random.default_rng(0).standard_normal((1, *sizes)).astype(np.float32)
    given = noise if name == "hunyuan" else noise.swapaxes(1, 2)
    network.seen.clear()
    again = generator(source=SOURCE, strength=0.6, latents=given, **call).frames
    assert np.abs(again - found).max() > 1e-2  # other noise
    source = generator.autoencoder.spec.scale(generator.encode(SOURCE))[np.newaxis]
    first = network.seen[0][0]
    if name == "hunyuan":
        sigma = 7 * 0.5 / (1 + 6 * 0.5)
        signal = 1 - sigma
        assert [t for _, t in network.seen] == pytest.approx([875.0, 700.0])
    else:
        assert [t for _, t in network.seen] == [499.0, 249.0]
        alpha = build_scheduler(generator.scheduler, 4).alphas[499]
        signal, sigma = np.sqrt(alpha), np.sqrt(1 - alpha)
    np.testing.assert_allclose(first, signal * source + sigma * noise, atol=1e-5)
    if name == "hunyuan":  # x + (sigma' - sigma) 0.1 x
        expected = first * (1 + 0.1 * (0.7 - 0.875)) * (1 - 0.1 * 0.7)
        np.testing.assert_allclose(again, expected, atol=1e-5)
    if name == "cogvideox":  # data = signal x - sigma v, noise = sigma x + signal v, mixed anew
        expected = first
        for now, after in ((alpha, None), (None, 1.0)):
            middle = build_scheduler(generator.scheduler, 4).alphas[249]
            now, after = now or middle, after or middle
            data = (np.sqrt(now) - 0.1 * np.sqrt(1 - now)) * expected
            of_noise = (np.sqrt(1 - now) + 0.1 * np.sqrt(now)) * expected
            expected = np.sqrt(after) * data + np.sqrt(1 - after) * of_noise
        np.testing.assert_allclose(again, expected.swapaxes(1, 2), atol=1e-5)


class KnowsTheData:
    """Predicts the noise, or the data, of what it sees on a clock, of data that it knows."""

    def __init__(self, data, scheduler):
        self.data = data
        self.prediction, schedule = predicted_by(scheduler, "v")
        self.alphas = schedule.alphas()

    def __call__(self, latent, step, *conditions):
        if self.prediction == "data":
            return Tensor(self.data)
        alpha = self.alphas[int(step.asnumpy()[0])]
        noise = (latent.asnumpy() - np.sqrt(alpha) * self.data) / np.sqrt(1 - alpha)
        return Tensor(noise.astype(np.float32))


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
@pytest.mark.parametrize("schedule", ["linear", "published"])
def test_the_folder_says_what_its_network_predicts(opened, kind, schedule, monkeypatch):
    generator = opened("cogvideox")
    scheduler = generator.scheduler | {"prediction_type": kind, "rescale_betas_zero_snr": False}
    data = np.random.default_rng(1).standard_normal((1, 4, 3, 6, 4)).astype(np.float32)
    monkeypatch.setattr(generator, "scheduler", scheduler)
    monkeypatch.setattr(generator, "transformer", KnowsTheData(data, scheduler))
    call = {**LATENT, **unguided("cogvideox"), "seed": 4, "num_inference_steps": 20}
    found = generator(schedule=schedule, **call).frames
    # Steps are rounded to the clock's 1000, which leaves less than a tenth of the data's size.
    np.testing.assert_allclose(found, data.swapaxes(1, 2), atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_strength_decides_how_near_the_source_an_edit_stays(opened, name):
    generator = opened(name)
    call = {**LATENT, **unguided(name), "seed": 2}
    del call["num_inference_steps"]
    source = generator.autoencoder.spec.scale(generator.encode(SOURCE))[np.newaxis]
    source = source if name == "hunyuan" else source.swapaxes(1, 2)

    def distance(steps, strength):
        seen = []
        frames = generator(
            source=SOURCE,
            strength=strength,
            num_inference_steps=steps,
            callback_on_step_end=lambda _, step, t, given: seen.append(step),
            **call,
        ).frames
        assert seen == list(range(int(steps * strength)))
        return np.sqrt(np.square(frames - source).mean() / np.square(source).mean())

    near, far = distance(100, 0.01), distance(4, 0.75)
    assert near < 0.35 and far > 1.5  # shares of the source's own size


def test_a_strength_of_1_is_no_source(opened):
    generator = opened("hunyuan")
    call = {**LATENT, **unguided("hunyuan"), "num_inference_steps": 1}
    whole = generator(**call).frames
    np.testing.assert_array_equal(generator(strength=1.0, **call).frames, whole)
    with pytest.raises(ValueError, match="source has no effect with strength=1"):
        generator(source=SOURCE, **call)
    with pytest.raises(ValueError, match=r"strength=0\.5 starts from a source video"):
        generator(strength=0.5, **{**call, "num_inference_steps": 2})
