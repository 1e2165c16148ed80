"""From prompts to videos, on a tiny random transformer and a tiny TAE."""

import logging

import numpy as np
import pytest
from mindspore import Tensor

from mg.data.transforms import from_model_range
from mg.flow.noise import initial_noise
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.text_to_video import TextToVideo, seeds_of
from mg.pipelines.training_scope import scope_of_captions

pytestmark = pytest.mark.usefixtures("graph_mode")

PROMPTS = ["a red circle", "a blue square moving up", "something else"]
SHAPE = (4, 4, 8, 12)  # of the latent of 8 frames of 16x24 pixels


class Network:
    """Stands in for the transformer: a velocity from a function, and the inputs of all calls."""

    def __init__(self, velocity):
        self.velocity = velocity
        self.calls = []

    def __call__(self, latent, t, *text):
        self.calls.append((latent.shape, float(t.asnumpy()[0]), text))
        return Tensor(np.float32(self.velocity(latent.asnumpy())))


def repeated(z, num_frames=None):
    """Return the video (B, 3, 2T', 2H', 2W') of a latent; stands in for the decoder."""
    video = np.tanh(z.asnumpy()[:, :3])
    return Tensor(video.repeat(2, axis=2).repeat(2, axis=3).repeat(2, axis=4))


@pytest.fixture(scope="module")
def real_transformer(generator_folder):
    """Return a generator whose decoder is stood in for."""
    generator = TextToVideo.from_pretrained(generator_folder)
    generator.autoencoder.frames_from = repeated
    return generator


@pytest.fixture(scope="module")
def generator(generator_folder):
    """Return a function that makes a generator whose two networks are stood in for."""
    stand_in = TextToVideo.from_pretrained(generator_folder)

    def make(velocity):
        stand_in.transformer, stand_in.autoencoder.frames_from = Network(velocity), repeated
        return stand_in

    return make


def test_the_same_seed_gives_the_same_video_and_any_batch_size_nearly_so(real_transformer):
    one_by_one = real_transformer(PROMPTS, seed=5)
    assert one_by_one.frames.shape == (3, 8, 16, 24, 3) and one_by_one.frames.dtype == np.uint8
    assert one_by_one.latents.shape == (3, *SHAPE) and one_by_one.seeds == (5, 6, 7)
    again = real_transformer(PROMPTS[1], seed=6)
    np.testing.assert_array_equal(again.latents[0], one_by_one.latents[1])
    np.testing.assert_array_equal(again.frames[0], one_by_one.frames[1])
    # Two batches of 2, the last one filled up.
    batched = real_transformer(PROMPTS, seed=[5, 6, 7], batch_size=2)
    np.testing.assert_allclose(batched.latents, one_by_one.latents, atol=1e-5)
    difference = np.abs(batched.frames.astype(int) - one_by_one.frames)
    assert difference.max() <= 1  # rounding to uint8


def test_seed_and_prompt_both_count(real_transformer):
    def latent(prompt, **options):
        return real_transformer(prompt, **options).latents

    first = latent(PROMPTS[0])
    for other in (
        latent(PROMPTS[0], seed=1),
        latent(PROMPTS[1]),
        latent(PROMPTS[0], negative_prompt="blue"),
        latent(PROMPTS[0], guidance=4.0),
    ):
        assert np.abs(other - first).max() > 1e-2


def test_two_passes_of_guidance_give_the_same_as_one(real_transformer):
    one = real_transformer(PROMPTS[:2]).latents
    two = real_transformer(PROMPTS[:2], batch_size=2, two_passes=True).latents
    np.testing.assert_allclose(two, one, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "rows_of_calls"),
    [
        ({"guidance": 1.0}, [2] * 3),
        ({"guidance": 2.0}, [4] * 3),
        ({"guidance": 2.0, "two_passes": True}, [2] * 6),
        ({"guidance": 1.0, "solver": "midpoint"}, [2] * 6),
        ({"guidance": 1.0, "batch_size": 1}, [1] * 6),
        ({"guidance": 1.0, "steps": 1, "schedule": "linear"}, [2]),
    ],
)
def test_calls_of_the_network(generator, options, rows_of_calls):
    pipeline = generator(lambda x: x)
    pipeline(PROMPTS[:2], **{"batch_size": 2, **options})
    calls = pipeline.transformer.calls
    assert [shape[0] for shape, _, _ in calls] == rows_of_calls
    assert all(shape[1:] == SHAPE for shape, _, _ in calls)
    assert all(text[0].shape == (shape[0], 12, 32) for shape, _, text in calls)


def test_a_constant_velocity_leads_to_the_latent_that_is_decoded(generator):
    pipeline = generator(lambda x: np.full_like(x, 0.25))
    result = pipeline("a", seed=9)
    # scaling of the TAE: 1.5305 z + 0.0609
    expected = (initial_noise(SHAPE, [9]) + 0.25 - 0.0609) / 1.5305
    np.testing.assert_allclose(result.latents, expected, atol=1e-6)
    expected = np.tanh(expected[0, :3]).repeat(2, 1).repeat(2, 2).repeat(2, 3)
    difference = np.abs(result.frames[0].astype(int) - from_model_range(expected))
    assert difference.max() <= 1


def test_lengths_that_are_no_multiple_and_single_images(generator):
    pipeline = generator(lambda x: x)
    assert pipeline("a", num_frames=5).frames.shape == (1, 5, 16, 24, 3)
    assert pipeline("a", num_frames=5).latents.shape == (1, 4, 3, 8, 12)
    image = pipeline("a", num_frames=1, height=8, width=8)
    assert image.frames.shape == (1, 1, 8, 8, 3) and image.latents.shape == (1, 4, 1, 4, 4)


def test_what_is_no_number_is_not_decoded(generator):
    pipeline = generator(lambda x: x * np.nan)
    pipeline.autoencoder.frames_from = None  # would fail
    with pytest.raises(ValueError, match="transformer gave NaN or infinity"):
        pipeline("a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps=-1; expected a whole number of 1 or more"),
        ({"steps": 251}, "num_reference_steps=250"),
        ({"num_frames": 0}, "num_frames=0; expected"),
        ({"num_frames": 9}, r"9 frames of 16x24 pixels: position_table=\(4, 8, 8\) is smaller"),
        ({"height": 48, "width": 48}, "position_table"),
        ({"height": 18}, "height=18 is not a multiple of 4 .* take 16 or 20"),
        ({"width": 2}, "width=2 is not a multiple of 4 .* take 4$"),
        ({"guidance": -1.0}, "guidance=-1.0; expected 0 or more"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"guidance": 1.0, "negative_prompt": "x"}, "negative_prompt has no effect"),
        ({"guidance": 1.0, "two_passes": True}, "two_passes has no effect"),
        ({"solver": "heun"}, "solver='heun'; expected one of euler, midpoint"),
        ({"schedule": "cubic"}, "schedule='cubic'; expected one of linear_quadratic, linear"),
        ({"fps": 0.0}, "fps=0.0"),
        ({"seed": -1}, "seed -1; expected a whole number from 0"),
        ({"seed": [1, 2]}, "2 seeds for 1 videos"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"prompts": []}, "no prompts"),
        ({"prompts": "word " * 12}, "too long for the encoder 'word': 13 tokens, at most 12 fit"),
        ({"negative_prompt": "word " * 12}, "too long for the encoder 'word'"),
    ],
)
def test_wrong_requests_are_refused_before_the_network_runs(generator, options, message):
    pipeline = generator(lambda x: x)
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompts": "a", **options})
    assert pipeline.transformer.calls == []


def test_a_long_prompt_is_cut_when_asked_and_that_is_said(generator, caplog):
    pipeline = generator(lambda x: x)
    with caplog.at_level(logging.WARNING, logger="mg"):
        pipeline("word " * 12, truncate=True, guidance=1.0)
    assert "sees only the first 12 tokens" in caplog.text
    seen = pipeline.transformer.calls[-1][2]
    expected = pipeline.text_encoders[0].encode(["word " * 12], truncate=True)
    np.testing.assert_array_equal(seen[0].asnumpy(), expected.values)
    assert seen[1].asnumpy().all()


def test_what_is_new_to_the_generator_gets_one_warning(generator, caplog):
    model = generator(lambda latent: latent)
    model.scope = scope_of_captions(["a red circle"], [8], [(16, 24)])
    with caplog.at_level(logging.WARNING, logger="mg"):
        model(["a dog", "a red cat"], steps=1)
        model("a red circle", steps=1)
    model.scope = None
    assert len(caplog.messages) == 1 and "the words 'dog', 'cat'." in caplog.messages[0]


def test_the_frame_rate_is_in_the_text_if_it_was_in_training(generator_parts, tmp_path):
    defaults = {**generator_parts["defaults"], "fps_prefix": True, "guidance": 1.0}
    save_generator(tmp_path / "g", **{**generator_parts, "defaults": defaults})
    pipeline = TextToVideo(load_generator(tmp_path / "g"))
    pipeline.transformer = Network(lambda x: x)
    pipeline.decode = lambda latent, num_frames, _: latent
    encoder = pipeline.text_encoders[0]
    for fps, text in ((None, "FPS-12 a"), (16.0, "FPS-16 a")):
        pipeline("a", fps=fps)
        seen = pipeline.transformer.calls[-1][2][0].asnumpy()
        np.testing.assert_array_equal(seen, encoder.encode([text]).values)
    with pytest.raises(ValueError, match="has its frame rate already"):
        pipeline("FPS-16 a")


def test_seeds_of_videos():
    assert seeds_of(3, 2) == (3, 4)
    assert seeds_of([7, 1], 2) == (7, 1)
