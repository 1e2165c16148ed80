"""Structure of latents: correlation by its definition, spectra of known waves, known directions."""

import itertools

import numpy as np
import pytest

from mg.metrics.latent_structure import LatentStructure, local_correlation


def correlation_by_definition(latent: np.ndarray) -> float:
    """Return the mean of `np.corrcoef` over all pairs of places of each window."""
    _, frames, height, width = latent.shape
    depth = 2 if frames > 1 else 1
    found = []
    for t, y, x in itertools.product(
        range(0, frames - depth + 1, depth), range(0, height - 1, 2), range(0, width - 1, 2)
    ):
        window = latent[:, t : t + depth, y : y + 2, x : x + 2].reshape(len(latent), -1)
        matrix = np.corrcoef(window.T)
        found.append(matrix[np.triu_indices(len(matrix), 1)].mean())
    return float(np.mean(found))


@pytest.mark.parametrize("shape", [(5, 4, 4, 6), (4, 3, 5, 5), (6, 1, 4, 4)])
def test_correlation_is_that_of_all_pairs(shape):
    latent = np.random.RandomState(0).randn(*shape).cumsum(3)
    value, num_windows = local_correlation(latent)
    assert value == pytest.approx(correlation_by_definition(latent), abs=1e-7)
    assert num_windows == max(1, shape[1] // 2) * (shape[2] // 2) * (shape[3] // 2)


def test_equal_and_independent_neighbours():
    rng = np.random.RandomState(1)
    same = np.broadcast_to(rng.randn(16, 1, 1, 1), (16, 2, 4, 4))
    assert local_correlation(same)[0] == pytest.approx(1, abs=1e-7)
    assert abs(local_correlation(rng.randn(16, 4, 32, 32))[0]) < 0.02
    for shape in ((1, 2, 4, 4), (4, 2, 1, 4)):
        with pytest.raises(ValueError, match="needs 2 channels and maps of 2x2"):
            local_correlation(np.zeros(shape))


def test_a_wave_lies_in_its_bin():
    """One cycle in 8 columns and one in 4 frames: all power at 1/8 in space and 1/4 in time."""
    t, y, x = np.meshgrid(np.arange(8), np.arange(16), np.arange(16), indexing="ij")
    wave = np.sin(2 * np.pi * (x / 8 + t / 4))[np.newaxis]
    structure = LatentStructure()
    structure.add(wave + 5)
    summary = structure.summary()
    for name, frequency in (("space_spectrum", 1 / 8), ("time_spectrum", 1 / 4)):
        shares = {entry["frequency"]: entry["share"] for entry in summary[name]}
        assert shares[frequency] == pytest.approx(1, abs=1e-9), name
    assert summary["low_frequency_share"] == pytest.approx(1, abs=1e-9)
    assert summary["local_correlation"] is None and y.any()  # one channel


def test_white_noise_has_power_everywhere():
    structure = LatentStructure()
    structure.add(np.random.RandomState(2).randn(8, 16, 32, 32))
    summary = structure.summary()
    # Power goes with the number of frequencies: a ring of radius 1/8 covers pi / 64 of the square.
    assert summary["low_frequency_share"] == pytest.approx(np.pi / 64, abs=0.01)
    assert summary["participation"] == pytest.approx(8, rel=0.01)
    assert summary["modes_for_90_percent"] == 8


def test_directions_of_known_variance_and_pieces():
    """Two directions of variance 3 and 1, mixed into three channels by a rotation."""
    rng = np.random.RandomState(3)
    rotation, _ = np.linalg.qr(rng.randn(3, 3))
    values = rng.randn(3, 4000)
    values = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    values[1] -= values[0] * (values[0] @ values[1]) / (values[0] @ values[0])
    values[1] /= values[1].std()
    values *= np.array([3**0.5, 1, 0]).reshape(3, 1)
    latent = (rotation @ values + 7).reshape(3, 10, 20, 20)
    whole, pieces = LatentStructure(), LatentStructure()
    whole.add(latent)
    for start in (0, 4):
        pieces.add(latent[:, start : start + (4 if start == 0 else 6)])
    for structure in (whole, pieces):
        shares = structure.summary()["eigenspectrum"]
        np.testing.assert_allclose(shares, [0.75, 0.25, 0], atol=1e-6)
        assert structure.summary()["modes_for_90_percent"] == 2
    assert whole.summary()["participation"] == pytest.approx(1 / (0.75**2 + 0.25**2), rel=1e-6)
    assert "2 of 3 hold 90 %" in whole.table()


def test_constant_and_missing_latents():
    structure = LatentStructure()
    with pytest.raises(ValueError, match="no latent was added"):
        structure.summary()
    structure.add(np.full((2, 1, 2, 2), 3.0))
    summary = structure.summary()
    assert summary["participation"] == 0 and summary["time_spectrum"] == []
    assert "participation 0.00" in structure.table()
