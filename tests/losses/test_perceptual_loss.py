"""LPIPS on videos: frames are folded, averaged, and may be subsampled."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mg.losses.perceptual import PerceptualLoss, draw_frame_indices
from mg.models.perceptual import LPIPS, LPIPSConfig


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    before = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=before)


@pytest.fixture
def network() -> LPIPS:
    ms.set_seed(0)
    return LPIPS(LPIPSConfig("vgg", (4, 4, 6, 6, 6)))


def make_videos() -> tuple[Tensor, Tensor]:
    rng = np.random.RandomState(0)
    shape = (2, 3, 4, 16, 16)
    return tuple(Tensor(rng.uniform(-1, 1, shape).astype(np.float32)) for _ in range(2))


def distances_by_frame(network: LPIPS, *videos: Tensor) -> np.ndarray:
    """Return distances (B, T), the frames picked out with numpy."""
    batch, _, num_frames = videos[0].shape[:3]
    images = [
        Tensor(np.stack([v.asnumpy()[b, :, t] for b in range(batch) for t in range(num_frames)]))
        for v in videos
    ]
    return network(*images).asnumpy().reshape(batch, num_frames)


def test_is_the_mean_over_frames_and_batch(mode, network):
    videos = make_videos()
    expected = distances_by_frame(network, *videos).mean()
    assert float(PerceptualLoss(network)(*videos)) == pytest.approx(expected, rel=1e-5)


def test_subsampled_frames(mode, network):
    videos = make_videos()
    expected = distances_by_frame(network, *videos)[:, [1, 3]].mean()
    loss = PerceptualLoss(network)
    indices = Tensor(np.array([1, 3], np.int32))
    value, gradient = ms.value_and_grad(loss, grad_position=1)(*videos, indices)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    by_frame = np.abs(gradient.asnumpy()).sum((0, 1, 3, 4))
    assert (by_frame > 0).tolist() == [False, True, False, True]


def test_trains_what_makes_the_video_but_not_itself(mode, network):
    class Brightness(nn.Cell):
        def __init__(self):
            super().__init__()
            self.gain = ms.Parameter(Tensor(0.5, ms.float32), name="gain")
            self.loss = PerceptualLoss(network)

        def construct(self, video):
            return self.loss(video, video * self.gain)

    cell = Brightness()
    trainable = cell.trainable_params()
    assert [parameter.name for parameter in trainable] == ["gain"]
    value, (gradient,) = ms.value_and_grad(cell, None, trainable)(make_videos()[0])
    assert float(value) > 0 and float(gradient) < 0  # a gain nearer 1 lowers the distance


def test_drawn_frames_are_even_repeatable_and_fair():
    drawn = [draw_frame_indices(8, 3, seed=1, step=step) for step in range(2000)]
    again = [draw_frame_indices(8, 3, seed=1, step=step) for step in range(2000)]
    np.testing.assert_array_equal(drawn, again)
    assert drawn[0].dtype == np.int32
    gaps = np.diff(np.array(drawn), axis=1)
    assert gaps.min() >= 2 and gaps.max() <= 3
    share = np.bincount(np.concatenate(drawn), minlength=8) / 2000
    np.testing.assert_allclose(share, 3 / 8, atol=0.05)
    np.testing.assert_array_equal(draw_frame_indices(4, 4, seed=0, step=7), [0, 1, 2, 3])


@pytest.mark.parametrize("num_frames", [0, 5])
def test_drawing_refuses(num_frames):
    with pytest.raises(ValueError, match="from 1 to 4"):
        draw_frame_indices(4, num_frames, seed=0, step=0)
