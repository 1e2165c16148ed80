"""The small commands: names that all commands share, and mistakes in one line."""

import pytest

from mg.cli.argument_parser import CommandParser
from mg.commands import make_sample_videos, prepare_clips, run_command


def converter():
    parser = CommandParser("Converts.", names={"input": "src", "output": "dst"})
    parser.add_argument("src")
    parser.add_argument("dst")
    parser.add_argument("--dtype", choices=("float16", "float32"))
    return parser


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.pt", "b.ckpt", "--dtype", "float16"],
        ["--output", "b.ckpt", "--dtype=float16", "--input=a.pt"],
        ["--input", "a.pt", "b.ckpt", "--dtype", "float16"],
    ],
)
def test_positional_arguments_have_names_too(arguments):
    flags = converter().parse_args(arguments)
    assert (flags.src, flags.dst, flags.dtype) == ("a.pt", "b.ckpt", "float16")


def test_help_all_is_the_help(capsys):
    texts = []
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            converter().parse_args([flag])
        assert ended.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "Converts." in texts[0]


def test_shared_names_are_taken_and_others_with_a_notice(caplog):
    caplog.set_level("INFO", logger="mg")
    flags = prepare_clips.parse_arguments(["--input", "videos", "--output=prepared"])
    assert (flags.video_folder, flags.output_path) == ("videos", "prepared")
    flags = make_sample_videos.parse_arguments(["--output_path", "shapes"])
    assert str(flags.output_folder) == "shapes"
    assert caplog.messages == [
        "output_path is taken as output_folder, its name in this command.",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--dtyp=float16"], "unknown setting 'dtyp'; did you mean 'dtype'?"),
        (["a", "b", "--zzz"], "unknown setting 'zzz'; --help lists the settings"),
        (["a"], "the following arguments are required: dst"),
        (["a", "b", "--dtype=half"], "invalid choice: 'half'"),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        converter().parse_args(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ")
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("edit", ["--prompt=a", "--output=a.mp4"], "mg edit needs --source VIDEO"),
        ("launch", ["2", "train_tae"], "did you mean 'train-tae'?"),
    ],
)
def test_what_a_command_cannot_do_without_is_named(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(command, arguments, program=f"mg {command}")
    error = capsys.readouterr().err
    assert ended.value.code == 1 and message in error and error.count("\n") == 1
