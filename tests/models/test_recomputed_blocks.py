"""Training steps of denoisers whose blocks are computed again in the backward pass."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.models.families import denoiser_family
from mg.training.denoiser.flow_loss import FlowLoss
from mg.training.settings import OptimSettings
from mg.training.step import TrainStep
from tests.tiny import DENOISERS

# Two blocks in a row of what adjoins its like; Movie Gen has a test of its own.
LAYERS = {
    "cogvideox": {"num_layers": 2},
    "hunyuan": {"num_layers": 1, "num_single_layers": 2},
    "unet": {},
}


def one_step(family, recompute_every):
    """Return loss, gradient norm and moments after a training step, by name."""
    family = denoiser_family(family)
    fields = {**DENOISERS[family.name], **LAYERS[family.name], "latent_channels": 4}
    network = family.build(family.read_config(fields), recompute_every=recompute_every)
    rng = np.random.default_rng(0)
    network.load_tensors(
        {
            name: 0.2 * rng.standard_normal(array.shape, np.float32)
            for name, array in network.tensors().items()
        }
    )
    step = TrainStep(FlowLoss(network), OptimSettings()).set_train()
    shape = (2, 4, 2, 4, 4)
    batch = [*rng.standard_normal((4, *shape), np.float32), np.array([0.2, 0.7], np.float32)]
    for text in network.config.text_encoders:
        batch.append(rng.standard_normal((2, text.max_tokens, text.width), np.float32))
        batch.append(np.ones((2, text.max_tokens), bool))
    scalars = (Tensor(value, ms.float32) for value in (1e-2, 1.0, 3e38))
    loss, _, norm, _ = step(*scalars, True, *map(Tensor, batch))
    return {"loss": loss.asnumpy(), "norm": norm.asnumpy(), **step.state()}


def check(family, *, limit):
    """Compare all, up to so much of the largest number of each tensor."""
    expected, found = one_step(family, 0), one_step(family, 1)
    assert np.isfinite(expected["loss"]) and expected["norm"] > 0
    assert set(found) == set(expected)
    for name, values in expected.items():
        tolerance = limit * np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("family", ["cogvideox", "hunyuan"])
def test_recomputed_blocks_give_the_same_gradients_compiled(family, graph_mode):
    check(family, limit=0)


@pytest.mark.parametrize("family", ["cogvideox", "unet"])
def test_recomputed_blocks_give_the_same_gradients_line_by_line(family, pynative_mode):
    check(family, limit=1e-5)  # gradients are added up in another order
