"""The report over latents: against numpy on whole arrays, and against the loss it is made for."""

import json

import numpy as np
import pytest
from mindspore import Tensor

from mg.losses.outlier import outlier_penalty_loss
from mg.metrics.latents import LatentReport


def random_latents(num, *, channels=3, frames=4, size=(6, 7)):
    rng = np.random.default_rng(0)
    heavy_tailed = rng.standard_t(3, (num, channels, frames, *size))
    offset = 10 * np.arange(channels).reshape(-1, 1, 1, 1)
    return (heavy_tailed + offset).astype(np.float32)


def outliers(latents, r):
    """Return (N, C, T, H, W) of true where a value is an outlier."""
    values = latents.astype(np.float64)
    distance = np.abs(values - values.mean((-2, -1), keepdims=True))
    return distance > r * values.std((-2, -1), keepdims=True)


@pytest.mark.parametrize("r", [3.0, 1.5])
def test_figures_per_channel_and_of_all(r):
    latents = random_latents(5)
    report = LatentReport(r=r)
    for index, latent in enumerate(latents):
        report.add(f"{index}.mp4", latent)
    summary = report.summary()
    assert (summary["num_latents"], summary["largest_map"], summary["r"]) == (5, 42, r)
    chosen = [(summary["all"], slice(None))]
    chosen += [(entry, slice(c, c + 1)) for c, entry in enumerate(summary["channels"])]
    assert [entry["channel"] for entry in summary["channels"]] == [0, 1, 2]
    for figures, channels in chosen:
        values, is_outlier = latents[:, channels], outliers(latents, r)[:, channels]
        assert is_outlier.any()
        assert figures["num_values"] == values.size
        assert figures["num_outliers"] == is_outlier.sum()
        assert figures["outlier_share"] == pytest.approx(is_outlier.mean(), rel=1e-12)
        assert figures["mean"] == pytest.approx(values.mean(dtype=np.float64), abs=1e-9)
        assert figures["std"] == pytest.approx(values.std(dtype=np.float64), rel=1e-9)
        loss = float(outlier_penalty_loss(Tensor(values), r).asnumpy())
        assert figures["penalty"] == pytest.approx(loss, rel=1e-5)


def test_a_spike_is_one_outlier_in_its_own_channel():
    latent = np.random.default_rng(0).uniform(-1, 1, (4, 3, 8, 8)).astype(np.float32)
    report = LatentReport()
    report.add("clean", latent)
    assert report.summary()["all"]["num_outliers"] == 0
    latent[2, 1, 3, 4] = 50
    report.add("spiked", latent)
    summary = report.summary()
    assert [entry["num_outliers"] for entry in summary["channels"]] == [0, 0, 1, 0]
    distance = latent[2, 1].astype(np.float64) - latent[2, 1].mean(dtype=np.float64)
    furthest = distance.max() / distance.std()
    assert summary["channels"][2]["furthest"] == pytest.approx(furthest, rel=1e-6)


def test_pieces_along_time_count_as_one_latent():
    (latent,) = random_latents(1, frames=7)
    whole, pieces = LatentReport(), LatentReport()
    whole.add("a", latent)
    for start in (0, 3, 6):
        pieces.add("a", latent[:, start : start + 3])
    assert pieces.summary() == whole.summary()


def test_constant_maps_have_no_outliers():
    report = LatentReport()
    report.add("grey", np.full((2, 3, 8, 8), 0.1, np.float32))
    everything = report.summary()["all"]
    assert everything["num_outliers"] == 0 and everything["std"] == pytest.approx(0, abs=1e-8)


def test_table_and_json_hold_the_figures():
    report = LatentReport()
    report.add("a", random_latents(1)[0])
    summary = report.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    lines = report.table().splitlines()
    assert len(lines) == 1 + 3 + 1 and len({len(line) for line in lines}) == 1
    cells = lines[-1].split()
    assert cells[0] == "all" and cells[3] == str(summary["all"]["num_outliers"])
    assert float(cells[1]) == pytest.approx(summary["all"]["mean"], abs=5e-5)
    assert float(cells[4]) == pytest.approx(100 * summary["all"]["outlier_share"], abs=5e-5)


def test_what_cannot_be_reported_is_refused():
    with pytest.raises(ValueError, match=r"r=0; expected more than 0"):
        LatentReport(r=0)
    report = LatentReport()
    with pytest.raises(ValueError, match="the report is empty"):
        report.summary()
    report.add("a", random_latents(1)[0])
    before = report.summary()
    for latent, message in (
        (np.zeros((3, 4, 5)), r"b: expected a latent \(C, T', H', W'\), got \(3, 4, 5\)"),
        (np.zeros((3, 0, 4, 5)), "b: expected a latent"),
        (np.zeros((2, 1, 4, 5)), "b has 2 channels, the latents before it 3"),
        (np.full((3, 1, 4, 5), np.nan), "b holds NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            report.add("b", latent)
    assert report.summary() == before
