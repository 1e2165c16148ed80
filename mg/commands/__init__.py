"""The command `mg NAME ...`: one module per command, found by name and imported when it runs.

`scripts/NAME.py` and `tools/NAME.py` of a checkout are doors to the same functions.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mg import __version__
from mg.cli import run_main
from mg.known_names import nearest

__all__ = ["COMMANDS", "Command", "main", "run_command"]


class Command(NamedTuple):
    """A command: the module of this package that has its `main`, and what it does."""

    module: str
    summary: str
    config: str | None = None  # the YAML file that it takes where --config is not given


# In the order of their use.
COMMANDS = {
    "doctor": Command("doctor", "check versions, device, memory and caches"),
    "demo": Command(
        "adapt_tae",
        "adapt the small autoencoder to one clip, in a few minutes",
        "configs/tae/train/adapt.yaml",
    ),
    "reconstruct": Command("inference_vae", "reconstruct videos and measure the result"),
    "encode": Command("encode", "encode videos to latents"),
    "decode": Command("decode", "decode latents to videos"),
    "generate": Command("generate", "generate videos from prompts"),
    "edit": Command("generate", "generate from a video: mg generate with --source"),
    "page": Command("page", "generate videos from prompts in the browser"),
    "evaluate": Command("evaluate", "measure two folders of videos by a protocol"),
    "evaluate-prompts": Command("eval_prompts", "measure whether a generator follows its prompts"),
    "evaluate-edits": Command("eval_edits", "measure whether a generator obeys its source"),
    "evaluate-first-frames": Command(
        "eval_first_frames", "measure whether a generator keeps to a first frame"
    ),
    "prepare": Command("prepare_clips", "decode videos once into clips that training reads fast"),
    "make-shards": Command("make_shards", "pack clips and captions into WebDataset shards"),
    "make-samples": Command("make_sample_videos", "draw captioned clips of moving shapes"),
    "encode-text": Command("encode_text", "embed captions for training"),
    "train-tae": Command("train_tae", "train a temporal autoencoder"),
    "train-vae": Command("train_vae", "train or fine-tune an autoencoder of any family"),
    "train": Command("train", "train a video generator on latents"),
    "train-demo": Command("train_video_demo", "train a small generator on clips drawn for it"),
    "launch": Command("launch", "run a command on several devices of this machine"),
    "download": Command("download_weights", "fetch public weights by name"),
    "fetch-lpips": Command("fetch_lpips", "fetch the weights of LPIPS"),
    "fetch-i3d": Command("fetch_i3d", "fetch the weights of I3D, for FVD"),
    "inspect": Command("inspect_checkpoint", "show what is in a weight file"),
    "convert": Command("convert_weights", "convert a weight file to another format"),
    "inflate": Command("inflate_vae_to_tae", "make a TAE's first weights from an image VAE"),
    "completion": Command("completion", "print a shell's completion of this command"),
}

# What other projects call commands; None: what is spelt alike is not meant.
SYNONYMS = {
    "infer": "reconstruct",
    "inference": "reconstruct",
    "sample": "generate",
    "eval": "evaluate",
    "doc": None,
    "docs": None,
}


def main() -> None:
    """Run `mg NAME ...`: the console script, and `python -m mg`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
    elif arguments[0] == "--version":
        print(f"mg {__version__}")
    elif arguments[0] in COMMANDS:
        run_command(arguments[0], arguments[1:], program=f"mg {arguments[0]}")
    else:
        near = SYNONYMS.get(arguments[0], nearest(arguments[0], COMMANDS))
        hint = f"did you mean `mg {near}`?" if near else "`mg --help` lists the commands"
        raise SystemExit(f"error: unknown command {arguments[0][:100]!r}; {hint}")


def run_command(
    name: str, arguments: Sequence[str] | None = None, *, program: str | None = None
) -> None:
    """Run a command to its end, or raise SystemExit with its exit code.

    Args:
        name: a key of `COMMANDS`.
        arguments: the command's arguments; None takes those of the process.
        program: the program's name in the help; None takes that of the process.
    """
    command = COMMANDS[name]
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if command.config is not None and not _names_config(arguments):
        arguments = ["--config", command.config, *arguments]
    sys.argv = [program or sys.argv[0], *arguments]  # where parsers look for both
    run_main(lambda: importlib.import_module(f"{__name__}.{command.module}").main())


def _names_config(arguments: Sequence[str]) -> bool:
    return any(argument.split("=")[0] == "--config" for argument in arguments)


def overview() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mg COMMAND [--setting value ...]",
            "",
            "Video autoencoders and video generation on MindSpore.",
            "",
            *rows,
            "",
            "`mg COMMAND --help` shows a command's settings, `mg --version` the version.",
        ]
    )
