"""Hours from core-seconds: the formula, and sizes that are scaled."""

import pytest

from benchmarks.bench_own_videos import PASSES, Cost, rounded, table

COST = Cost(64, autoencoder=2.0, encoding=0.5, generator=0.25)


def test_hours_are_clips_times_passes_times_seconds():
    autoencoder, generator = PASSES[1_000]
    hours = 1000 * 2 * autoencoder / 3600, 1000 * 0.5 / 3600, 1000 * 0.25 * generator / 3600
    assert COST.hours(1_000) == pytest.approx(hours)
    assert COST.scaled(128).hours(1_000) == pytest.approx([4 * each for each in hours])


def test_the_table_has_a_row_for_each_number_and_size():
    lines = table([COST, COST.scaled(256)]).splitlines()
    assert len(lines) == 2 + 2 * len(PASSES)
    assert lines[2].startswith("| 10 | 16x64x64 |") and lines[-1].startswith("| 100,000 | 16x256")


@pytest.mark.parametrize(
    ("hours", "text"), [(0.01234, "0.012"), (3.456, "3.5"), (42.4, "42"), (1234.5, "1,200")]
)
def test_two_digits_are_shown(hours, text):
    assert rounded(hours) == text
