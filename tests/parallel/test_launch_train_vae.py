"""`scripts/launch.py 2 scripts/train_vae.py ...`, in place of `torchrun --nproc_per_node 2`."""

import json

import pytest

from mg.training.run.run_log import read_log
from mg.vaes import VideoVAE
from tests.tiny import AUTOENCODERS as TINY


@pytest.mark.usefixtures("pynative_mode")
def test_two_ranks_train_video_dc_ae_by_its_config(
    make_videos, run_limited, launch_script, tmp_path
):
    videos = make_videos(tmp_path / "videos", ["a.mp4", "b.mp4"])
    model = [f"--model.{name}={json.dumps(value)}" for name, value in TINY["dc_ae"].items()]
    command = launch_script(
        tmp_path / "logs",
        "scripts/train_vae.py",
        *("--config", "configs/vae/train/video_dc_ae.yaml", *model),
        *("--dataset.data_path", videos, "--save_dir", tmp_path / "out"),
        *("--bucket_config", '{"16px_ar1:1": {2: [1.0, 1]}}', "--data.num_workers", "0"),
        *("--loss.perceptual_loss_weight", "0", "--dtype", "fp32", "--steps", "1"),
        *("--mode", "pynative", "--device", "CPU"),
    )
    code, output = run_limited(command, log_folder=tmp_path / "logs")
    assert code == 0, output
    assert len(read_log(tmp_path / "out" / "log.jsonl")) == 1
    vae = VideoVAE.from_pretrained(tmp_path / "out" / "vae")
    assert vae.network.config.width_list == tuple(TINY["dc_ae"]["width_list"])
