"""Updates of the transformer on two ranks that share its tokens, and its matrices too."""

import importlib.util
import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mg.parallel.ranks import ONE_RANK

PROGRAM = Path(__file__).parent / "programs" / "train_transformer.py"
# Each way to share the work, and what one rank does in its place.
WAYS = {
    "sequence": "data",
    "sequence_zero3": "data",
    "cogvideox_zero3": "cogvideox",
    "cogvideox_sequence": "cogvideox",
    "hunyuan_sequence_zero3": "hunyuan",
}
LIMIT = 1e-5


@pytest.fixture(scope="module")
def two(run_limited, launch_script, tmp_path_factory):
    """Return the folder in which two ranks have left their results."""
    folder = tmp_path_factory.mktemp("two")
    command = launch_script(folder / "logs", PROGRAM, folder)
    code, output = run_limited(command, log_folder=folder / "logs")
    assert code == 0, output
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Return the folder with the results of one rank, here in this process."""
    spec = importlib.util.spec_from_file_location("train_transformer", PROGRAM)
    module = sys.modules["train_transformer"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("one")
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    for name in module.ALONE:
        module.run(ONE_RANK, folder, name)
    ms.set_context(mode=before)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_do_what_one_does_with_the_whole_batch(way, one, two):
    """Losses, gradient norms, weights, averages; the first moment is the clipped gradients'."""
    alone = f"{WAYS[way]}_0"
    expected_log = json.loads((one / f"{alone}.json").read_text())["log"]
    expected = np.load(one / f"{alone}.npz")
    assert min(norm for _, norm in expected_log) > 0.1  # so that gradients are clipped
    for rank in (0, 1):
        log = json.loads((two / f"{way}_{rank}.json").read_text())["log"]
        np.testing.assert_allclose(log, expected_log, rtol=LIMIT)
        found = np.load(two / f"{way}_{rank}.npz")
        assert set(found) == set(expected)  # names do not tell how the work was shared
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=LIMIT, err_msg=name)
    # Relative to the largest: gradients are small. Those of keys' biases are rounding errors alone.
    moments = [name for name in expected if name.startswith("first_moment.")]
    assert len(moments) > 20
    for name in moments:
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=LIMIT * max(largest, 1e-6), err_msg=name
        )


@pytest.mark.parametrize("way", [way for way in WAYS if way.endswith("zero3")])
def test_each_rank_holds_half_of_the_weights(way, one, two):
    whole = json.loads((one / f"{WAYS[way]}_0.json").read_text())
    facts = json.loads((two / f"{way}_1.json").read_text())
    # All but biases, norms, modulation and tables.
    assert facts["num_weights"] < 0.6 * whole["num_weights"]
    assert facts["num_moments"] == 2 * facts["num_weights"]


def test_each_rank_holds_half_of_what_is_shared(one, two):
    whole = json.loads((one / "data_0.json").read_text())
    facts = {way: json.loads((two / f"{way}_1.json").read_text()) for way in WAYS}
    assert whole["num_moments"] == 2 * whole["num_weights"]
    # All but norms, modulation and tables.
    assert facts["sequence_zero3"]["num_weights"] < 0.55 * whole["num_weights"]
    assert facts["sequence_zero3"]["num_moments"] < 0.55 * whole["num_moments"]
    assert facts["sequence"]["num_weights"] == whole["num_weights"]
    assert facts["sequence"]["num_moments"] < 0.51 * whole["num_moments"]  # in stage 2
