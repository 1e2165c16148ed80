"""Where a training of a TAE with a linear path begins."""

import numpy as np
import pytest
from mindspore import Tensor

from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.weights.safetensors_file import write_safetensors
from mg.weights.stored_config import config_metadata
from tests.tiny import TAE_WITH_LINEAR_PATH as CONFIG

pytestmark = pytest.mark.usefixtures("pynative_mode")


def test_a_training_begins_with_the_principal_components(make_config, tmp_path):
    config = make_config(tmp_path / "run", model=CONFIG, freeze=(), batch_size=2)
    task = AutoencoderTrainer(config).task
    video = task.dataset.batch(0, 2).frames
    rest = np.mean((task.autoencoder(Tensor(video)).asnumpy() - video) ** 2)
    assert rest < 0.1 * video.var()
    path = tmp_path / "tae.safetensors"
    tensors = task.autoencoder.tensors()
    tensors["encoder.linear.bias"] += 1
    write_safetensors(path, tensors, metadata=config_metadata(CONFIG.to_dict()))
    config = make_config(tmp_path / "next", pretrained=str(path), model=None, freeze=())
    after = AutoencoderTrainer(config).task.autoencoder.tensors()
    np.testing.assert_array_equal(after["encoder.linear.bias"], tensors["encoder.linear.bias"])
