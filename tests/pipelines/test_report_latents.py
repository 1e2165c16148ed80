"""tools/report_latents.py on latent files and on videos."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mg.cli import run_main
from mg.data.latent_files import read_latent
from mg.data.manifest import build_manifest
from mg.pipelines.encode import encode_videos

TOOL = Path(__file__).parents[2] / "tools" / "report_latents.py"


@pytest.fixture
def run_tool(monkeypatch, make_tae):
    """Return a function that runs the tool as its command line would, on a stand-in network."""
    spec = importlib.util.spec_from_file_location("report_latents", TOOL)
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "report_latents", tool)
    spec.loader.exec_module(tool)
    # MindSpore lets a process choose its device once; here it has run before.
    monkeypatch.setattr(tool, "setup_device", lambda config: "CPU")
    monkeypatch.setattr(tool, "load_autoencoder", lambda config: make_tae())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        run_main(tool.main)

    return run


def test_videos_and_their_latent_files_give_the_same_report(
    run_tool, make_tae, weights, video_folder, tmp_path, capsys
):
    manifest = build_manifest(video_folder=video_folder)
    encode_videos(make_tae(), manifest, tmp_path / "latents", image_size=16)
    run_tool(
        "--input",
        tmp_path / "latents",
        "--json",
        tmp_path / "stored.json",
        "--plot",
        tmp_path / "spectra.png",
    )
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4 + 1 + 3
    options = ("--ckpt_path", weights, "--image_size", "16", "--json", tmp_path / "encoded.json")
    run_tool("--input", video_folder, *options)
    stored = json.loads((tmp_path / "stored.json").read_text())
    assert stored["num_latents"] == 3
    names = ("a", "short", "sub/b")
    means = [read_latent(tmp_path / "latents" / f"{name}.safetensors").mean for name in names]
    for channel, figures in enumerate(stored["channels"]):
        values = np.concatenate([mean[channel].ravel() for mean in means]).astype(np.float64)
        assert figures["num_values"] == values.size
        assert figures["mean"] == pytest.approx(values.mean(), abs=1e-9)
        assert figures["std"] == pytest.approx(values.std(), rel=1e-6)
    encoded = json.loads((tmp_path / "encoded.json").read_text())
    structures = [each.pop("structure") for each in (stored, encoded)]
    assert encoded == stored
    for values in zip(*(each["eigenspectrum"] for each in structures), strict=True):
        assert values[0] == pytest.approx(values[1], abs=1e-6)
    image = cv2.imread(str(tmp_path / "spectra.png"))
    assert image is not None and image.std() > 10


def test_a_latent_that_cannot_be_read_is_left_out(
    run_tool, make_tae, video_folder, tmp_path, caplog
):
    encode_videos(make_tae(), build_manifest(video_folder=video_folder / "a.mp4"), tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK")
    run_tool("--input", tmp_path, "--json", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["num_latents"] == 1
    assert "broken.npz is left out: " in caplog.text
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(SystemExit):
        run_tool("--input", tmp_path)


def test_wrong_use_ends_with_one_clear_line(run_tool, video_folder, tmp_path, capsys):
    (tmp_path / "there.json").write_text("{}")
    latents = ("--input", tmp_path)
    for arguments, message in (
        (("--input", video_folder), "no latent file (.safetensors, .npz) below"),
        ((*latents, "--image_size", "16"), "['image_size'] are for encoding videos"),
        ((*latents, "--encode_dtype", "float16"), "['encode_dtype'] are for encoding videos"),
        ((*latents, "--json", tmp_path / "there.json"), "there.json exists; choose another"),
        ((*latents, "--plot", tmp_path / "plot.jpg"), "expected the name of a .png file"),
        ((*latents, "--r", "0"), "r=0.0; expected more than 0"),
        ((*latents, "--json", tmp_path / "there.json" / "a.json"), "is a file, not a folder"),
        ((*latents, "--plot", tmp_path / "there.json" / "a.png"), "is a file, not a folder"),
    ):
        with pytest.raises(SystemExit) as end:
            run_tool(*arguments)
        assert end.value.code == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "there.json").read_text() == "{}"
