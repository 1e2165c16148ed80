"""scripts/encode_text.py as users run it, with the encoder that needs no weights."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mg.conditions.text.build import build_text_encoder
from mg.conditions.text.cache import TextCache, cached_encoders

SCRIPT = Path(__file__).parents[3] / "scripts" / "encode_text.py"


def run(*arguments, cwd):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def encode(*arguments, cwd):
    result = run(*arguments, "--output_folder=text", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stderr


def fails(*arguments, cwd):
    """Return the message of a run that must fail before anything is written."""
    result = run(*arguments, "--output_folder=text", cwd=cwd)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert not (cwd / "text").exists()
    return result.stderr.split("error: ")[1]


def test_captions_of_a_table_by_two_encoders(tmp_path, captions):
    texts = list(captions)[:5]
    rows = "".join(f"{i}.mp4,{text}\n" for i, text in enumerate(texts))
    (tmp_path / "captions.csv").write_text("video,caption\n" + rows + "9.mp4,\n")
    flags = ["--csv_path=captions.csv", "--encoder", "word", "--encoder=byte,width=64"]
    said = encode(*flags, "--captions=noise", cwd=tmp_path)
    assert "1 rows of captions.csv have no caption" in said
    assert "word,width=256,max_tokens=16: 7 embedded (0 of them truncated), 0 there" in said
    infos = cached_encoders(tmp_path / "text")
    assert [(info.name, info.width) for info in infos] == [("byte", 64), ("word", 256)]
    for info in infos:
        expected = build_text_encoder(info.spec).encode([*texts, "noise", ""])
        for i, text in enumerate([*texts, "noise", ""]):
            found = TextCache.open(tmp_path / "text", info.identity).read(text)
            assert (found.values == expected.values[i]).all()
            assert (found.mask == expected.mask[i]).all()
    assert "0 embedded (0 of them truncated), 6 there already" in encode(*flags, cwd=tmp_path)


def test_frame_rates_stand_before_captions(tmp_path):
    flags = ["--captions", "a dog", "--captions", 'a "big, red" cat', "--encoder=word"]
    encode(*flags, "--fps_prefix=16", "--fps_prefix", "23.98", cwd=tmp_path)
    (info,) = cached_encoders(tmp_path / "text")
    cache = TextCache(tmp_path / "text", info)
    for text in ("FPS-16 a dog", "FPS-24 a dog", 'FPS-24 a "big, red" cat', ""):
        assert text in cache
    assert "a dog" not in cache


def test_settings_of_a_file(tmp_path):
    (tmp_path / "text.yaml").write_text("encoder: [byte]\ncaptions: [one, two]\n")
    assert "3 embedded" in encode("--config", "text.yaml", cwd=tmp_path)
    assert "encoder:\n- byte\n" in (tmp_path / "text" / "encode_text.yaml").read_text()


def test_the_command_for_a_missing_text_makes_it(tmp_path):
    encode("--captions=one", "--encoder=word,width=32", cwd=tmp_path)
    (info,) = cached_encoders(tmp_path / "text")
    text = '--it\'s a "dog"'
    with pytest.raises(FileNotFoundError, match="run: mg encode-text") as caught:
        TextCache.open(tmp_path / "text", info.identity).read(text)
    command = str(caught.value).split("mg encode-text ")[1].split(" (or")[0]
    assert run(*shlex.split(command), cwd=tmp_path).returncode == 0
    assert TextCache.open(tmp_path / "text", info.identity).read(text).mask.sum() == 10


def test_too_long_captions_are_cut_only_when_asked(tmp_path):
    flags = ["--captions=one two three", "--encoder=byte", "--encoder=word,max_tokens=3"]
    assert "too long for the encoder 'word': 4 tokens, at most 3 fit" in fails(*flags, cwd=tmp_path)
    assert "2 embedded (1 of them truncated)" in encode(*flags, "--truncate", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder=word"], "give csv_path, captions, or both"),
        (["--encoder=word", "--captions=one", "--video_folder=x"], "no effect without csv_path"),
        (["--encoder=word", "--csv_path=none.csv"], "no such table of captions: none.csv"),
        (["--captions=one", "--encoder=bert"], "unknown text encoder 'bert'; expected byte, word"),
        (["--captions=one", "--encoder"], "--encoder needs a value"),
        (["--captions=one", "--encoder=t5:nowhere"], "nowhere/config.json not found"),
        (["--captions=one", "--encoder=word", "--fps_prefix=fast"], "expected float, got fast"),
        (["--captions=one", "--encoder=word", "--batch_size=0"], "batch_size=0; expected 1"),
    ],
)
def test_wrong_settings_stop_at_once(arguments, message, tmp_path):
    assert message in fails(*arguments, cwd=tmp_path)
