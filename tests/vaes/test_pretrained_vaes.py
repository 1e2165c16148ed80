"""From names, folders and files to a VAE, and back to a folder."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

import mg.models.reading
from mg.models.tae.tae import TAE_CONFIG, TemporalAutoencoder
from mg.vaes import VideoVAE
from mg.weights.checkpoint_file import write_weights
from mg.weights.safetensors_file import read_safetensors

pytestmark = pytest.mark.usefixtures("pynative_mode")
FIXTURES = Path(__file__).parents[1] / "fixtures"
VAES = FIXTURES / "vaes"
FOLDERS = {"sd": "kl", "cogvideox": "cogvae", "hunyuan": "hyvae"}


def assert_same_weights(vae, other):
    tensors, others = vae.tensors(), other.tensors()
    assert tensors.keys() == others.keys()
    for name, array in tensors.items():
        assert np.array_equal(array, others[name]), name


@pytest.fixture
def saved_image_vae(tmp_path):
    """A 2-D VAE of 32 channels and 16 of latent, in a folder of diffusers' kind."""
    config = json.loads((FIXTURES / "sd35_vae_tiny.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **config}))
    shutil.copy(
        FIXTURES / "sd35_vae_tiny.safetensors", tmp_path / "diffusion_pytorch_model.safetensors"
    )
    return tmp_path


@pytest.mark.parametrize("family", ["tae", *FOLDERS])
def test_saved_and_read_back_is_bit_equal(all_vaes, tmp_path, family):
    vae = all_vaes[family]
    vae.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    config = json.loads((tmp_path / "config.json").read_text())
    assert next(iter(config.items())) == ("_class_name", vae.class_name)
    stored = read_safetensors(tmp_path / "diffusion_pytorch_model.safetensors")
    assert {name: array.shape for name, array in stored.items()} == vae.shapes(config)
    back = VideoVAE.from_pretrained(tmp_path, method=family, inflate_method="none")
    assert_same_weights(back, vae)
    assert {**back.config, "_class_name": None} == {**vae.config, "_class_name": None}
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 1, 16, 16)).astype(np.float32)
    assert np.array_equal(back.encode(video).mean.asnumpy(), vae.encode(video).mean.asnumpy())

    with pytest.raises(FileExistsError, match=r"holds config\.json already"):
        vae.save_pretrained(tmp_path)
    vae.save_pretrained(tmp_path, overwrite=True)


def test_saved_tae_is_whole_for_the_tae_itself(all_vaes, tmp_path):
    from mg.models.tae.tae import TemporalAutoencoder

    all_vaes["tae"].save_pretrained(tmp_path)
    tae = TemporalAutoencoder(pretrained=tmp_path)
    assert tae.config == all_vaes["tae"].network.config


@pytest.mark.parametrize("folder", ["kl_old", "kl_shard"])
def test_former_names_and_shards_are_the_same_network(all_vaes, folder):
    vae = VideoVAE.from_pretrained(VAES / folder, inflate_method="none")
    assert_same_weights(vae, all_vaes["sd"])


def test_bfloat16_weights_are_widened(all_vaes):
    vae = VideoVAE.from_pretrained(VAES / "kl_bf16", inflate_method="none")
    for name, array in all_vaes["sd"].tensors().items():
        # bfloat16 keeps 8 bits: half a unit of the last one is 2^-9 of the value at most.
        np.testing.assert_allclose(vae.tensors()[name], array, rtol=2**-8, atol=0)
        assert vae.tensors()[name].dtype == np.float32


@pytest.mark.parametrize("family", FOLDERS)
@pytest.mark.parametrize("method", ["auto", "local", "right"])
def test_methods_that_fit(all_vaes, family, method):
    method = family if method == "right" else method
    vae = VideoVAE.from_pretrained(str(VAES / FOLDERS[family]), method, "none")
    assert (vae.family, type(vae)) == (family, type(all_vaes[family]))


def test_wrong_method_is_refused_with_what_was_recognised():
    with pytest.raises(ValueError, match=r"method='hunyuan', but .* of family 'cogvideox'"):
        VideoVAE.from_pretrained(VAES / "cogvae", "hunyuan")
    with pytest.raises(ValueError, match=r"method='sd', but THUDM/CogVideoX-2b .* 'cogvideox'"):
        VideoVAE.from_pretrained("THUDM/CogVideoX-2b", "sd")
    with pytest.raises(ValueError, match="method='vae'; expected one of auto, local, tae"):
        VideoVAE.from_pretrained(VAES / "cogvae", "vae")
    with pytest.raises(ValueError, match="inflate_method='tails'; expected one of central"):
        VideoVAE.from_pretrained(VAES / "cogvae", inflate_method="tails")
    with pytest.raises(ValueError, match="a TAE is not causal: take one of central, replicate"):
        VideoVAE.from_pretrained(VAES / "kl", inflate_method="tail")  # a TAE is not causal
    with pytest.raises(ValueError, match=r"inflate_method='average' .* family 'cogvideox'"):
        VideoVAE.from_pretrained(VAES / "cogvae", inflate_method="average")
    with pytest.raises(ValueError, match="nothing is inflated here"):
        VideoVAE.from_pretrained(
            VAES / "kl", inflate_method="none", inflate_options={"norm_per_frame": True}
        )


def test_unknown_names_and_missing_paths():
    with pytest.raises(ValueError, match="did you mean 'stabilityai/sd-vae-ft-mse'"):
        VideoVAE.from_pretrained("stabilityai/sd-vae-ft-ms")
    for path in ("./nowhere", "nowhere/x.safetensors", VAES / "nowhere", "~/nowhere-at-all"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            VideoVAE.from_pretrained(path)
    with pytest.raises(FileNotFoundError, match="CogVideoX-2b does not exist"):
        VideoVAE.from_pretrained("THUDM/CogVideoX-2b", "local")


def test_names_go_through_the_download(monkeypatch, tmp_path, all_vaes):
    asked = []

    def fetch(name, *, cache_folder):
        asked.append((name, cache_folder))
        return VAES / "cogvae"

    monkeypatch.setattr(mg.models.reading, "fetch", fetch)
    vae = VideoVAE.from_pretrained("zai-org/CogVideoX-5b", cache_folder=tmp_path)
    assert asked == [("cogvideox-5b", tmp_path)]
    assert_same_weights(vae, all_vaes["cogvideox"])


@pytest.mark.parametrize("inside", ["vae", "hunyuan-video-t2v-720p/vae"])
def test_vae_in_the_folder_of_a_pipeline(tmp_path, all_vaes, inside):
    shutil.copytree(VAES / "hyvae", tmp_path / inside)
    write_weights(tmp_path / "whole_pipeline.safetensors", {"x": np.zeros(3, np.float32)})
    assert_same_weights(VideoVAE.from_pretrained(tmp_path), all_vaes["hunyuan"])


def test_original_hunyuanvideo_config_and_prefix(tmp_path, all_vaes):
    tensors = read_safetensors(VAES / "hyvae" / "diffusion_pytorch_model.safetensors")
    write_weights(tmp_path / "pytorch_model.pt", {f"vae.{n}": a for n, a in tensors.items()})
    original = {
        "_class_name": "AutoencoderKLCausal3D",
        "act_fn": "silu",
        "block_out_channels": [8, 8, 8, 8],
        "down_block_types": ["DownEncoderBlockCausal3D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "mid_block_add_attention": True,
        "norm_num_groups": 2,
        "out_channels": 3,
        "sample_size": 256,
        "sample_tsize": 64,
        "scaling_factor": 0.476986,
        "time_compression_ratio": 4,
        "up_block_types": ["UpDecoderBlockCausal3D"] * 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(original))
    vae = VideoVAE.from_pretrained(tmp_path)
    assert_same_weights(vae, all_vaes["hunyuan"])
    vae.save_pretrained(tmp_path / "saved")
    assert (
        json.loads((tmp_path / "saved" / "config.json").read_text()).items()
        <= {
            **all_vaes["hunyuan"].config,
            "_class_name": "AutoencoderKLHunyuanVideo",
        }.items()
    )


def test_config_given_in_place_of_the_checkpoints(tmp_path):
    config = json.loads((VAES / "cogvae" / "config.json").read_text())
    file = tmp_path / "other.json"
    file.write_text(json.dumps({**config, "scaling_factor": 0.7}))
    for given in (file, {**config, "scaling_factor": 0.7}):
        assert VideoVAE.from_pretrained(VAES / "cogvae", config=given).config[
            "scaling_factor"
        ] == pytest.approx(0.7)
    file.write_text("[]")
    with pytest.raises(ValueError, match="JSON object is expected"):
        VideoVAE.from_pretrained(VAES / "cogvae", config=file)
    file.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        VideoVAE.from_pretrained(VAES / "cogvae", config=file)


def test_bare_weights_name_what_is_assumed(tmp_path, all_vaes, saved_image_vae, caplog):
    shutil.copy(VAES / "cogvae" / "diffusion_pytorch_model.safetensors", tmp_path / "c.safetensors")
    (saved_image_vae / "config.json").unlink()
    bare = saved_image_vae / "diffusion_pytorch_model.safetensors"
    vae = VideoVAE.from_pretrained(bare, "local", "none")
    assert "assumed are scaling_factor=1.5305, shift_factor=0.0609" in caplog.text
    assert (vae.config["block_out_channels"], vae.config["latent_channels"]) == (
        [32, 32, 64, 64],
        16,
    )
    with pytest.raises(ValueError, match=r"8 channels the usual 32 groups .* cannot be assumed"):
        VideoVAE.from_pretrained(tmp_path / "c.safetensors")
    write_weights(tmp_path / "tae.safetensors", all_vaes["tae"].tensors())
    caplog.clear()
    with pytest.raises(ValueError, match="norm_groups=32"):
        VideoVAE.from_pretrained(tmp_path / "tae.safetensors")
    assert "assumed are temporal_padding=published, norm_groups=32" in caplog.text


def test_weights_that_do_not_fit_their_config_are_refused():
    config = json.loads((VAES / "cogvae" / "config.json").read_text())
    with pytest.raises(ValueError, match=r"cogvae.*: block_out_channels: the file says \[8, 8, 8"):
        VideoVAE.from_pretrained(
            VAES / "cogvae", config={**config, "block_out_channels": [16, 16, 16, 16]}
        )
    types = [*config["down_block_types"], "CogVideoXDownBlock3D"]
    with pytest.raises(ValueError, match="down_block_types: the file has 4 levels, the config"):
        VideoVAE.from_pretrained(VAES / "cogvae", config={**config, "down_block_types": types})


HUGE = 10**9


@pytest.mark.parametrize("inflate_method", ["none", "central"])
@pytest.mark.parametrize(
    ("folder", "field", "value"),
    [
        *itertools.product(["kl", "cogvae", "hyvae"], ["layers_per_block"], [HUGE, 1000]),
        *itertools.product(["kl", "cogvae", "hyvae"], ["block_out_channels"], [[HUGE] * 4]),
        ("kl", "latent_channels", HUGE),
        ("cogvae", "in_channels", 4096),
        ("hyvae", "norm_num_groups", HUGE),
    ],
)
def test_sizes_that_no_weights_have_are_refused_before_anything_is_built(
    monkeypatch, folder, field, value, inflate_method
):
    monkeypatch.setattr("mindspore.nn.Cell.__init__", None)
    monkeypatch.setattr(mg.models.reading, "inflate_image_vae", None)
    config = json.loads((VAES / folder / "config.json").read_text())
    with pytest.raises(ValueError, match=rf"{field}(=1000|: the file says)"):
        VideoVAE.from_pretrained(
            VAES / folder, inflate_method=inflate_method, config={**config, field: value}
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [("ch", HUGE), ("num_res_blocks", HUGE), ("z_channels", 512), ("ch_mult", [1] * 5000)],
)
def test_a_tae_of_such_sizes_is_refused_before_anything_is_built(
    monkeypatch, all_vaes, tmp_path, field, value
):
    from mg.models.tae.tae import TemporalAutoencoder

    write_weights(tmp_path / "a.safetensors", all_vaes["tae"].tensors())
    config = {**all_vaes["tae"].config, field: value}
    (tmp_path / "a.json").write_text(json.dumps(config))
    monkeypatch.setattr("mindspore.nn.Cell.__init__", None)
    for load in (VideoVAE.from_pretrained, lambda path: TemporalAutoencoder(pretrained=path)):
        with pytest.raises(ValueError, match=rf"{field}(=1000|: the file says)"):
            load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("family", ["tae", "sd", "cogvideox", "hunyuan"])
def test_training_checkpoints_of_every_family(all_vaes, tmp_path, family):
    """Prefixes, an average under a key of its own, a step, a loss: the network is the same."""
    vae = all_vaes[family]
    prefix = "module._orig_mod."
    tensors = {f"{prefix}{name}": array for name, array in vae.tensors().items()}
    tensors |= {f"{prefix}loss.logvar": np.zeros((), np.float32), "step": np.array(7)}
    others = {f"ema.{name}": 2 * array for name, array in tensors.items() if name != "step"}
    for number, name in enumerate(("a.safetensors", "a.ckpt", "a.pt")):
        folder = tmp_path / str(number) / "vae"
        write_weights(folder / name, {**tensors, **others})
        (folder / "config.json").write_text(json.dumps(vae.stored_config()))
        for key, factor in ((prefix.rstrip("."), 1), ("ema", 2), (None, 2)):
            loaded = VideoVAE.from_pretrained(folder.parent, "auto", "none", key=key)
            for tensor, array in vae.tensors().items():
                assert np.array_equal(loaded.tensors()[tensor], factor * array), tensor


@pytest.mark.parametrize("method", ["central", "replicate", "average"])
def test_inflated_2d_vae_codes_an_image_as_it_did(saved_image_vae, method):
    """The TAE encodes an image as the 2-D VAE does; what is decoded is a whole latent frame."""
    image_vae = VideoVAE.from_pretrained(saved_image_vae, inflate_method="none")
    options = {"temporal_padding": "replicate"}
    tae = VideoVAE.from_pretrained(saved_image_vae, inflate_method=method, inflate_options=options)
    assert (tae.family, image_vae.family) == ("tae", "sd")
    assert (tae.compression.t, image_vae.compression.t) == (8, 1)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 1, 32, 32)).astype(np.float32)
    ours, theirs = tae.encode(image), image_vae.encode(image)
    for name in ("mean", "logvar"):
        actual, expected = getattr(ours, name).asnumpy(), getattr(theirs, name).asnumpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        tae.decode(ours).asnumpy(), image_vae.decode(theirs).asnumpy(), rtol=0, atol=1e-4
    )


def test_one_file_is_scaled_alike_through_both_doors(saved_image_vae):
    """The shift of Stable Diffusion 3.5 is that of TAE_CONFIG, and is added after the factor."""
    doors = (
        VideoVAE.from_pretrained(saved_image_vae),
        TemporalAutoencoder(pretrained=saved_image_vae / "diffusion_pytorch_model.safetensors"),
    )
    z = np.random.default_rng(0).standard_normal((1, 16, 1, 2, 2)).astype(np.float32)
    by_hand = TAE_CONFIG["scaling_factor"] * z + TAE_CONFIG["shift_factor"]
    scaled = [door.scale(Tensor(z)) for door in doors]
    for one, other in zip(scaled, reversed(doors), strict=True):
        np.testing.assert_allclose(one.asnumpy(), by_hand, rtol=0, atol=1e-6)
        np.testing.assert_allclose(other.unscale(one).asnumpy(), z, rtol=0, atol=1e-6)
    # Frame by frame the same weights are the image VAE that they were: (z - shift) * factor.
    image_vae = VideoVAE.from_pretrained(saved_image_vae, inflate_method="none")
    expected = (z - 0.0609) * 1.5305
    np.testing.assert_allclose(image_vae.scale(z).asnumpy(), expected, rtol=0, atol=1e-6)


def test_inflated_small_vae_of_four_channels(all_vaes):
    """Groups of normalisation come from the config, quantisation convolutions are kept."""
    tae = VideoVAE.from_pretrained(VAES / "kl", inflate_options={"norm_per_frame": True})
    assert tae.network.config.norm_per_frame
    assert tae.network.config.use_quant_conv
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, 2, 16, 16)).astype(np.float32)
    expected = all_vaes["sd"].encode(video[:, :, :1]).mean.asnumpy()  # the frame that is kept
    np.testing.assert_allclose(tae.encode(video).mean.asnumpy(), expected, rtol=0, atol=1e-4)
