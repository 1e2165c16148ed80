"""The notebook runs from top to bottom, and shows what it says."""

import os
import re
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parents[2]


def test_first_steps_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(ROOT / "notebooks" / "first_steps.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "-> latent (1, 16, 2, 8, 8)" in text
    assert abs(float(re.search(r"PSNR ([\d.]+) dB", text)[1]) - 30.3) < 0.2
    assert "trained on 64x64 pixels and 16 frames" in text and "Weights: " in text
    pictures = [kind for o in outputs for kind in o.get("data", {}) if kind.startswith("image/")]
    assert pictures == ["image/gif", "image/gif", "image/png"]
    assert (tmp_path / "outputs" / "first_steps" / "tae.safetensors").is_file()
