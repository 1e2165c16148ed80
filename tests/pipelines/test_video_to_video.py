"""Videos made from videos, on a tiny random transformer and a stand-in for the autoencoder."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mg.conditions.visual import ChannelConditions
from mg.data.video_writer import write_video
from mg.flow.noise import initial_noise
from mg.flow.path import noisy_latent
from mg.pipelines.generated_files import describe_videos, unfinished, write_generated
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.text_to_video import TextToVideo
from mg.pipelines.video_to_video import VideoToVideo
from mg.pipelines.visual_inputs import VisualInputs, encode_clip
from tests.pipelines.conftest import smooth_frames, stand_in_frames, stand_in_moments

ROOT = Path(__file__).parents[2]
SHAPE = (4, 4, 8, 12)  # of the latent of 8 frames of 16x24 pixels


class Recorder:
    """Stands in for the transformer: a velocity of zero, and what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, latent, t, *conditions):
        self.calls.append((latent.asnumpy(), float(t.asnumpy()[0]), conditions))
        return Tensor(np.zeros(latent.shape, np.float32))


@pytest.fixture(scope="module")
def editor(generator_folder):
    """Return a pipeline whose networks are stood in for."""
    pipeline = VideoToVideo.from_pretrained(generator_folder)
    pipeline.autoencoder.moments, pipeline.autoencoder.frames_from = (
        stand_in_moments,
        stand_in_frames,
    )
    return pipeline


@pytest.fixture
def recorder(editor):
    editor.transformer = Recorder()
    return editor.transformer


@pytest.fixture(scope="module")
def source():
    return smooth_frames(8, 16, 24)


def test_an_edit_begins_with_the_source_noised_to_its_time(editor, recorder, source):
    result = editor(source, "a red circle", strength=0.5, guidance=1.0, steps=4, schedule="linear")
    start = noisy_latent(
        encode_clip(editor.autoencoder, source)[None],
        initial_noise(SHAPE, [0]),
        np.array([0.5], np.float32),
    )
    first, _, _ = recorder.calls[0]
    np.testing.assert_allclose(first, start, atol=1e-6)
    assert [t for _, t, _ in recorder.calls] == pytest.approx([0.5, 0.75])
    # The velocity is zero: what comes out is what was begun with.
    np.testing.assert_allclose(editor.autoencoder.spec.scale(result.latents), start, atol=1e-5)


def test_the_smaller_the_strength_the_nearer_the_result_to_the_source(editor, recorder, source):
    own = encode_clip(editor.autoencoder, source)
    # With the velocity that leads back to the source, any start does; with none, noise remains.
    distances = [
        np.abs(
            editor.autoencoder.spec.scale(editor(source, "", strength=s, guidance=1.0).latents[0])
            - own
        ).mean()
        for s in (0.1, 0.4, 0.9)
    ]
    assert distances[0] < distances[1] < distances[2]


def test_files_are_scaled_cropped_and_cut(editor, recorder, tmp_path, caplog):
    frames = smooth_frames(12, 32, 40)
    write_video(tmp_path / "clip.mkv", frames, fps=12, lossless=True)
    settings = SamplingSettings.of(editor.defaults, strength=0.5)
    with caplog.at_level(logging.INFO, "mg"):
        fitted = VisualInputs(source=tmp_path / "clip.mkv").fitted(settings)
    assert fitted.source.shape == (8, 16, 24, 3)
    assert "source is longer than the video: its first 8 frames count" in caplog.text
    assert "source is 40x32 and the video 24x16: 17 % of it is cropped at top and bottom" in (
        caplog.text
    )
    with pytest.raises(ValueError, match="has 12 frames and the video is to have 16; give num_fr"):
        VisualInputs(source=frames).fitted(SamplingSettings.of(editor.defaults, num_frames=16))
    with pytest.raises(ValueError, match="expected uint8 frames"):
        VisualInputs(source=frames / 255).fitted(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "source has no effect with strength=1"),
        ({"strength": 0}, "strength=0; expected more than 0 and at most 1"),
        ({"strength": 1.5}, "strength=1.5; expected more than 0 and at most 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(editor, recorder, source, options, message):
    with pytest.raises(ValueError, match=message):
        editor(source, "a red circle", **options)
    with pytest.raises(ValueError, match="starts from a source video, and there is none"):
        editor(None, "a red circle", strength=0.5)
    assert recorder.calls == []


def test_the_record_names_source_and_strength(editor, recorder, source, tmp_path):
    paths, options = [tmp_path / "0000.mp4"], {"dtype": "float32", "decode_dtype": "float32"}
    settings = SamplingSettings.of(editor.defaults, strength=0.5)

    def left(settings, frames):
        inputs = None if frames is None else [VisualInputs(source=frames)]
        described = describe_videos(
            editor,
            ["red"],
            [0],
            settings,
            inputs=inputs,
            tiling=editor.autoencoder.tiling,
            **options,
        )
        return unfinished(paths, described)

    inputs = [VisualInputs(source=source)]
    list(write_generated(editor, ["red"], paths, seeds=[0], settings=settings, inputs=inputs))
    record = json.loads(paths[0].with_suffix(".json").read_text())
    assert record["strength"] == 0.5 and record["inputs"] == inputs[0].hashes()
    assert left(settings, source) == []
    with pytest.raises(ValueError, match=r"inputs.source differ"):
        left(settings, source[::-1])
    with pytest.raises(ValueError, match=r"strength differ|inputs.source, strength differ"):
        left(SamplingSettings.of(editor.defaults), None)


def test_records_of_before_there_were_sources_still_count(editor, recorder, tmp_path):
    path, settings = tmp_path / "0000.mp4", SamplingSettings.of(editor.defaults)
    list(write_generated(editor, ["red"], [path], seeds=[0], settings=settings))
    record = json.loads(path.with_suffix(".json").read_text())
    del record["strength"], record["inputs"]
    path.with_suffix(".json").write_text(json.dumps(record))
    described = describe_videos(
        editor, ["red"], [0], settings, dtype="float32", decode_dtype="float32",
        tiling=editor.autoencoder.tiling,
    )  # fmt: skip
    assert unfinished([path], described) == []


def test_generate_takes_a_source(generator_folder, source, tmp_path):
    write_video(tmp_path / "clip.mp4", source, fps=12)
    # fmt: off
    arguments = [
        sys.executable, "scripts/generate.py", "--checkpoint", generator_folder,
        "--source", tmp_path / "clip.mp4", "--strength", "0.6", "--prompt", "a red circle",
        "--steps", "4", "--output", tmp_path / "edited.mp4", "--mode", "pynative",
    ]
    # fmt: on
    result = subprocess.run(
        list(map(str, arguments)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "edited.json").read_text())
    assert record["strength"] == 0.6 and set(record["inputs"]) == {"source"}


def test_embedded_texts_need_no_encoder_where_guidance_keeps_them(
    make_square_generator, tmp_path, pynative_mode
):
    folder = make_square_generator(ChannelConditions(has_source=True))
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "conditions" / "config.json").write_text(json.dumps({"encoders": None}))
    whole, bare = TextToVideo.from_pretrained(folder), TextToVideo.from_pretrained(bare)
    for generator in (whole, bare):
        generator.autoencoder.moments = stand_in_moments
    text = whole.text_encoders[0].encode(["a red circle"])
    embeds = {"prompt_embeds": text.values, "prompt_attention_mask": text.mask}
    call = {"source": smooth_frames(8, 16, 16), "output_type": "latent"}
    found = bare(**embeds, **call, guidance_drops="source")
    expected = whole("a red circle", **call, guidance_drops="source")
    np.testing.assert_allclose(found.frames, expected.frames, atol=1e-5)
    with pytest.raises(ValueError, match=r"for '': give negative_prompt_embeds, or guidance=1$"):
        bare(**embeds, **call)
    negative = {f"negative_{name}": array for name, array in embeds.items()}
    with pytest.raises(ValueError, match="negative_prompt_embeds has no effect with guidance_dro"):
        bare(**embeds, **negative, **call, guidance_drops="source")
