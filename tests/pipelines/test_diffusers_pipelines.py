"""Whole published pipelines, tiny: each step and the video as diffusers has them."""

import json
import shutil

import numpy as np
import pytest
from mindspore import Tensor

from mg.flow.scheduler_config import build_scheduler
from mg.flow.schedulers import dynamic_guidance
from mg.pipelines.generator_folder import load_generator, open_generator
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from tests.published_pipelines import CALL, FIXTURES, folder_of

pytestmark = pytest.mark.usefixtures("graph_mode")


class Recorded(np.random.Generator):
    """Gives recorded noise, in its order."""

    def __init__(self, draws):
        super().__init__(np.random.PCG64())
        self.draws = iter(draws)

    def standard_normal(self, size, dtype):
        draw = next(self.draws)  # (1, T, C, H, W)
        return draw[0].swapaxes(0, 1)


def check_close(found, expected):
    """Within 1e-3 of the largest number."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return a function that opens a pipeline; each is built once."""
    built = {}

    def open_pipeline(name):
        if name not in built:
            folder = folder_of(name, tmp_path_factory.mktemp("pipeline"))
            built[name] = TextToVideo.from_pretrained(folder), np.load(FIXTURES / f"{name}.npz")
        return built[name]

    return open_pipeline


def run(pipeline, recorded, **options):
    """Return the result of the recorded call, and what its callback saw of each step."""
    seen = []
    result = pipeline(
        latents=recorded["i:latents"],
        truncate=True,
        callback_on_step_end=lambda _, step, t, given: seen.append((step, t, given["latents"])),
        **{**CALL, **options},
    )
    return result, seen


@pytest.mark.parametrize("name", ["cogvideox", "cogvideox_rope_dpm", "hunyuan"])
def test_steps_and_video_are_those_of_diffusers(opened, name):
    generator, recorded = opened(name)
    if name == "hunyuan":
        options = {
            "prompt_embeds": recorded["i:prompt_embeds"],
            "pooled_prompt_embeds": recorded["i:pooled"],
            "prompt_attention_mask": recorded["i:mask"],
        }
    else:
        negative = str(recorded["i:negative"].reshape(-1)[0])
        options = {"prompt": str(recorded["i:prompt"][0]), "negative_prompt": negative}
    if "i:noise" in recorded:
        options["generator"] = Recorded(recorded["i:noise"])
    result, seen = run(generator, recorded, **options)
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_allclose([t for _, t, _ in seen], recorded["o:timesteps"], rtol=1e-6)
    for (_, _, latents), expected in zip(seen, recorded["o:latents_after_step"], strict=True):
        check_close(latents, expected)
    assert result.frames.shape == (1, 9, 48, 32, 3) and result.frames.dtype == np.float32
    decoded = generator.autoencoder.decode(result.latents).asnumpy()
    check_close(decoded[..., ::4, ::4], recorded["o:video"])
    in_range = np.clip(decoded / 2 + 0.5, 0, 1).transpose(0, 2, 3, 4, 1)
    np.testing.assert_allclose(result.frames, in_range, atol=1e-6)


def test_embeddings_are_those_of_diffusers_and_take_the_place_of_prompts(opened):
    generator, recorded = opened("cogvideox")
    texts = [str(recorded["i:prompt"][0]), ""]
    encoded = generator.text_encoders[0].encode(texts, truncate=True)
    expected = np.concatenate([recorded["o:prompt_embeds"], recorded["o:negative_embeds"]])
    check_close(encoded.values, expected)
    assert encoded.mask.all()  # the filling counts
    result, _ = run(
        generator,
        recorded,
        prompt_embeds=recorded["o:prompt_embeds"],
        negative_prompt_embeds=recorded["o:negative_embeds"],
        output_type="latent",
    )
    assert result.frames.shape == (1, 3, 4, 6, 4)
    check_close(result.frames, recorded["o:latents"])


def test_a_callback_may_change_the_latents(opened):
    generator, recorded = opened("hunyuan")

    def in_place(_, step, t, given):
        given["latents"] *= 0
        given["latents"] += step
        return given

    for callback in (
        in_place,
        lambda _, step, t, given: {"latents": 0 * given["latents"] + step},
    ):
        result = generator(
            prompt_embeds=recorded["i:prompt_embeds"],
            pooled_prompt_embeds=recorded["i:pooled"],
            seed=3,
            callback_on_step_end=callback,
            **CALL | {"output_type": "latent"},
        )
        np.testing.assert_array_equal(result.frames, np.full((1, 4, 3, 6, 4), 3, np.float32))
    with pytest.raises(ValueError, match=r"gave latents of the shape \(3,\)"):
        generator(
            prompt_embeds=recorded["i:prompt_embeds"],
            pooled_prompt_embeds=recorded["i:pooled"],
            callback_on_step_end=lambda *_: {"latents": np.zeros(3)},
            **CALL,
        )


def test_generators_and_seeds_decide_the_noise(opened):
    generator, _ = opened("cogvideox_rope_dpm")  # adds noise at each step
    call = {**CALL, "num_inference_steps": 2, "output_type": "latent"}

    def latents(**options):
        return generator("a red circle", **call, **options).frames

    by_seed = latents(seed=1)
    np.testing.assert_array_equal(by_seed, latents(seed=1))
    assert np.abs(by_seed - latents(seed=2)).max() > 1e-2
    drawn = latents(generator=np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, latents(generator=[np.random.default_rng(0)]))
    both = generator(["a red circle"] * 2, seed=[1, 2], batch_size=2, **call).frames
    np.testing.assert_allclose(both[:1], by_seed, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a", "prompts": "a"}, "prompts and prompt are the same"),
        ({"prompt": "a", "steps": 3}, "steps and num_inference_steps are the same"),
        ({"prompt": "a", "guidance_scala": 3}, "guidance_scal[ae]"),
        ({"prompt": "a", "output_type": "pil"}, "output_type='pil'; expected one of uint8, np"),
        ({}, "prompts and prompt_embeds: give one"),
        ({"prompt": "a", "num_inference_steps": 1001}, "num_steps=1001; expected 1 to 1000"),
        ({"prompt": "a", "seed": 1, "generator": np.random.default_rng(0)}, "seed and generator"),
        ({"prompt": "a", "generator": 5}, "generator: expected numpy.random.default_rng"),
        ({"prompt": "a", "latents": np.zeros((1, 4, 3, 6, 4))}, r"expected \(1, 4, 3, 6, 4\)"),
        ({"prompt": "a", "strength": 0.5}, "strength=0.5 starts from a source video"),
        ({"prompt": "a", "strength": 0.2}, "strength=0.2 leaves none of the 4 steps.*take 0.25 or"),
        ({"prompt": "a", "strength": 1.2}, "strength=1.2; expected more than 0 and at most 1"),
        ({"prompt": "a", "true_cfg_scale": 2.0}, "true_cfg_scale=2.0 has no effect: this network"),
        ({"prompt": "a", "true_cfg_scale": 0.5}, "true_cfg_scale=0.5; expected 1"),
        (
            {"prompt": "a", "prompt_template": {"template": "{}", "crop_start": 0}},
            r"prompt_template has no effect: the text encoders of this generator \(t5\)",
        ),
        ({"prompt_embeds": np.zeros((1, 16, 8))}, r"prompt_embeds has the shape \(1, 16, 8\)"),
        (
            {"prompt_embeds": np.zeros((1, 4, 16)), "pooled_prompt_embeds": np.zeros((1, 4))},
            "this network takes no pooled embedding",
        ),
        ({"negative_prompt_embeds": np.zeros((1, 4, 16))}, "prompt_embeds is missing"),
    ],
)
def test_wrong_calls_are_refused_before_the_network_runs(opened, options, message):
    generator, _ = opened("cogvideox")
    with pytest.raises(ValueError, match=message):
        generator(**{**CALL, **options})


def test_a_network_that_takes_the_guidance_has_no_second_branch(opened):
    generator, recorded = opened("hunyuan")
    embeds = {
        "prompt_embeds": recorded["i:prompt_embeds"],
        "pooled_prompt_embeds": recorded["i:pooled"],
    }
    for options in ({"negative_prompt": "blurry"}, {"two_passes": True}):
        with pytest.raises(ValueError, match="runs once per step"):
            generator(**CALL, **embeds, **options)
    advice = r"'a cat': add it to the generator's folder .* or in Python give prompt_embeds$"
    with pytest.raises(ValueError, match=r"has no text encoder \(llama and clip\) for " + advice):
        generator("a cat", **CALL)


def changed_index(tmp_path, **fields):
    folder = folder_of("cogvideox", tmp_path)
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


def test_unknown_classes_are_named(tmp_path):
    for field, entry, message in (
        (
            "_class_name",
            "LTXPipeline",
            "class 'LTXPipeline' is not known; known are TextToV",
        ),
        ("transformer", ["diffusers", "X"], "transformer is of class 'X', which is not known"),
        ("scheduler", ["diffusers", "DDIM"], "scheduler is of class 'DDIM'"),
        ("text_encoder", ["transformers", "Bert"], "text_encoder is of class 'Bert'.*T5Encoder"),
        ("vae", [None, None], "names no vae; expected AutoencoderKLCogVideoX"),
    ):
        folder = changed_index(tmp_path / field, **{field: entry})
        with pytest.raises(ValueError, match=message) as error:
            load_generator(folder)
        assert "\n" not in str(error.value)


def test_a_missing_text_encoder_is_told_when_it_is_needed(tmp_path):
    none = [None, None]
    folder = changed_index(tmp_path / "none", text_encoder=none, tokenizer=none)
    assert load_generator(folder).text_encoders == []
    parts = open_generator(folder)  # no weight is read before the request is checked
    assert not parts.transformer_tensors and not parts.autoencoder.tensors
    with pytest.raises(ValueError, match="has no text encoder"):
        check_request(parts, ["x"], SamplingSettings.of(parts.defaults))
    folder = folder_of("cogvideox", tmp_path / "gone")
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(FileNotFoundError, match=r"lacks the folder text_encoder.*prompt_embeds"):
        load_generator(folder)


def test_a_saved_pipeline_is_the_same_when_it_is_read_back(opened, tmp_path):
    for name in ("cogvideox", "hunyuan"):
        generator, _ = opened(name)
        generator.save_pretrained(tmp_path / name)
        parts = load_generator(tmp_path / name)
        assert parts.defaults == generator.defaults and parts.scheduler == generator.scheduler
        assert parts.family is generator.family
        assert parts.autoencoder.spec == generator.autoencoder.spec
        identities = [encoder.identity for encoder in generator.text_encoders]
        assert [encoder.identity for encoder in parts.text_encoders] == identities
        for network, tensors in (
            (generator.transformer, parts.transformer_tensors),
            (generator.autoencoder, parts.autoencoder.tensors),
        ):
            own = network.tensors()
            assert set(own) == set(tensors)
            assert all(np.array_equal(own[key], tensors[key]) for key in own)
    with pytest.raises(FileExistsError, match="exists already"):
        generator.save_pretrained(tmp_path / "hunyuan")


def test_a_later_cogvideox_states_no_size_that_its_videos_have(tmp_path):
    folder = folder_of("cogvideox", tmp_path)
    shutil.rmtree(folder / "transformer")
    shutil.copytree(FIXTURES.parent / "transformers" / "cogtr15", folder / "transformer")
    assert open_generator(folder).defaults.size == (80, 96)  # 10 x 12 of the latent
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text()) | {"sample_height": 300, "sample_width": 300}
    path.write_text(json.dumps(config))
    assert open_generator(folder).defaults.size == (768, 1360)


def test_frames_in_front_fill_the_patches_of_a_later_cogvideox(tmp_path):
    folder = folder_of("cogvideox", tmp_path)
    shutil.rmtree(folder / "transformer")
    shutil.copytree(FIXTURES.parent / "transformers" / "cogtr15", folder / "transformer")
    generator = TextToVideo.from_pretrained(folder)
    assert generator.defaults.fps == 16
    seen = []
    result = generator(
        prompt_embeds=np.zeros((1, 8, 16)),
        callback_on_step_end=lambda _, step, t, given: seen.append(given["latents"]),
        **CALL | {"guidance_scale": 1.0, "num_inference_steps": 1, "output_type": "latent"},
    )
    assert seen[0].shape == (1, 4, 4, 6, 4)  # (N, T', C, H', W') of 9 frames, one in front
    np.testing.assert_allclose(result.frames, seen[0][:, 1:], rtol=1e-6)
    with pytest.raises(ValueError, match="the network takes 2 together"):
        generator(
            "a",
            source=np.zeros((9, 48, 32, 3), np.uint8),
            strength=0.5,
            schedule="linear",
            **{name: CALL[name] for name in ("height", "width", "num_frames")},
        )


def test_dynamic_guidance_changes_the_weight_from_step_to_step(opened):
    generator, recorded = opened("cogvideox")
    network = generator.transformer

    def stand_in(latent, t, *conditions):
        """Return 0 without text and 1 with it, so that the guided prediction is the weight."""
        half = len(latent) // 2
        values = np.repeat([0.0, 1.0], half).reshape(-1, 1, 1, 1, 1)
        return Tensor(np.broadcast_to(values, latent.shape).astype(np.float32))

    generator.transformer = stand_in
    try:
        _, seen = run(
            generator,
            recorded,
            prompt_embeds=recorded["o:prompt_embeds"],
            negative_prompt_embeds=recorded["o:negative_embeds"],
            use_dynamic_cfg=True,
            output_type="latent",
        )
    finally:
        generator.transformer = network
    scheduler = build_scheduler(generator.scheduler, 4)
    latent = recorded["i:latents"].astype(np.float64)
    for step, t, found in seen:
        weight = np.full_like(latent, dynamic_guidance(6.0, t, 4))
        latent = scheduler.step(step, weight, latent, None)
        np.testing.assert_allclose(found, latent, rtol=1e-4, atol=1e-4 * np.abs(latent).max())


def test_dynamic_guidance_is_refused_where_it_has_no_effect(opened):
    for name, options, message in (
        ("cogvideox", {"schedule": "linear"}, "no effect with schedule=linear"),
        ("cogvideox", {"guidance_scale": 1.0}, "guidance=1 turns guidance off"),
        ("hunyuan", {}, "belongs to CogVideoX's schedulers"),
    ):
        generator, _ = opened(name)
        with pytest.raises(ValueError, match=message):
            generator("a", use_dynamic_cfg=True, **CALL | options)
