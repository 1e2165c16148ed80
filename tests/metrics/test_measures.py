"""Metrics by name, together on one pair of clips."""

import numpy as np
import pytest

from mg.metrics.figures import FIGURES
from mg.metrics.i3d import frechet_distance, kernel_distance
from mg.metrics.measures import METRICS, Measures, figures_of_set, parse_metrics
from mg.metrics.protocol import MetricSettings
from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim

SETTINGS = MetricSettings()


def make_pair(num_frames=3, height=20, width=24, dtype=np.uint8):
    rng = np.random.RandomState(0)
    reference = rng.randint(20, 236, (num_frames, height, width, 3))
    return reference.astype(dtype), (reference + rng.randint(-9, 10, reference.shape)).astype(dtype)


def test_names():
    assert parse_metrics("psnr, ssim,psnr", SETTINGS) == ["psnr", "ssim"]
    assert parse_metrics(["lpips"], SETTINGS) == ["lpips_vgg"]
    assert parse_metrics("lpips,lpips_alex", MetricSettings(lpips_net="alex")) == ["lpips_alex"]
    assert parse_metrics("tof,flicker", SETTINGS) == ["temporal"]
    assert set(parse_metrics("all", SETTINGS)) == METRICS.keys() - {"flolpips"}
    for text in ("fid", "", "psnr,fid"):
        with pytest.raises(ValueError, match=r"unknown metric .*there are psnr, ssim"):
            parse_metrics(text, SETTINGS)


def test_every_figure_is_known_to_reports():
    figures = [figure for metric in METRICS.values() for figure in metric.figures]
    assert set(figures) <= FIGURES.keys() and len(set(figures)) == len(figures)


def test_settings_reach_the_metrics():
    pair = make_pair()
    plain, _ = Measures(["psnr", "ssim"], SETTINGS)(*pair)
    np.testing.assert_array_equal(plain["psnr"], psnr(*pair))
    np.testing.assert_array_equal(plain["ssim"], ssim(*pair))
    settings = MetricSettings(psnr_cap=30.0, ssim_window="gaussian")
    changed, _ = Measures(["psnr", "ssim"], settings)(*pair)
    np.testing.assert_array_equal(changed["psnr"], np.minimum(psnr(*pair), 30))
    np.testing.assert_array_equal(changed["ssim"], ssim(*pair, window="gaussian"))
    same, _ = Measures(["psnr"], settings)(pair[0], pair[0])
    np.testing.assert_array_equal(same["psnr"], 30)  # a cap makes identical frames count


def test_a_metric_that_cannot_be_measured_leaves_the_others():
    values, left_out = Measures(["psnr", "ms_ssim", "temporal"], SETTINGS)(*make_pair(1))
    assert values.keys() == {"psnr"}
    assert left_out["temporal"] == "temporal needs at least 2 frames, here are 1"
    assert "20x24 are too small for MS-SSIM" in left_out["ms_ssim"]


@pytest.mark.parametrize("which", ["original", "generated video"])
def test_nan_is_refused_with_its_place(which):
    pair = make_pair(dtype=np.float32)
    pair[which != "original"][1, 3, 3, 0] = np.nan
    with pytest.raises(ValueError, match=f"frame 1 of the {which} holds NaN or infinity"):
        Measures(["psnr"], SETTINGS)(*pair)


def test_missing_weights_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("MG_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="mg fetch-lpips --net alex"):
        Measures(["lpips_alex"], SETTINGS)


def test_figures_of_sets_need_many_clips():
    rng = np.random.RandomState(1)
    values = [{"i3d_features": rng.randn(2, 5)} for _ in range(6)] + [{"psnr": np.zeros(3)}]
    names = parse_metrics("kvd,psnr,fvd", SETTINGS)
    assert names == ["psnr", "i3d", "kvd", "fvd"]
    with pytest.raises(ValueError, match=r"KVD and FVD of 6 clips .* at least 256, or add --allow"):
        figures_of_set(names, values, min_clips=256)
    figures = figures_of_set(names, values, min_clips=256, allow_few=True)
    real, generated = (np.stack([v["i3d_features"][i] for v in values[:6]]) for i in (0, 1))
    assert figures == {
        "kvd": kernel_distance(real, generated),
        "fvd": frechet_distance(real, generated),
    }
    assert figures_of_set(names, values, min_clips=6) == figures
    assert figures_of_set(["psnr"], values, min_clips=256) == {}
