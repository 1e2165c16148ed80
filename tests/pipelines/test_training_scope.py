"""What a generator says it was made for, and what it says of requests for something else."""

import dataclasses
import re

import pytest

from mg.models.tae.config import TAEConfig
from mg.pipelines.generator_folder import SHIPPED_GENERATOR, load_generator
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.sampling_checks import departures_of
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.training_scope import MAX_WORDS, TrainingScope, scope_of_captions

CAPTIONS = ["a red circle moving left", "a blue square moving up", "a red square moving up"]
SCOPE = scope_of_captions(CAPTIONS, [16, 1], [(64, 64), (64, 96)])
TAE = TAEConfig()  # 8 frames are one of latent
SETTINGS = SamplingSettings(num_frames=16, height=64, width=64, fps=16, steps=2, guidance=3.0)


def departures(prompt, **changes):
    return SCOPE.departures([prompt], dataclasses.replace(SETTINGS, **changes), TAE.spec)


def test_the_scope_of_captions():
    assert SCOPE.words == ("a", "blue", "circle", "left", "moving", "red", "square", "up")
    assert SCOPE.num_frames == (1, 16) and SCOPE.sizes == ((64, 64), (64, 96))
    assert SCOPE.examples == tuple(sorted(CAPTIONS))


def test_natural_language_has_examples_but_no_list_of_words():
    captions = [f"word{i} and other{i}" for i in range(MAX_WORDS)]
    scope = scope_of_captions(captions, [16], [(64, 64)])
    assert scope.words == () and len(scope.examples) == 4
    assert scope.departures(["a dog"], SETTINGS, TAE.spec) == ""


@pytest.mark.parametrize("prompt", ["", "A RED circle, moving up.", "square square"])
def test_known_words_in_any_order_and_case_are_no_departure(prompt):
    assert departures(prompt) == ""


def test_what_is_new_is_named_in_one_line_with_what_is_known():
    line = departures("a dog running up, a dog", num_frames=64, height=256, width=128)
    assert line == (
        "new to this generator: the words 'dog', 'running'; 256x128 pixels; a length of 64 frames. "
        "It was trained on 64x64, 64x96 pixels and 1, 16 frames, on captions like 'a blue square "
        "moving up'"
    )


def test_words_of_the_negative_prompt_count_and_long_lists_are_cut():
    assert "the word 'blurry'." in departures("a circle", negative_prompt="blurry")
    line = departures("one two three four five six seven eight nine ten")
    assert "'six', 'seven', 'eight' and 2 more." in line


def test_a_length_with_as_many_frames_of_latent_is_no_other_length():
    assert departures("a circle", num_frames=9) == departures("a circle", num_frames=8) == ""
    assert "a length of 17 frames" in departures("a circle", num_frames=17)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": "a b"}, "words='a b'; expected a list"),
        ({"words": [1]}, "expected texts"),
        ({"num_frames": [0]}, "expected whole numbers"),
        ({"sizes": [[64]]}, "expected pairs"),
        ({"colours": []}, "expected an object with the keys examples"),
    ],
)
def test_wrong_contents_are_refused(changes, message):
    stored = dataclasses.asdict(SCOPE) | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingScope.from_mapping(stored)


def test_the_folder_holds_the_scope(generator_parts, tmp_path):
    save_generator(tmp_path / "with", **generator_parts, scope=SCOPE)
    assert load_generator(tmp_path / "with").scope == SCOPE
    save_generator(tmp_path / "without", **generator_parts)
    parts = load_generator(tmp_path / "without")
    assert parts.scope is None and departures_of(parts, ["a dog"], SETTINGS) == ""


def test_the_generator_that_ships_knows_its_grammar():
    parts = load_generator(SHIPPED_GENERATOR)
    settings = SamplingSettings.of(parts.defaults)
    assert len(parts.scope.words) == 20
    for example in parts.scope.examples:
        assert departures_of(parts, [example], settings) == ""
    line = departures_of(parts, ["a dog running on the beach at sunset"], settings)
    assert "the words 'dog', 'running', 'the', 'beach', 'at', 'sunset'." in line
