"""Tiny published pipelines in tests/fixtures/pipelines, copied into a folder of their own."""

import shutil
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures" / "pipelines"
CALL = {
    "height": 48,
    "width": 32,
    "num_frames": 9,
    "num_inference_steps": 4,
    "guidance_scale": 6.0,
    "output_type": "np",
}


def folder_of(name, tmp_path):
    """Return a copy of a pipeline's folder; the tokenizer is stored once."""
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    if name.startswith("cogvideox"):
        shutil.copytree(FIXTURES / "cogvideox" / "tokenizer", folder / "tokenizer", dirs_exist_ok=1)
    return folder
