"""Learning rate by step."""

import pytest

from mg.training.autoencoder.autoencoder_config import OptimSettings
from mg.training.optimizers.schedule import learning_rate


def test_warm_up_is_linear_and_then_constant():
    settings = OptimSettings(lr=0.4, warmup_steps=4)
    rates = [learning_rate(step, 8, settings) for step in range(8)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])


def test_cosine_falls_from_lr_to_lr_end():
    settings = OptimSettings(lr=1.0, lr_end=0.2, lr_schedule="cosine", warmup_steps=2)
    rates = [learning_rate(step, 7, settings) for step in range(7)]
    half_root = 0.5**0.5
    expected = [0.5, 1.0, 1.0, 0.6 + 0.4 * half_root, 0.6, 0.6 - 0.4 * half_root, 0.2]
    assert rates == pytest.approx(expected)
    assert learning_rate(100, 7, settings) == pytest.approx(0.2)  # stays at the end


def test_linear_falls_from_lr_to_lr_end():
    settings = OptimSettings(lr=1.0, lr_end=0.2, lr_schedule="linear", warmup_steps=2)
    rates = [learning_rate(step, 7, settings) for step in range(7)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])
    assert learning_rate(100, 7, settings) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="lr_schedule='steps'; expected constant, cosine or lin"):
        OptimSettings(lr_schedule="steps")
