"""Generated videos as files, each with its latent (kept if asked) and a JSON that says what it is.

a.mp4                  or a.png for one frame
a.json                 prompt, seed, settings, SHA-256 of the weights, versions
a.latent.safetensors   written before decoding; mg decode decodes it too

The latent comes first and the JSON last, and both say what decides the video: so a run that was
stopped can tell its own unfinished files from others.
"""

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mg import __version__
from mg.data.image_writer import write_png
from mg.data.latent_files import LatentInfo, LatentWriter, read_latent_info
from mg.data.video_writer import write_video
from mg.device import device_in_use
from mg.files import check_writable_folder, read_bytes, remove_abandoned
from mg.latent_spec import LOGVAR_MIN
from mg.pipelines.autoencoder import config_hash, weights_hash
from mg.pipelines.output_record import (
    differing,
    is_finished,
    mark_finished,
    read_record,
    record_path,
    refuse_others,
)
from mg.pipelines.sampling_checks import texts_of
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import NO_INPUTS, VisualInputs
from mg.tiling.sizes import Tiling

if TYPE_CHECKING:
    from mg.pipelines.generator_parts import GeneratorParts
    from mg.pipelines.text_to_video import TextToVideo

__all__ = [
    "VIDEO_SUFFIXES",
    "about_generator",
    "check_output_name",
    "check_outputs",
    "describe_videos",
    "numbered_paths",
    "read_prompts",
    "unfinished",
    "write_generated",
]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
IMAGE_SUFFIX = ".png"
MAX_PROMPTS_BYTES = 16 << 20
# What records of older versions do not say.
OLDER_RECORD = {
    "strength": 1.0,
    "inputs": {},
    "guidance_drops": "text",
    "dynamic_guidance": False,
    "true_cfg_scale": 1.0,
    "prompt_template": None,
}


def read_prompts(path: str | os.PathLike) -> list[str]:
    """Return the prompts of a text file, one per line; empty lines are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it has no prompt, or is not UTF-8 text of at most 16 MiB in a regular file.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".json", ".jsonl"):
        raise ValueError(f"prompts_file {path} is a table; expected text with one prompt per line")
    try:
        lines = read_bytes(path, max_bytes=MAX_PROMPTS_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"prompts_file not found: {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts_file {path} is not UTF-8 text: {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"prompts_file {path} has no prompts; expected one per line")
    return prompts


def numbered_paths(folder: str | os.PathLike, num_videos: int, num_frames: int) -> list[Path]:
    """Return FOLDER/0000.mp4, FOLDER/0001.mp4, ...; .png for videos of one frame."""
    suffix = IMAGE_SUFFIX if num_frames == 1 else VIDEO_SUFFIXES[0]
    return [Path(folder) / f"{number:04d}{suffix}" for number in range(num_videos)]


def check_output_name(path: str | os.PathLike) -> None:
    """Raise ValueError unless a name is that of a video or an image."""
    if Path(path).suffix.lower() not in (IMAGE_SUFFIX, *VIDEO_SUFFIXES):
        raise ValueError(
            f"{path}: expected a name that ends in {', '.join(VIDEO_SUFFIXES)}, or in "
            f"{IMAGE_SUFFIX} for one frame"
        )


def check_outputs(paths: Sequence[Path], num_frames: int, *, overwrite: bool) -> None:
    """Raise unless all videos, with what stands beside them, may be written under these names.

    Raises:
        FileExistsError: a file is there already and `overwrite` is false.
        OSError: the folder cannot be written to.
        ValueError: a name that is none of a video, or one of an image for several frames; or that
            of a folder.
    """
    for folder in {path.parent for path in paths}:
        check_writable_folder(folder)
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == IMAGE_SUFFIX and num_frames != 1:
            raise ValueError(
                f"{path} would be an image, but num_frames={num_frames}; give num_frames=1, or a "
                f"name that ends in {VIDEO_SUFFIXES[0]}"
            )
        check_output_name(path)
    beside = [name for path in paths for name in (path, record_path(path), _latent_path(path))]
    folders = [path for path in beside if path.is_dir()]
    if folders:
        raise ValueError(f"{folders[0]} cannot be written: it is a folder; choose another output")
    there = [path for path in beside if path.exists()]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise FileExistsError(
            f"{there[0]}{more} exists already; choose another output or pass --overwrite"
        )


def describe_videos(
    generator: "GeneratorParts | TextToVideo",
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    dtype: str,
    decode_dtype: str,
    tiling: Tiling,
    inputs: Sequence[VisualInputs] | None = None,
) -> list[dict[str, Any]]:
    """Return for each video all that decides it, but for the machine; its JSON begins with it.

    Args:
        generator: built or not.
        prompts, seeds: one per video.
        settings: of all.
        dtype, decode_dtype: precision of the transformer and of the decoder.
        tiling: of the decoder.
        inputs: videos and images that each is made from, fitted to its size; None for none.
    """
    inputs = [NO_INPUTS] * len(prompts) if inputs is None else inputs
    texts = texts_of(prompts, settings, fps_prefix=generator.defaults.fps_prefix)
    of_all = {
        **dataclasses.asdict(settings),
        "sha256": dict(generator.sha256),
        "dtype": dtype,
        "decode_dtype": decode_dtype,
        "tiling": dataclasses.asdict(tiling),
        "text_encoders": [encoder.identity for encoder in generator.text_encoders],
    }
    return [
        {"prompt": prompt, "text": text, "seed": int(seed), "inputs": given.hashes(), **of_all}
        for prompt, text, seed, given in zip(prompts, texts, seeds, inputs, strict=True)
    ]


def unfinished(
    paths: Sequence[Path], descriptions: Sequence[Mapping[str, Any]], *, keep_latents: bool = False
) -> list[int]:
    """Return the places of the videos that are not there yet; their files may be replaced.

    A video is there if its JSON and, with `keep_latents`, its latent are too, and say the same.

    Args:
        paths: of the videos.
        descriptions: of each, from `describe_videos`.
        keep_latents: whether the latents are to stay.

    Raises:
        FileExistsError: a video without its JSON.
        ValueError: a video that was made with other settings.
    """
    pairs = zip(paths, descriptions, strict=True)
    return [
        place
        for place, (path, description) in enumerate(pairs)
        if not _is_finished(path, description, keep_latents)
    ]


def _is_finished(path: Path, description: Mapping[str, Any], keep_latents: bool) -> bool:
    has_latent = _latent_path(path).exists()
    if has_latent:
        latent = _latent_path(path)
        refuse_others(latent, OLDER_RECORD | read_latent_info(latent).settings, description)
        # Where the latent is the right one, a video of other settings was about to be replaced.
        if differing(OLDER_RECORD | (read_record(path) or {}), description):
            return False
    return is_finished(path, description, older=OLDER_RECORD) and (has_latent or not keep_latents)


def write_generated(
    generator: "TextToVideo",
    prompts: Sequence[str],
    paths: Sequence[Path],
    *,
    seeds: Sequence[int],
    settings: SamplingSettings,
    inputs: Sequence[VisualInputs] | None = None,
    batch_size: int = 1,
    truncate: bool = False,
    keep_latents: bool = False,
    overwrite: bool = False,
    origin: dict[str, Any] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of each video, uint8 (T, H, W, 3), once its files are written.

    The latent is on disk before the video is decoded; without `keep_latents` it is removed after.

    Args:
        generator: of the videos.
        prompts, paths, seeds: one per video.
        settings: of all.
        inputs: videos and images that each is made from, if any.
        batch_size, truncate, on_step: as `TextToVideo.latents`.
        keep_latents: whether the latents stay.
        overwrite: whether existing files may be replaced.
        origin: what else the metadata say about where the video comes from.

    Raises:
        FileExistsError, ValueError: as `check_outputs` and `TextToVideo.latents`, before anything
            is computed.
    """
    check_outputs(paths, settings.num_frames, overwrite=overwrite)
    for folder in {path.parent for path in paths}:
        remove_abandoned(folder)
    if inputs is not None:
        inputs = [given.fitted(settings) for given in inputs]
    latents = generator.latents(
        prompts,
        seeds,
        settings=settings,
        inputs=inputs,
        batch_size=batch_size,
        truncate=truncate,
        on_step=on_step,
    )
    info = _latent_info(generator, settings)
    descriptions = describe_videos(
        generator,
        prompts,
        seeds,
        settings,
        dtype=generator.dtype,
        decode_dtype=generator.decode_dtype,
        tiling=generator.autoencoder.tiling,
        inputs=inputs,
    )
    for path, description, latent in zip(paths, descriptions, latents, strict=True):
        own = dataclasses.replace(info, source=path.name, settings=description)
        with LatentWriter(_latent_path(path), own, overwrite=overwrite) as writer:
            writer.write(latent, np.full_like(latent, LOGVAR_MIN))  # a point, no distribution
        frames = generator.decode(latent, settings.num_frames)
        if path.suffix.lower() == IMAGE_SUFFIX:
            write_png(path, frames[0], overwrite=overwrite)
        else:
            write_video(path, frames, fps=settings.fps, overwrite=overwrite)
        mark_finished(path, description, **about_generator(generator), **(origin or {}))
        if not keep_latents:
            _latent_path(path).unlink()
        yield frames


def _latent_path(path: Path) -> Path:
    return path.with_suffix(".latent.safetensors")


def _latent_info(generator: "TextToVideo", settings: SamplingSettings) -> LatentInfo:
    config = generator.autoencoder.config
    return LatentInfo(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        source="",
        config=config.to_dict(),
        config_hash=config_hash(config),
        weights_hash=weights_hash(generator.autoencoder),
        settings={},
        family=generator.autoencoder.family,
        spec=generator.autoencoder.spec.to_dict(),
    )


def about_generator(generator: "TextToVideo") -> dict[str, Any]:
    """Return what of the generator and the machine decides the numbers."""
    import mindspore as ms

    return {
        "sha256": generator.sha256,
        "dtype": generator.dtype,
        "decode_dtype": generator.decode_dtype,
        "text_encoders": [encoder.identity for encoder in generator.text_encoders],
        "device": device_in_use(),
        "versions": {
            "mg": __version__,
            "mindspore": ms.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
