"""PWC-Net and FloLPIPS against numbers of the public implementation (tests/fixtures/README.md)."""

import zlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.metrics.flolpips import dis_flow, flolpips, load_pwcnet, pwcnet_flow
from mg.metrics.lpips import lpips
from mg.models.perceptual import LPIPS, LPIPSConfig, LPIPSMaps
from mg.models.pwcnet.config import tensor_names
from mg.models.pwcnet.network import cost_volume, warp

ORACLE = Path(__file__).parents[1] / "fixtures" / "flolpips.npz"
# AlexNet's convolutions as LPIPS files call them.
ALEX = ("net.slice1.0", "net.slice2.3", "net.slice3.6", "net.slice4.8", "net.slice5.10")


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", autouse=True)
def line_by_line():
    ms.runtime.launch_blocking()
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=before)


def draw(name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Return the weights that the oracle's numbers were computed with."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    scale = 0.1 if len(shape) == 1 else gain / np.sqrt(np.prod(shape[1:]))
    return (scale * values).astype(np.float32)


@pytest.fixture(scope="module")
def pwcnet_file(tmp_path_factory) -> Path:
    """Return a weight file as users have it."""
    path = tmp_path_factory.mktemp("weights") / "pwcnet.npz"
    np.savez(path, **{name: draw(name, shape) for name, (_, shape) in tensor_names().items()})
    return path


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    network = LPIPS(LPIPSConfig("alex"))
    parameters = network.parameters_dict()
    for index, name in enumerate(ALEX):
        for kind in ("weight", "bias"):
            own = parameters[f"stages.{index}.convs.0.{kind}"]
            own.set_data(Tensor(draw(f"alex.{name}.{kind}", own.shape, 1.4)))
        head = parameters[f"heads.{index}.weight"]
        values = draw(f"alex.lin{index}.model.1.weight", (1, *head.shape, 1, 1), 1.4)
        head.set_data(Tensor(np.abs(values).reshape(-1)))
    return network


def frames_of(oracle: dict, name: str) -> np.ndarray:
    return oracle[f"i_{name}"].transpose(0, 2, 3, 1)


def test_cost_volume_and_warp(oracle):
    first, second = Tensor(oracle["i_corr_a"]), Tensor(oracle["i_corr_b"])
    np.testing.assert_allclose(cost_volume(first, second).asnumpy(), oracle["o_corr"], atol=1e-6)
    warped = warp(first, Tensor(oracle["i_warp_flow"])).asnumpy()
    np.testing.assert_allclose(warped, oracle["o_warp"], atol=1e-5)


def test_flow_and_flolpips(oracle, pwcnet_file, alex):
    flows = []
    flow_of = pwcnet_flow(load_pwcnet(pwcnet_file))

    def remembered(first, second):
        flows.append(flow_of(first, second))
        return flows[-1]

    videos = frames_of(oracle, "gt"), frames_of(oracle, "rec")
    values = flolpips(*videos, maps=LPIPSMaps(alex), flow_of=remembered)
    for flow, name in zip(flows, ("gt", "rec"), strict=True):
        flow = flow.transpose(2, 0, 1)[:, ::4, ::4]
        np.testing.assert_allclose(flow, oracle[f"o_flow_{name}"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(values, oracle["o_flolpips_per_pair"], rtol=0, atol=1e-6)
    plain = lpips(videos[0][:1], videos[1][:1], network=alex)
    np.testing.assert_allclose(plain, oracle["o_lpips_per_pair"], rtol=0, atol=1e-6)


def test_equal_flows_give_plain_lpips(oracle, alex):
    videos = frames_of(oracle, "gt"), frames_of(oracle, "rec")
    still = np.zeros((64, 96, 2), np.float32)
    values = flolpips(*videos, maps=LPIPSMaps(alex), flow_of=lambda *_: still)
    np.testing.assert_allclose(values, oracle["o_lpips_per_pair"], rtol=0, atol=1e-6)
    same = flolpips(videos[0], videos[0], maps=LPIPSMaps(alex), flow_of=dis_flow())
    np.testing.assert_array_equal(same, 0)


def test_dis_flow_weighs_what_moves_wrongly(oracle, alex):
    """Noise where motion is right too counts less than the same noise where it is wrong."""
    reference = np.repeat(frames_of(oracle, "gt")[:1], 2, axis=0)
    noise = np.random.RandomState(0).randint(-25, 26, reference.shape[1:])
    generated = reference.copy()
    generated[0, :, 48:] = np.clip(reference[0] + noise, 0, 255)[:, 48:]
    generated[0, :, :48] = np.roll(generated[0], 3, axis=1)[:, :48]
    maps = LPIPSMaps(alex)
    weighted = flolpips(reference, generated, maps=maps, flow_of=dis_flow())
    plain = lpips(reference[:1], generated[:1], network=alex)
    assert weighted.shape == (1,) and weighted[0] > 0 and abs(weighted[0] / plain[0] - 1) > 0.02


def test_weights_that_are_missing_or_of_another_network(pwcnet_file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--pwcnet_path, or take flolpips_dis"):
        load_pwcnet(None)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load_pwcnet(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="does not fit PWC-Net: 127 tensors"):
        load_pwcnet(tmp_path / "other.npz")


def test_small_and_single_frames_are_refused(alex):
    for shape in ((1, 64, 64, 3), (2, 30, 64, 3)):
        frames = np.zeros(shape, np.uint8)
        with pytest.raises(ValueError, match="needs at least 2 frames of 31x31"):
            flolpips(frames, frames, maps=LPIPSMaps(alex), flow_of=dis_flow())
