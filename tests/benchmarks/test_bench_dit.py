"""The parts of the transformer's benchmark that need no clock."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

from mg.models.movie_gen.config import PRESETS
from mg.models.movie_gen.costs import forward_flops

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_dit.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_dit", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_dit"] = module
    spec.loader.exec_module(module)
    return module


def result_of(kind, seconds):
    times = {name: {"seconds": value, "wall": value} for name, value in seconds.items()}
    return {
        "kind": kind,
        "preset": "tiny",
        "size": [32, 2, 8, 8],
        "times": times,
        "product_gflop_per_second": 100.0,
        "peak_memory_gb": 1.0,
    }


def test_runs_are_made_in_turn_and_the_warm_up_is_not_timed(bench):
    order = []
    runs = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    times = bench.best_times(runs, 2)
    assert order == ["a", "b"] * 3
    assert all(0 <= times[name][clock] < 1 for name in runs for clock in ("seconds", "wall"))


def test_ratios_follow_from_the_seconds(bench):
    flops = forward_flops(PRESETS["tiny"], 32, batch_size=32)
    seconds = flops.total / 80e9  # 80 of the product's 100 GFLOP/s
    forward = bench.with_ratios(
        result_of("forward", {"forward": seconds, "attention": seconds / 60}), None
    )
    assert forward["ratio_to_product"] == pytest.approx(0.8)
    assert forward["attention_share"] == pytest.approx(0.1)  # 6 layers
    train = bench.with_ratios(result_of("train", {"train": 3 * seconds}), 0.2)
    assert train["ratio_to_product"] == pytest.approx(0.8)
    guided = {"product": 1.0, "no guidance": 1.0, "two passes": 2.0, "one batch": 1.9}
    sampling = bench.with_ratios(result_of("sampling", guided), None)
    assert sampling["x_one_pass"] == {"no guidance": 1.0, "two passes": 2.0, "one batch": 1.9}
    text = bench.tables([forward, train, sampling])
    assert "| tiny | two passes | 1.000 | 1.000 | 2.00 |" in text
    columns = [line.count("|") for line in text.splitlines() if line]
    assert columns == [13] * 4 + [6] * 5


def test_the_pool_is_counted_for_training_alone(bench):
    assert bench.counted_pool_gb("forward", "tiny") is None
    whole, recomputed = (
        bench.counted_pool_gb(kind, "tiny") for kind in ("train", "train_recompute")
    )
    # 202 and 68 MB were measured (MindSpore 2.10.0, CPU).
    assert whole == pytest.approx(0.203, abs=0.001)
    assert recomputed == pytest.approx(0.084, abs=0.001)


@pytest.mark.parametrize("kind", ["forward", "sampling"])
def test_a_case_runs(bench, monkeypatch, pynative_mode, kind):
    small = dataclasses.replace(PRESETS["tiny"], num_layers=1, dim=16, ffn_dim=16, num_heads=2)
    monkeypatch.setitem(bench.PRESETS, "tiny", small)
    monkeypatch.setitem(bench.SIZES, "tiny", (2, 1, 4, 4))
    result = bench.run_case(kind, "tiny", 1)
    expected = {
        "forward": {"product", "forward", "attention"},
        "sampling": {"product", "no guidance", "two passes", "one batch"},
    }[kind]
    assert set(result["times"]) == expected
    assert result["product_gflop_per_second"] > 0 and result["peak_memory_gb"] > 0
    assert bench.tables([bench.with_ratios(result, None)]).count("tiny") == len(expected) - (
        2 if kind == "forward" else 1
    )
