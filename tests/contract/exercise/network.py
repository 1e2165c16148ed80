"""The exercise's network."""

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mg.models.autoencoder import Autoencoder
from mg.models.layers.convolution import Conv2d
from mg.models.layers.frames import fold_frames, unfold_frames
from mg.models.layers.moments import split_moments
from tests.contract.exercise.config import ExerciseConfig


class ExerciseAutoencoder(Autoencoder):
    """Each block of 2x2 pixels is a pixel of the latent, each frame a frame of it."""

    family = "exercise"

    def __init__(self, config: ExerciseConfig, **options: object) -> None:
        super().__init__(config, **options)
        self.down = Conv2d(3, 2 * config.channels, kernel_size=2, stride=2)
        self.up = Conv2d(config.channels, 12, kernel_size=3, padding=1)

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        x = self.down(fold_frames(video.astype(self.encode_dtype)))
        return split_moments(unfold_frames(x, video.shape[2]))

    def features(self, z: Tensor, num_frames: int | None = None) -> tuple[Tensor, int]:
        return fold_frames(z.astype(self.decode_dtype)), z.shape[2]

    def frames_of_features(self, features: Tensor, num_frames: int, weight: Tensor) -> Tensor:
        x = self.up.with_bias(self.up.with_weight(features, weight))
        return unfold_frames(ops.pixel_shuffle(x, 2), num_frames).astype(ms.float32)

    @property
    def last_weight(self) -> Parameter:
        return self.up.weight
