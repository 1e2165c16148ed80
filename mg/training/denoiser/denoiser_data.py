"""The data of a training run on latents: captions, latents and text that fit each other."""

import contextlib
import dataclasses
import logging
from pathlib import Path

import numpy as np

from mg.conditions.text.cache import TextCache
from mg.conditions.text.encoder import TextEncoder
from mg.conditions.text.prompts import with_fps, without_fps
from mg.conditions.text.sources import CachedText, EncodedText, TextSource
from mg.conditions.visual import FRAME_MODES
from mg.data.buckets import Bucket
from mg.data.captions import read_captions
from mg.data.latent_dataset import LatentDataset, LatentDraw
from mg.data.latent_manifest import LatentClip, LatentManifest, build_latent_manifest
from mg.latent_spec import LatentSpec
from mg.models.reading import read_autoencoder
from mg.parallel.ranks import Ranks
from mg.pipelines.autoencoder import tensors_hash
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.training_scope import TrainingScope, scope_of_captions
from mg.training.denoiser.denoiser_config import TextSettings, TrainDenoiserConfig

__all__ = [
    "build_datasets",
    "generator_defaults",
    "sample_sizes",
    "text_sources",
    "training_scope",
]

logger = logging.getLogger("mg")

MAX_ROWS_SHOWN = 20  # of latents that are left out
NUM_MEASURED = 64  # latents whose mean and spread are reported
STD_RANGE = (0.5, 2.0)  # of latents that a flow learns well from
FPS_UNKNOWN = 16.0  # of a generator whose latents do not tell: Movie Gen's own


def build_datasets(
    config: TrainDenoiserConfig, sources: list[TextSource], ranks: Ranks
) -> tuple[LatentDataset, LatentDataset | None]:
    """Return the latents to train on, and those to validate on if there are any; both are logged.

    Raises:
        FileNotFoundError: a folder, a table, the autoencoder or an embedding is missing.
        ValueError: the latents were made by another autoencoder than `config.tae`, a table cannot
            be read, settings that the latents do not allow, or videos in both tables.
    """
    parts = read_autoencoder(config.tae)
    made_with = tensors_hash(parts.tensors), parts.spec
    visual = config.conditions.visual_draws()
    first_frames = config.conditions.first_frame_folder
    manifest = _manifest(config, config.csv_path, config.latent_folder, first_frames, *made_with)
    _check_conditions(config, manifest)
    training = LatentDataset(
        manifest,
        sources,
        seed=config.seed,
        rank=ranks.rank,
        num_ranks=ranks.size,
        batch_sizes=config.data.parsed_batch_sizes(),
        image_ratio=config.data.image_ratio,
        text_dropout=config.text.dropout,
        visual=visual,
        max_bad_share=config.guards.max_bad_share,
    )
    logger.info("Training latents:\n%s", training.table(config.batch_size))
    _tell_spread(training)
    settings = config.validation
    if settings.csv_path is None:
        return training, None
    try:
        folder = settings.latent_folder or config.latent_folder
        first_frames = settings.first_frame_folder or first_frames
        held_out = _manifest(config, settings.csv_path, folder, first_frames, *made_with)
        _refuse_shared(held_out, manifest)
        if visual.source_dropout is not None:
            visual = dataclasses.replace(visual, source_dropout=0.0)
        return training, LatentDataset(held_out, sources, text_dropout=0.0, visual=visual)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"validation: {error}") from error


def _check_conditions(config: TrainDenoiserConfig, manifest: LatentManifest) -> None:
    """Raise ValueError for conditions that the data or their autoencoder cannot give."""
    conditions = config.conditions
    if conditions.source and not any(clip.source for clip in manifest.clips):
        raise ValueError(
            f"conditions.source: {config.csv_path} has no column `source` that names the videos "
            "that were edited"
        )
    if conditions.first_frame > 0 and not conditions.first_frame_folder and not manifest.spec.head:
        raise ValueError(
            "conditions.first_frame: this autoencoder codes the first frame together with the "
            "next ones; encode it alone too, with scripts/encode.py as the videos and "
            "--max_frames 1 --output_path FOLDER, and set conditions.first_frame_folder=FOLDER"
        )
    if manifest.spec.chunk is not None:
        modes = [mode for mode in FRAME_MODES if getattr(conditions, mode) > 0]
        refused = [f"conditions.{mode}" for mode in modes if mode != "first_frame"]
        if refused:
            raise ValueError(
                f"{', '.join(refused)}: this autoencoder codes chunks of {manifest.spec.chunk} "
                "frames; only conditions.source or conditions.first_frame can be trained"
            )


def _refuse_shared(held_out: LatentManifest, training: LatentManifest) -> None:
    trained = {clip.path.resolve() for clip in training.clips}
    both = [clip.name for clip in held_out.clips if clip.path.resolve() in trained]
    if both:
        raise ValueError(
            f"{len(both)} of {len(held_out.clips)} held-out videos are trained on, such as "
            f"{both[0]}; take them out of one of the tables"
        )


def _tell_spread(dataset: LatentDataset) -> None:
    """Log mean and standard deviation of the latents; noise has 0 and 1, and data should."""
    clips = dataset.manifest.clips
    chosen = clips[:: max(1, len(clips) // NUM_MEASURED)]
    values = []
    for place, clip in enumerate(chosen):
        with contextlib.suppress(OSError, ValueError):  # the run itself lists what is damaged
            draw = LatentDraw(clip, (0, place), dataset.manifest.spec)
            values.append(dataset.read(draw).mean.ravel())
    if not values:
        return
    values = np.concatenate(values)
    mean, std = float(values.mean()), float(values.std())
    logger.info("As the network sees them, latents have mean %.3f and std %.3f.", mean, std)
    if not STD_RANGE[0] < std < STD_RANGE[1] or abs(mean) > 0.5 * std:
        factor, offset = dataset.manifest.spec.factor, dataset.manifest.spec.offset
        advice = "scale them so"
        if isinstance(factor, float) and isinstance(offset, float):
            advice = (
                f"set data.scaling_factor={factor / std:.4g} and data.shift_factor="
                f"{(offset - mean) / std:.4g} (now {factor:g} and {offset:g})"
            )
        logger.warning(
            "Noise has mean 0 and std 1, and a flow learns best from latents like that: %s.", advice
        )


def text_sources(encoders: list[TextEncoder], settings: TextSettings) -> list[TextSource]:
    """Return where the embeddings come from, one source per encoder.

    Raises:
        FileNotFoundError, ValueError: the cache holds none of an encoder.
    """
    if settings.cache_folder is None:
        return [EncodedText(encoder, truncate=settings.truncate) for encoder in encoders]
    return [
        CachedText(TextCache.open(settings.cache_folder, encoder.identity)) for encoder in encoders
    ]


def training_scope(manifest: LatentManifest) -> TrainingScope:
    """Return the words, sizes and lengths of the training data, for the generator's folder."""
    spec, buckets = manifest.spec, manifest.buckets()
    return scope_of_captions(
        [without_fps(caption) for clip in manifest.clips for caption in clip.captions],
        [1 if bucket.is_image else spec.decoded_frames(bucket.num_frames) for bucket in buckets],
        [(bucket.height * spec.h, bucket.width * spec.w) for bucket in buckets],
    )


def _usual_bucket(manifest: LatentManifest) -> tuple[Bucket, int]:
    """Return the size that most videos have, of latents, and its length in frames of video."""
    buckets = manifest.buckets()
    bucket = max(buckets, key=lambda bucket: (not bucket.is_image, len(buckets[bucket]), bucket))
    return bucket, 1 if bucket.is_image else manifest.spec.decoded_frames(bucket.num_frames)


def sample_sizes(manifest: LatentManifest) -> dict[str, int]:
    """Return what networks such as CogVideoX state of the latents that they are trained on."""
    bucket, num_frames = _usual_bucket(manifest)
    return {
        "sample_width": bucket.width,
        "sample_height": bucket.height,
        "sample_frames": num_frames,
        "temporal_compression_ratio": manifest.spec.t,
    }


def generator_defaults(
    config: TrainDenoiserConfig, manifest: LatentManifest, *, schedule: str
) -> GeneratorDefaults:
    """Return what a generator does by default: the size that most of its training data has.

    Args:
        config: of the run.
        manifest: of its latents.
        schedule: of the sampler.
    """
    bucket, num_frames = _usual_bucket(manifest)
    spec = manifest.spec
    rates = [clip.fps for clip in manifest.buckets()[bucket] if clip.fps > 0]
    return GeneratorDefaults(
        num_frames=num_frames,
        size=(bucket.height * spec.h, bucket.width * spec.w),
        fps=float(np.median(rates)) if rates else FPS_UNKNOWN,
        guidance=config.sampling.guidance,
        guidance_drops=config.sampling.guidance_drops,
        steps=config.sampling.steps,
        fps_prefix=config.text.fps_prefix,
        schedule=schedule,
    )


def _manifest(
    config: TrainDenoiserConfig,
    csv_path: str,
    folder: str,
    first_frame_folder: str | None,
    weights: str,
    spec: LatentSpec,
) -> LatentManifest:
    manifest = build_latent_manifest(
        folder,
        read_captions(csv_path),
        buckets=config.data.parsed_buckets(),
        weights_hash=weights,
        first_frame_folder=first_frame_folder,
    )
    if not config.conditions.source:
        clips = tuple(dataclasses.replace(clip, source=None) for clip in manifest.clips)
        manifest = dataclasses.replace(manifest, clips=clips)
    _check_scaling(config.tae, spec, manifest.spec)
    given = {"factor": config.data.scaling_factor, "offset": config.data.shift_factor}
    given = {name: value for name, value in given.items() if value is not None}
    manifest = dataclasses.replace(manifest, spec=dataclasses.replace(manifest.spec, **given))
    # In a folder that several tables share, latents without a caption here are those of another.
    left_out = [entry for entry in manifest.rejected if entry.reason != "no caption"]
    if left_out:
        shown = "\n".join(f"  {entry.name}: {entry.reason}" for entry in left_out[:MAX_ROWS_SHOWN])
        logger.warning("%d of %s are left out:\n%s", len(left_out), Path(csv_path).name, shown)
    if config.text.fps_prefix:
        manifest = manifest.with_captions(_with_fps)
    return manifest


def _with_fps(caption: str, clip: LatentClip) -> str:
    return with_fps(caption, clip.fps) if clip.fps > 0 else caption  # images have none


def _check_scaling(path: str, spec: LatentSpec, made_with: LatentSpec) -> None:
    """Refuse an autoencoder that states another scaling than the latents were made with."""
    for name, here, there in (
        ("scaling_factor", spec.factor, made_with.factor),
        ("shift_factor", spec.offset, made_with.offset),
    ):
        if here != there:
            raise ValueError(
                f"{name} is {here} in {path}, but the latents were made with {there}; encode the "
                "videos again (mg encode)"
            )
