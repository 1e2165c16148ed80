"""Embed captions with one or several text encoders and keep the embeddings for training.

mg encode-text --csv_path captions.csv --encoder word --output_folder outputs/text
"""

import dataclasses
import json
import logging
import sys
from pathlib import Path

from mg.cli import parse_config, save_config
from mg.conditions.text.build import UNITS, build_text_encoders
from mg.conditions.text.cache import fill_text_cache
from mg.conditions.text.prompts import with_fps
from mg.data.captions import read_captions
from mg.device import DeviceConfig, setup_device
from mg.files import check_writable_folder

logger = logging.getLogger("mg")

REPEATABLE = ("encoder", "captions", "fps_prefix")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeTextConfig(DeviceConfig):
    """Embedding of captions. The empty prompt is always embedded too.

    Args:
        encoder: byte or word (no weights needed), t5:FOLDER (UL2 too), byt5:FOLDER, clip:FOLDER or
            llama:FOLDER; can be given several times. Options follow after commas, as in
            word,max_tokens=32, llama:FOLDER,template=FILE.json or clip:FOLDER,pooled.
        csv_path: table (CSV, JSONL or JSON) with columns `video` and `caption`.
        video_folder: folder of the videos of csv_path, if it is not the table's.
        captions: a caption; can be given several times.
        fps_prefix: frame rate that is written before each caption, as in FPS-16; can be given
            several times, which embeds each caption with each of them.
        output_folder: folder for the embeddings; those that are there already are kept.
        truncate: cut captions that are too long for an encoder, instead of refusing them.
        batch_size: captions embedded together.
    """

    encoder: list[str]
    csv_path: str | None = None
    video_folder: str | None = None
    captions: list[str] = dataclasses.field(default_factory=list)
    fps_prefix: list[float] = dataclasses.field(default_factory=list)
    output_folder: str = "outputs/text"
    truncate: bool = False
    batch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.csv_path is None and not self.captions:
            raise ValueError("give csv_path, captions, or both")
        if self.video_folder is not None and self.csv_path is None:
            raise ValueError(f"video_folder={self.video_folder!r} has no effect without csv_path")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}; expected 1 or more")


def main() -> None:
    """Parse, read captions, embed."""
    config = parse_config(EncodeTextConfig, _lists(sys.argv[1:]), description=__doc__)
    check_writable_folder(config.output_folder)
    texts = list(config.captions)
    if config.csv_path is not None:
        texts += _captions_of(config)
    if config.fps_prefix:
        texts = [with_fps(text, fps) for fps in config.fps_prefix for text in texts]
    encoders = build_text_encoders(config.encoder)
    if any(encoder.name not in UNITS for encoder in encoders):
        setup_device(config)
    if not config.truncate:  # before the first of them starts, for all
        for encoder in encoders:
            encoder.check_lengths(texts)
    for encoder in encoders:
        counts = fill_text_cache(
            config.output_folder,
            encoder,
            texts,
            truncate=config.truncate,
            batch_size=config.batch_size,
        )
        logger.info(
            "%s: %d embedded (%d of them truncated), %d there already",
            encoder.spec,
            counts.written,
            counts.truncated,
            counts.skipped,
        )
    save_config(Path(config.output_folder) / "encode_text.yaml", config)


def _captions_of(config: EncodeTextConfig) -> list[str]:
    table = read_captions(config.csv_path, video_folder=config.video_folder)
    if table.without_caption:
        logger.warning("%d rows of %s have no caption", len(table.without_caption), config.csv_path)
    return [video.caption for video in table.videos]


def _lists(argv: list[str]) -> list[str]:
    """Return the arguments with repeated ones, such as `--encoder a --encoder b`, as one list."""
    others, values = [], {name: [] for name in REPEATABLE}
    arguments = iter(argv)
    for argument in arguments:
        name, has_value, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in REPEATABLE:
            others.append(argument)
            continue
        if not has_value:
            value = next(arguments, "--")
            if value.startswith("--"):
                raise ValueError(f"--{name} needs a value")
        values[name].append(value)
    return others + [f"--{name}={_as_yaml(name, given)}" for name, given in values.items() if given]


def _as_yaml(name: str, values: list[str]) -> str:
    """Return a list as YAML text; of numbers what was given, to be checked by the parser."""
    return f"[{', '.join(values)}]" if name == "fps_prefix" else json.dumps(values)
