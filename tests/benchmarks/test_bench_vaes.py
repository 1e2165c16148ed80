"""The parts of the benchmarks of all families that need no clock."""

import pytest

import bench_denoisers
import bench_vaes
from bench_tae import CONV_FLOPS
from mg.models.families import DENOISERS, autoencoder_family


def measurements(**seconds):
    return {
        "flops": {"encode": 100 * CONV_FLOPS, "decode": 300 * CONV_FLOPS},
        "coding": {
            "seconds": {"encode": 10.0, "decode": 40.0, "conv": 1.6, **seconds},
            "peak_memory_gb": 2.0,
            "compile_seconds": {"encode": 7.0, "decode": 8.0},
        },
        "memory": {"peak_memory_gb": 3.0} if seconds else None,
        "training": {"round_trips": 3.2, "peak_memory_gb": 6.0, "compile_seconds": 50.0},
        "lengths": {"per_frame_33_over_17": 0.98} if seconds else None,
    }


def test_shares_are_those_of_the_plain_convolutions_rate():
    # 16 convolutions in 1.6 s: 0.1 s each.
    result = bench_vaes.with_ratios(measurements(mindone_encode=30.0, mindone_decode=70.0))
    assert result["share"] == pytest.approx({"encode": 1.0, "decode": 0.75, "both": 0.8})
    assert result["times_mindone"] == pytest.approx(2.0)
    alone = bench_vaes.with_ratios(measurements())
    assert "times_mindone" not in alone
    table = bench_vaes.table({"cogvideox": result, "dc-ae": alone}).splitlines()
    assert [line.count("|") for line in table] == [17] * 4
    assert "| 0.80 | 2.00 | 7, 8 | 3.20 | 6.00 | 50 | 0.98 | 2.00 | 3.00 |" in table[2]
    assert table[3].endswith("| 50 |  |  |  |")


def test_every_subject_is_a_network_that_takes_its_video():
    for subject in bench_vaes.SUBJECTS.values():
        config = autoencoder_family(subject.family).read_config(subject.fields)
        frames, side = subject.video
        assert config.spec.valid_frames(frames) == frames
        config.spec.check_video((1, 3, frames, side, side))


def test_every_denoiser_is_measured():
    assert set(bench_denoisers.PRODUCTS) == set(DENOISERS)
    result = {
        "parameters": 1e8,
        "gflop": 93.0,
        "seconds": {"forward": 1.0},
        "gflop_per_second": 93.0,
        "product_gflop_per_second": 100.0,
        "ratio_to_product": 0.93,
        "times_mindone": None,
    }
    table = bench_denoisers.table({"unet": result}).splitlines()
    assert table[2] == "| unet | 100 M | 93 | 1.000 | 93.0 | 100.0 | 0.93 |  |"
