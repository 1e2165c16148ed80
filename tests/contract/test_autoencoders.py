"""What every family of autoencoders keeps: one contract, a test for each of its points."""

import dataclasses
import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mg.data.latent_files import read_latent, read_latent_info
from mg.data.manifest import build_manifest
from mg.data.video import iterate_frames
from mg.data.video_writer import write_video
from mg.models.autoencoder_parts import AutoencoderParts
from mg.models.families import AUTOENCODERS, autoencoder_family, denoiser_family
from mg.models.reading import read_autoencoder
from mg.pipelines.autoencoder import AutoencoderConfig, load_autoencoder
from mg.pipelines.decode import decode_latent_files
from mg.pipelines.encode import encode_videos
from mg.pipelines.generator_folder import load_generator
from mg.pipelines.generator_writer import save_generator
from mg.pipelines.reconstruct import reconstruct_videos
from mg.pipelines.reconstruction_settings import ReconstructionSettings
from mg.pipelines.streaming import decode_latents, encode_frames
from mg.tiling.sizes import Tiling, frames_unit
from mg.training.autoencoder.autoencoder_config import (
    DataSettings,
    LossSettings,
    OptimSettings,
    TrainVAEConfig,
    ValidationSettings,
)
from mg.training.autoencoder.autoencoder_trainer import AutoencoderTrainer
from mg.vaes import VideoVAE
from mg.vaes.video_vae import family_class
from mg.weights.safetensors_file import read_safetensors, write_safetensors
from tests.tiny import AUTOENCODERS as TINY
from tests.tiny import TEXT, TRANSFORMER

# Families whose run is compiled; compiling the others takes a minute each. That their steps
# compile, too, the networks' own tests and those of the Ascend audit show.
COMPILED = ("dc_ae", "sd")
# Families whose networks see a clip as a whole; the others code any length piece by piece, as
# published.
WHOLE_CLIPS = ("tae", "causal_vae", "dc_ae")
FRAMEWISE = ("cogvideox", "hunyuan", "wan")  # of the others, those that can do without
SIDE = 16  # pixels, a multiple of every compression
families = pytest.mark.parametrize("family", AUTOENCODERS)


@pytest.fixture(scope="module")
def networks():
    """Return {family: a small network with random weights}; tests leave them as they are."""
    built = {}
    for name, fields in TINY.items():
        record = autoencoder_family(name)
        ms.set_seed(0)
        built[name] = record.build(record.read_config(fields))
        built[name].sample_deterministic = True
        built[name].set_train(False)
    return built


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return the path of a video of 24 frames of 24x32 pixels in which a pattern moves."""
    t, y, x = np.mgrid[:24, :24, :32]
    # Colours before detail: even the slowest of these networks learns them in a few steps.
    channels = [70 * a - 20 + 25 * np.sin((x * a + 2 * y + 3 * t) / 9) for a in (1, 2, 3)]
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, np.stack(channels, axis=-1).astype(np.uint8), fps=12, lossless=True)
    return path


def video_of(spec, num_frames):
    rng = np.random.default_rng(num_frames)
    return rng.uniform(-1, 1, (1, spec.video_channels, num_frames, SIDE, SIDE)).astype(np.float32)


def test_every_family_has_a_small_network():
    assert set(TINY) == set(AUTOENCODERS)


@families
def test_lengths_follow_the_law_of_the_spec(family, networks):
    spec = networks[family].spec
    before = 0
    for num_frames in range(1, 41):
        valid, length = spec.valid_frames(num_frames), spec.latent_frames(num_frames)
        assert valid >= num_frames and spec.valid_frames(valid) == valid
        assert spec.latent_frames(valid) == length >= before
        assert spec.decoded_frames(length) >= num_frames
        before = length


@families
@pytest.mark.usefixtures("pynative_mode")
def test_a_clip_comes_back_in_the_shapes_of_the_spec(family, networks):
    network = networks[family]
    for num_frames in (1, 6):
        video = video_of(network.spec, num_frames)
        z, mean, logvar = network.encode(Tensor(video))
        assert z.shape[1:] == network.spec.latent_shape(num_frames, SIDE, SIDE)
        assert mean.shape == logvar.shape == z.shape
        assert network.decode(z, num_frames).shape == video.shape


@families
def test_a_config_of_another_class_is_refused_in_one_line(family):
    record = autoencoder_family(family)
    for other in AUTOENCODERS:
        for name in autoencoder_family(other).class_names:
            fields = {"_class_name": name, **TINY[family]}
            if other == family:
                assert record.read_config(fields).spec == record.read_config(TINY[family]).spec
                continue
            message = f"of class '{name}', but the family '{family}' has {record.class_names[0]}"
            with pytest.raises(ValueError, match=message) as caught:
                record.read_config(fields)
            assert "\n" not in str(caught.value)
            with pytest.raises(ValueError, match=f"^model: the config is {message}"):
                TrainVAEConfig(
                    output_path="out",
                    video_folder="clips",
                    model={"family": family, "_class_name": name},
                )


@families
def test_unscaling_undoes_scaling(family, networks):
    spec = networks[family].spec
    latent = np.random.default_rng(0).standard_normal((2, spec.channels, 2, 3, 3), np.float32)
    there = spec.scale(latent)
    np.testing.assert_allclose(spec.unscale(there), latent, rtol=0, atol=1e-5)
    std = spec.scale_std(latent)
    np.testing.assert_allclose(std, there - spec.scale(0 * latent), rtol=0, atol=1e-5)


@families
def test_loading_is_strict_and_changes_nothing_where_it_fails(family, networks):
    network = networks[family]
    tensors = network.tensors()
    assert {name: array.shape for name, array in tensors.items()} == autoencoder_family(
        family
    ).shapes(network.config)
    first, last = next(iter(tensors)), list(tensors)[-1]
    missing = {name: array + 1 for name, array in tensors.items() if name != last}
    for wrong in (
        missing,
        {**missing, last: tensors[last], "encoder.other.weight": tensors[first]},
        {**missing, last: tensors[last][..., None]},
        {**missing, last: tensors[last].astype(np.int32)},
    ):
        with pytest.raises(ValueError, match=r"missing|extra|misshapen|int32|config"):
            network.load_tensors(wrong)
    for name, array in network.tensors().items():
        np.testing.assert_array_equal(array, tensors[name])


@families
def test_saved_and_loaded_it_is_the_same(family, networks, tmp_path):
    vae = family_class(family)(networks[family])
    vae.save_pretrained(tmp_path)
    back = VideoVAE.from_pretrained(tmp_path, inflate_method="none")
    assert (back.family, back.spec) == (family, networks[family].spec)
    assert back.network.config == networks[family].config
    for name, array in back.tensors().items():
        np.testing.assert_array_equal(array, networks[family].tensors()[name])
    loaded = load_autoencoder(AutoencoderConfig(ckpt_path=str(tmp_path), inflate_method="none"))
    assert (loaded.family, loaded.spec) == (family, networks[family].spec)


def generator_folder(folder, autoencoder, channels):
    """Return a folder with a generator around an autoencoder with latents of so many channels."""
    denoiser = denoiser_family("movie_gen")
    config = denoiser.read_config(
        TRANSFORMER | {"latent_channels": channels, "text_encoders": TEXT}
    )
    save_generator(
        folder,
        transformer_tensors=denoiser.build(config).tensors(),
        transformer_config=config,
        autoencoder=autoencoder,
        text_encoders=["word,width=32,max_tokens=4"],
        defaults={"num_frames": 4, "size": [8, 8], "fps": 8, "guidance": 1.0, "steps": 1},
    )
    return folder


@families
def test_a_generator_hands_its_autoencoder_on_bit_for_bit(family, networks, tmp_path):
    network = networks[family]
    parts = load_generator(
        generator_folder(tmp_path / "generator", network, network.spec.channels)
    ).autoencoder
    assert (parts.family.name, parts.config, parts.spec) == (family, network.config, network.spec)
    back = parts.build()
    assert back.spec == network.spec
    tensors = network.tensors()
    assert back.tensors().keys() == tensors.keys()
    for name, array in back.tensors().items():
        np.testing.assert_array_equal(array, tensors[name])


@pytest.mark.usefixtures("pynative_mode")
def test_a_stored_scale_counts_more_than_the_config_through_every_door(networks, clip, tmp_path):
    """Open-Sora's weights hold the scale; its config.json states one, too."""
    folder = tmp_path / "weights"
    vae = family_class("opensora")(networks["opensora"])
    vae.save_pretrained(folder)
    tensors = read_safetensors(folder / vae.weights_file)
    tensors["scale"], tensors["shift"] = 2 * tensors["scale"], tensors["shift"] - 1
    write_safetensors(folder / vae.weights_file, tensors, overwrite=True)

    spec = VideoVAE.from_pretrained(folder).spec
    stated = networks["opensora"].config.spec
    np.testing.assert_allclose(spec.factor, np.array(stated.factor) / 2, rtol=1e-6)
    np.testing.assert_allclose(
        spec.offset, (np.array(stated.offset) + stated.factor) / 2, rtol=1e-6
    )
    network = load_autoencoder(AutoencoderConfig(ckpt_path=str(folder)))
    parts = read_autoencoder(folder)
    assert network.spec == parts.spec == parts.build().spec == spec
    assert AutoencoderParts.of_network(network).spec == spec
    generator = load_generator(generator_folder(tmp_path / "generator", folder, 4))
    assert generator.autoencoder.spec == generator.autoencoder.build().spec == spec
    manifest = build_manifest(video_folder=clip.parent)
    encode_videos(network, manifest, tmp_path / "latents", image_size=SIDE, max_frames=1)
    assert read_latent_info(tmp_path / "latents" / "clip.safetensors").latent_spec == spec


@families
@pytest.mark.usefixtures("pynative_mode")
def test_one_tile_is_no_tile(family, networks):
    network = networks[family]
    video = Tensor(video_of(network.spec, network.spec.valid_frames(6)))
    mean, logvar = network.posterior(video)
    frames = network.decode(mean, 6)
    tiles = Tiling.default(network.spec)
    network.use_tile, network.tiling = True, tiles
    try:
        for found, right in zip(network.posterior(video), (mean, logvar), strict=True):
            np.testing.assert_allclose(found.asnumpy(), right.asnumpy(), rtol=0, atol=1e-6)
        found = network.decode(mean, 6).asnumpy()
        np.testing.assert_allclose(found, frames.asnumpy(), rtol=0, atol=1e-6)
    finally:
        network.use_tile = False


@families
@pytest.mark.usefixtures("pynative_mode")
def test_streaming_is_coding_in_tiles_of_time(family, networks):
    network = networks[family]
    spec = network.spec
    unit = frames_unit(spec)
    num_frames = spec.valid_frames(3 * unit)
    tiling = Tiling(unit, 0, 0, 0, 0)
    frames = np.random.default_rng(1).integers(0, 256, (num_frames, SIDE, SIDE, 3), np.uint8)
    video = np.float32(frames.transpose(3, 0, 1, 2)[None]) / 127.5 - 1
    network.use_tile, network.tiling = True, tiling
    try:
        mean, _ = network.posterior(Tensor(video))
        whole = network.decode(mean, num_frames).asnumpy()[0]
        network.use_tile = False
        means = np.concatenate([mean for mean, _ in encode_frames(network, iter(frames))], 1)
        pieces = list(decode_latents(network, [means], num_frames))
    finally:
        network.use_tile, network.tiling = False, Tiling.default(spec)
    np.testing.assert_allclose(means, mean.asnumpy()[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, rtol=0, atol=1e-5)


def coded_by_both(family, network, num_frames):
    """Return means and videos of a clip, by `VideoVAE` and by the pipelines of files."""
    frames = np.random.default_rng(2).integers(0, 256, (num_frames, SIDE, SIDE, 3), np.uint8)
    video = np.float32(frames.transpose(3, 0, 1, 2)[None]) / 127.5 - 1
    vae = family_class(family)(network)
    posterior = vae.encode(video)
    mean, decoded = posterior.mean.asnumpy()[0], vae.decode(posterior).asnumpy()[0]
    means = np.concatenate([mean for mean, _ in encode_frames(network, iter(frames))], 1)
    pieces = decode_latents(network, [mean], num_frames)
    return (mean, decoded), (means, np.concatenate(list(pieces), 1))


@families
@pytest.mark.usefixtures("pynative_mode")
def test_files_are_coded_as_clips_are(family, networks):
    """Of more than one piece; networks of whole clips get tiles that are as long."""
    network = networks[family]
    default = network.tiling
    if family in WHOLE_CLIPS:
        network.tiling = dataclasses.replace(default, frames=64)
    try:
        by_clip, by_file = coded_by_both(family, network, 38)
    finally:
        network.tiling = default
    for found, right in zip(by_file, by_clip, strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5)


@families
@pytest.mark.usefixtures("pynative_mode")
def test_coding_framewise_is_a_switch_where_there_is_a_choice(family, networks):
    network = networks[family]
    assert (network.framewise is not None) == (family in FRAMEWISE)
    if family not in FRAMEWISE:
        with pytest.raises(ValueError, match="no effect"):
            network.set_framewise(False)
        return
    (mean, _), _ = coded_by_both(family, network, 21)
    network.set_framewise(False)
    try:
        assert network.piece_frames is None and network.frame_tiles is None
        by_clip, by_file = coded_by_both(family, network, 21)
    finally:
        network.set_framewise(True)
    for found, right in zip(by_file, by_clip, strict=True):  # one tile
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5)
    difference = np.abs(by_clip[0] - mean).max()
    assert difference < 1e-5 if family == "wan" else difference > 1e-4


@families
@pytest.mark.usefixtures("pynative_mode")
def test_the_last_weight_makes_the_frames_of_the_features(family, networks):
    network = networks[family]
    num_frames = network.spec.valid_frames(11)
    z = Tensor(
        np.random.default_rng(0).standard_normal(
            (2, *network.spec.latent_shape(num_frames, SIDE, SIDE)), np.float32
        )
    )
    frames = network.frames_from(z, num_frames).asnumpy()
    features, decoded = network.features(z, num_frames)
    assert features.shape[0] == 2 * decoded == 2 * frames.shape[2]
    weight = network.last_weight
    found = network.frames_of_features(features, decoded, weight).asnumpy()
    np.testing.assert_allclose(found, frames, rtol=0, atol=1e-5)
    # Linear in the weight, but for the bias.
    zero = network.frames_of_features(features, decoded, 0 * weight).asnumpy()
    twice = network.frames_of_features(features, decoded, 2 * weight).asnumpy()
    np.testing.assert_allclose(twice - zero, 2 * (frames - zero), rtol=0, atol=1e-4)


def run_config(family, clip, folder, **changes):
    spec = autoencoder_family(family).read_config(TINY[family]).spec
    num_frames = spec.valid_frames(5)
    values = {
        "model": {"family": family, **TINY[family]},
        "steps": 16,
        "checkpoint_interval": 16,
        "device": "CPU",
        "loss": LossSettings(mse_weight=1.0, perceptual_loss_weight=0.0, kl_loss_weight=1e-7),
        **changes,
    }
    return TrainVAEConfig(
        output_path=str(folder),
        video_folder=str(clip.parent),
        data=DataSettings(sample_n_frames=num_frames, size=SIDE, num_workers=0),
        optim=OptimSettings(lr=5e-3, warmup_steps=2, clip_grad_norm=1.0, ema_decay=0.5),
        validation=ValidationSettings(
            video_folder=str(clip.parent), interval=16, num_frames=num_frames, size=SIDE
        ),
        **values,
    )


@pytest.mark.usefixtures("pynative_mode")
def test_a_new_family_costs_a_folder_and_a_line(clip, tmp_path, monkeypatch):
    """Trained, written, recognised, used: nothing else in the house knows of it."""
    monkeypatch.setitem(AUTOENCODERS, "exercise", "tests.contract.exercise")
    monkeypatch.setitem(TINY, "exercise", {"channels": 5})
    weights = AutoencoderTrainer(run_config("exercise", clip, tmp_path / "run")).run()
    vae = VideoVAE.from_pretrained(weights)
    assert (vae.family, vae.latent_channels, vae.class_name) == (
        "exercise",
        5,
        "ExerciseAutoencoder",
    )
    network = load_autoencoder(AutoencoderConfig(ckpt_path=str(weights)))
    manifest = build_manifest(video_folder=clip.parent)
    encode_videos(network, manifest, tmp_path / "latents")
    decode_latent_files(network, tmp_path / "latents", tmp_path / "videos")
    assert len(list(iterate_frames(tmp_path / "videos" / "clip.mp4"))) == 24


@families
def test_training_improves_the_frames_and_its_weights_code_files(family, clip, tmp_path, request):
    """A run; its weights encode a video to a file, decode it, reconstruct it."""
    request.getfixturevalue("graph_mode" if family in COMPILED else "pynative_mode")
    weights = AutoencoderTrainer(run_config(family, clip, tmp_path / "run")).run()
    lines = (tmp_path / "run" / "validation.jsonl").read_text().splitlines()
    psnr = [json.loads(line)["psnr"] for line in lines]
    assert len(psnr) == 2 and psnr[1] > psnr[0] + 1.0
    network = load_autoencoder(AutoencoderConfig(ckpt_path=str(weights), inflate_method="none"))
    assert network.family == family
    manifest = build_manifest(video_folder=clip.parent)
    encode_videos(network, manifest, tmp_path / "latents", image_size=SIDE)
    latent = read_latent(tmp_path / "latents" / "clip.safetensors")
    assert (latent.info.family, latent.info.latent_spec) == (family, network.spec)
    decode_latent_files(network, tmp_path / "latents", tmp_path / "videos")
    decoded = list(iterate_frames(tmp_path / "videos" / "clip.mp4"))
    assert (len(decoded), decoded[0].shape) == (24, (SIDE, SIDE, 3))
    settings = ReconstructionSettings(num_frames=6, image_size=SIDE, lpips_path=None)
    report = reconstruct_videos(network, manifest, tmp_path / "reconstruction", settings)
    assert np.isfinite(report.summary()["psnr"])
