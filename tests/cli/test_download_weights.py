"""scripts/download_weights.py: the list, one model, all of them, and what failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mg.commands import download_weights as script
from mg.weights.hub import HUB_MODELS
from mg.weights.hub_models import find_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_weights.py"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
    )


def test_the_list_names_every_model_with_size_licence_and_purpose(tmp_path):
    done = run("--list", MG_CACHE=str(tmp_path))
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["name", "about", "what", "it", "is", "for", "from", "licence"]
    for line, model in zip(lines[1:], HUB_MODELS, strict=False):
        assert line.startswith(f"{model.name} ") and f"{model.megabytes} MB" in line
        assert model.repository in line and model.licence in line and model.purpose in line
        assert ("asks for consent" in line) == model.is_gated
    assert lines[len(HUB_MODELS) + 1].startswith("lpips ")
    assert "approximate" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_offline_and_unknown_names_are_errors_without_traceback(tmp_path):
    offline = run("--model", "sd-vae", MG_CACHE=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.returncode == 1 and offline.stdout == ""
    assert "error: cannot fetch from http://127.0.0.1:9" in offline.stderr
    assert "/stabilityai/sd-vae-ft-mse/resolve/main/config.json" in offline.stderr
    assert "Traceback" not in offline.stderr
    unknown = run("--model", "sd-va")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: no weights are known") and "'sd-vae'" in unknown.stderr


def test_one_model_prints_its_folder(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(script, "fetch", lambda name, **options: asked.append((name, options)))
    monkeypatch.setattr(sys, "argv", ["x", "--model", "opensora", "--cache_folder", str(tmp_path)])
    script.main()
    assert asked == [("opensora", {"cache_folder": tmp_path})]


def test_all_goes_on_after_a_failure_and_exits_with_one(monkeypatch, capsys):
    def fetch(name, *, cache_folder):
        if name == "hunyuan":
            raise ConnectionError("no way\nby hand: do this")
        return Path("folder") / name

    monkeypatch.setattr(script, "fetch", fetch)
    monkeypatch.setattr(script.fetch_lpips, "main", lambda arguments: len(arguments) - 2)
    monkeypatch.setattr(sys, "argv", ["x", "--model", "all"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err == "error: hunyuan: no way\nby hand: do this\n"
    lines = printed.out.splitlines()
    assert len(lines) == len(HUB_MODELS) + 1
    assert [line.split()[0] for line in lines] == [*(m.name for m in HUB_MODELS), "lpips"]
    assert [line for line in lines if "failed" in line] == ["hunyuan         failed: no way"]
    assert lines[-1].endswith("vgg.safetensors")


def test_all_ends_well_when_nothing_fails(monkeypatch, capsys):
    monkeypatch.setattr(script, "fetch", lambda name, **_options: Path(name))
    monkeypatch.setattr(script.fetch_lpips, "main", lambda _arguments: 0)
    monkeypatch.setattr(sys, "argv", ["x", "--model", "all"])
    script.main()
    assert "failed" not in capsys.readouterr().out


def test_lpips_calls_its_own_tool_and_tells_its_failure(monkeypatch):
    asked = []
    monkeypatch.setattr(script.fetch_lpips, "main", lambda arguments: asked.append(arguments) or 1)
    with pytest.raises(OSError, match="mg fetch-lpips has said why"):
        script.fetch_one("lpips", None)
    assert asked == [["--net", "vgg"]]


@pytest.mark.parametrize("arguments", [[], ["--list", "--model", "all"]])
def test_either_the_list_or_a_model(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    assert "--model" in capsys.readouterr().err


def test_a_name_may_stand_without_its_flag(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mg download", "cogvideox-2b"])
    monkeypatch.setattr(script, "fetch_one", lambda name, folder: f"fetched {name}")
    script.main()
    assert capsys.readouterr().out == "fetched cogvideox-2b\n"


def test_a_path_that_is_not_there_is_answered_with_the_nearest_file(tmp_path):
    (tmp_path / "tae.safetensors").touch()
    with pytest.raises(ValueError) as caught:
        find_model(str(tmp_path / "tae.safetensor"))
    assert str(caught.value) == (
        f"{str(tmp_path / 'tae.safetensor')!r} does not exist, but its folder does; "
        f"did you mean {str(tmp_path / 'tae.safetensors')!r}?"
    )
