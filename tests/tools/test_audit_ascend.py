"""The audit of the graphs' primitives for Ascend: the networks pass, what must fail does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mg.models.families import AUTOENCODERS, DENOISERS
from mg.models.tae.config import TAEConfig

TOOL = Path(__file__).parents[2] / "tools" / "audit_ascend.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("audit_ascend", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_ascend"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small_config(tmp_path_factory):
    """Return a config file of the smallest network that resamples in space and time."""
    path = tmp_path_factory.mktemp("config") / "tae.yaml"
    config = {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 4}
    config |= {"temporal_downsample_level": [0], "temporal_upsample_level": [1]}
    path.write_text(json.dumps(config))  # JSON is YAML, too
    return path


def run(tool, capsys, *arguments):
    status = tool.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_encode_and_decode_pass(tool, capsys, tmp_path, small_config):
    mode = ms.get_context("mode")
    path = tmp_path / "audit.json"
    page = tmp_path / "primitives.md"
    arguments = ("--graphs", "encode,decode", "--dtypes", "float32", "--json", path)
    arguments += ("--markdown", page)
    status, out, err = run(tool, capsys, *arguments, "--model_config", small_config)
    assert status == 0, err
    assert ms.get_context("mode") == mode
    result = json.loads(path.read_text())
    assert result["failed"] == [] and result["mindspore"] == ms.__version__
    rows = {row["primitive"]: row for row in result["primitives"]}
    assert all(row["supported"] and row["source"] for row in rows.values())
    assert rows["Conv2D"]["dtypes"] == ["float32"]
    assert rows["Conv2D"]["graphs"] == ["decode", "encode"]
    assert rows["ResizeNearestNeighbor"]["graphs"] == ["decode"]
    assert rows["Conv2D"]["count"] > 50
    assert not {"Conv3D", "Dropout"} & rows.keys()  # 2.5-D, and inference
    assert f"{len(rows)} primitives, all documented for Ascend" in out
    lines = page.read_text().splitlines()
    assert f"| Conv2D | float32 | 2 | {rows['Conv2D']['source']} |" in lines
    assert sum(line.startswith("| ") for line in lines) == len(rows) + 1
    status, _, err = run(tool, capsys, "--json", path)
    assert status == 1 and "exists; --overwrite replaces it" in err


def test_the_training_step_passes(tool, capsys, small_config):
    arguments = ("--graphs", "train", "--dtypes", "bfloat16", "--model_config", small_config)
    status, out, err = run(tool, capsys, *arguments)
    assert status == 0, err
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("ok")}
    # The gradient, LPIPS, the accumulation and the optimiser are all in it.
    for name in ("Conv2DBackpropFilter", "SiLUGrad", "MaxPoolGrad", "Gather", "Assign", "Switch"):
        assert name in rows
    assert "bfloat16" in rows["Conv2DBackpropFilter"] and "bfloat16" in rows["SiLU"]
    assert "float32" in rows["Softmax"] and "bfloat16" not in rows["Softmax"]
    assert "FAIL" not in out


def test_the_discriminators_step_passes(tool, capsys):
    status, out, err = run(tool, capsys, "--graphs", "discriminator", "--dtypes", "float32")
    assert status == 0, err
    rows = {line.split()[1] for line in out.splitlines() if line.startswith("ok")}
    assert {"Conv2DBackpropFilter", "Greater", "AdamWeightDecay"} <= rows
    assert "FAIL" not in out


def passed(out):
    """Return the lines of a table in which nothing failed, by their primitive."""
    assert "FAIL" not in out
    return {line.split()[1]: line for line in out.splitlines() if line.startswith("ok")}


def test_the_video_models_training_step_passes(tool, capsys):
    status, out, err = run(tool, capsys, "--graphs", "movie_gen_train", "--dtypes", "bfloat16")
    assert status == 0, err
    rows = passed(out)
    # On Ascend attention is the fused one; its gradient is in the graph, too.
    for name in ("FlashAttentionScore", "FlashAttentionScoreGrad", "LayerNormGrad", "SiLUGrad"):
        assert name in rows
    assert "Assign" in rows and "Switch" in rows  # accumulation, and the optimiser under a guard
    assert "bfloat16" in rows["MatMul"] and "BatchMatMul" not in rows
    assert "float32" in rows["Rsqrt"] and "bfloat16" not in rows["Rsqrt"]


def test_the_video_models_inference_passes(tool, capsys):
    status, out, err = run(tool, capsys, "--graphs", "movie_gen,sampler", "--dtypes", "bfloat16")
    assert status == 0, err
    rows = passed(out)
    assert "movie_gen,sampler" in rows["FlashAttentionScore"]
    # The latents of both branches of guidance as one batch, and its halves.
    assert "sampler" in rows["Concat"] and "sampler" in rows["Muls"] and "sampler" in rows["Sub"]
    assert not any(name.endswith("Grad") for name in rows)


@pytest.mark.parametrize(
    "network",
    ["cogvideox", "cogvideox_sincos", "cogvideox_1_5", "hunyuan", "unet", "lora", "diffusion"],
)
def test_other_denoisers_training_steps_pass_without_a_3d_convolution(tool, capsys, network):
    flags = ("--graphs", f"{network}_denoiser_train", "--dtypes", "bfloat16")
    status, out, err = run(tool, capsys, *flags)
    assert status == 0, err
    rows = passed(out)
    assert "FlashAttentionScoreGrad" in rows and "MatMul" in rows
    assert not any(name.startswith("Conv3D") for name in rows)


@pytest.mark.parametrize(
    "family", ["sd", "cogvideox", "hunyuan", "opensora", "wan", "causal_vae", "dc_ae"]
)
def test_autoencoders_pass_without_a_3d_convolution(tool, capsys, family):
    """The training step goes through encoding and decoding."""
    status, out, err = run(tool, capsys, "--graphs", f"{family}_train", "--dtypes", "bfloat16")
    assert status == 0, err
    rows = passed(out)
    assert "bfloat16" in rows["Conv2D"] and "bfloat16" in rows["Conv2DBackpropFilter"]
    assert not any("Conv3D" in name for name in rows)
    assert "SiLUGrad" in rows and "AdamWeightDecay" in rows  # the plain form, and the whole step


def test_every_family_is_audited():
    from audited_networks import AUTOENCODER_FAMILIES, DENOISER_FAMILIES, GRAPHS

    assert set(AUTOENCODER_FAMILIES) == set(AUTOENCODERS)
    assert set(DENOISER_FAMILIES) == set(DENOISERS)
    for family in set(AUTOENCODER_FAMILIES) - {"tae"}:  # whose graphs have no family in their names
        assert {f"{family}_{task}" for task in ("encode", "decode", "train")} <= set(GRAPHS)
    for family in set(DENOISER_FAMILIES) - {"movie_gen"}:
        assert f"{family}_denoiser_train" in GRAPHS
    page = (TOOL.parents[1] / "docs" / "ascend.md").read_text()
    for graph in GRAPHS:
        family, _, task = graph.partition("_denoiser_")
        if task and family not in ("lora", "diffusion"):
            assert f"`{family}`" in page and f"`F_denoiser_{task}`" in page
        elif graph.rsplit("_", 1)[0] in set(AUTOENCODER_FAMILIES) - {"tae"}:
            family, task = graph.rsplit("_", 1)
            assert f"`{family}`" in page and f"`F_{task}`" in page
        else:
            assert f"`{graph}`" in page


def test_no_layer_has_the_form_for_cpus(tool):
    """Whatever builds a network, of this project or beside it: losses and text encoders, too."""
    from audited_networks import GRAPHS, network_and_inputs

    config = TAEConfig.from_mapping(tool.SMALL_CONFIG)
    for graph in GRAPHS:
        if graph in ("t5", "clip"):  # mindone's, without our layers
            continue
        network, _ = network_and_inputs(config, graph, "float32")
        modules = {type(cell).__module__ for _, cell in network.cells_and_names()}
        assert any(name.startswith("mg.models.layers") for name in modules) or graph == "llama"
        assert not [name for name in modules if name.startswith("mg.models.layers.cpu")], graph


def test_llama_passes_in_both_precisions(tool, capsys):
    status, out, err = run(tool, capsys, "--graphs", "llama")
    assert status == 0, err
    rows = passed(out)
    assert "bfloat16,float32" in rows["MatMul"] and "float32" in rows["Softmax"]
    assert "bfloat16" not in rows["Softmax"] and "bfloat16" not in rows["Rsqrt"]


def test_text_encoders_pass_with_the_operators_that_they_have_on_ascend(tmp_path):
    """In a process of its own: in this one, stand-ins for CPUs may be in their place."""
    path = tmp_path / "audit.json"
    command = [sys.executable, str(TOOL), "--graphs", "t5,clip", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["primitive"]: row for row in json.loads(path.read_text())["primitives"]}
    assert rows["MatMul"]["graphs"] == ["clip", "t5"]
    assert rows["MatMul"]["dtypes"] == ["float32"]
    assert rows["Embedding"]["source"] == "mindspore.ops.Embedding (Ascend)"  # of mint


class Fmax(nn.Cell):
    """`mindspore.ops.Fmax` is documented for CPU alone."""

    def __init__(self):
        super().__init__()
        self.fmax = ops.Fmax()

    def construct(self, x):
        return ops.relu(self.fmax(x, 2 * x))


def test_what_is_not_documented_for_ascend_fails_with_its_name(
    tool, capsys, monkeypatch, graph_mode
):
    x = Tensor(np.ones((2, 3), np.float32))
    uses = tool.exported_primitives(Fmax(), (x,), graph="made_up")
    verdict = tool.judge("Fmax", uses["Fmax"])
    assert not verdict.supported and verdict.source == "mindspore.ops.Fmax (CPU)"
    assert tool.judge("ReLU", uses["ReLU"]).supported
    monkeypatch.setattr(tool, "used_primitives", lambda *_: uses)
    status, out, err = run(tool, capsys)
    assert status == 1 and "not fit for Ascend: Fmax\n" in err
    assert "FAIL  Fmax" in out and "all documented" not in out


def test_an_unknown_primitive_fails(tool):
    verdict = tool.judge("NeverHeardOf", tool.PrimitiveUse())
    assert not verdict.supported and verdict.source.startswith("unknown: ")


def judged(tool, network, x):
    uses = tool.exported_primitives(network, (x,), graph="made_up")
    return {name: tool.judge(name, use) for name, use in uses.items()}


class Conv3D(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 3)

    def construct(self, x):
        return self.conv(x)


class Double(nn.Cell):
    def construct(self, x):
        return ops.relu(x.astype(ms.float64))


class Relu(nn.Cell):
    def construct(self, x):
        return ops.relu(x)


def test_known_trouble_fails(tool, graph_mode):
    video = Tensor(np.zeros((1, 2, 3, 4, 4), np.float32))
    verdict = judged(tool, Conv3D(), video)["Conv3D"]
    assert not verdict.supported and "bf16 fails or crawls" in verdict.source
    verdict = judged(tool, Double(), video)["ReLU"]
    assert not verdict.supported and verdict.source == "computes in float64"
    assert judged(tool, Relu(), video)["ReLU"].supported
    dynamic = Tensor(shape=[None, 2], dtype=ms.float32)
    verdict = judged(tool, Relu(), dynamic)["ReLU"]
    assert not verdict.supported and "dynamic shape" in verdict.source


def test_reviewed_primitives_lean_on_documented_functions(tool):
    """So that the table cannot outlive the support that it builds on."""
    for name, (function, reason) in tool.REVIEWED.items():
        verdict = tool.judge(name, tool.PrimitiveUse())
        assert verdict.supported and reason in verdict.source, name
        assert function is None or "Ascend" in tool.documented_platforms(function)


@pytest.mark.parametrize(
    ("content", "message"),
    [("ch: 40", "ch=40 "), ("chh: 32", "did you mean 'ch'"), ("ch: [", "flow")],
)
def test_bad_configs_are_one_clear_line(tool, capsys, tmp_path, content, message):
    path = tmp_path / "tae.yaml"
    path.write_text(content)
    status, _, err = run(tool, capsys, "--model_config", path)
    assert status == 1 and err.startswith("error: ") and message in err
    status, _, err = run(tool, capsys, "--model_config", tmp_path / "missing.yaml")
    assert status == 1 and "missing.yaml" in err
