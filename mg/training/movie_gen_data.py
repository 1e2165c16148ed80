"""The data of a training run on latents: captions, latents and text that fit each other."""

import logging
from pathlib import Path

import numpy as np

from mg.data.captions import captions_by_video
from mg.data.latent_dataset import LatentDataset
from mg.data.latent_manifest import LatentClip, LatentManifest, build_latent_manifest
from mg.data.text_sources import CachedText, EncodedText, TextSource
from mg.models.tae.config import TAEConfig
from mg.parallel.ranks import Ranks
from mg.pipelines.autoencoder import tensors_hash
from mg.pipelines.generator_folder import GeneratorDefaults
from mg.text.cache import TextCache
from mg.text.encoder import TextEncoder
from mg.text.prompts import with_fps
from mg.training.movie_gen_config import TextSettings, TrainMovieGenConfig
from mg.weights.load import load_tae_tensors

__all__ = ["generator_defaults", "held_out_latents", "text_sources", "training_latents"]

logger = logging.getLogger("mg")

MAX_ROWS_SHOWN = 20  # of latents that are left out
FPS_UNKNOWN = 16.0  # of a generator whose latents do not tell: Movie Gen's own


def training_latents(
    config: TrainMovieGenConfig, sources: list[TextSource], ranks: Ranks
) -> LatentDataset:
    """Return the latents to train on; what they are is logged.

    Raises:
        FileNotFoundError: a folder, a table, the autoencoder or an embedding is missing.
        ValueError: the latents were made by another autoencoder than `config.tae`, a table cannot
            be read, or settings that the latents do not allow.
    """
    tensors, tae = load_tae_tensors(config.tae)
    manifest = _manifest(config, config.csv_path, config.latent_folder, tensors_hash(tensors))
    _check_scaling(config.tae, TAEConfig.from_mapping(tae), manifest)
    dataset = LatentDataset(
        manifest,
        sources,
        seed=config.seed,
        rank=ranks.rank,
        num_ranks=ranks.size,
        batch_sizes=config.data.parsed_batch_sizes(),
        image_ratio=config.data.image_ratio,
        text_dropout=config.text.dropout,
        max_bad_share=config.guards.max_bad_share,
    )
    logger.info("Training latents:\n%s", dataset.table(config.batch_size))
    return dataset


def held_out_latents(
    config: TrainMovieGenConfig, sources: list[TextSource], training: LatentManifest
) -> LatentDataset | None:
    """Return the latents to validate on, as many as the settings say; None where there are none.

    Raises:
        FileNotFoundError, ValueError: as `training_latents`; or they are trained on too.
    """
    settings = config.validation
    if settings.csv_path is None:
        return None
    try:
        folder = settings.latent_folder or config.latent_folder
        manifest = _manifest(config, settings.csv_path, folder, training.weights_hash)
        trained = {clip.path.resolve() for clip in training.clips}
        both = [clip.name for clip in manifest.clips if clip.path.resolve() in trained]
        if both:
            raise ValueError(
                f"{len(both)} of {len(manifest.clips)} held-out videos are trained on, such as "
                f"{both[0]}; take them out of one of the tables"
            )
        return LatentDataset(manifest, sources, text_dropout=0.0)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"validation: {error}") from error


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


def generator_defaults(config: TrainMovieGenConfig, manifest: LatentManifest) -> GeneratorDefaults:
    """Return what a generator does by default: the size that most of its training data has."""
    buckets = manifest.buckets()
    bucket = max(buckets, key=lambda bucket: (not bucket.is_image, len(buckets[bucket]), bucket))
    tae = TAEConfig.from_mapping(manifest.config)
    rates = [clip.fps for clip in buckets[bucket] if clip.fps > 0]
    return GeneratorDefaults(
        num_frames=1 if bucket.is_image else bucket.num_frames * tae.temporal_compression,
        size=(bucket.height * tae.spatial_compression, bucket.width * tae.spatial_compression),
        fps=float(np.median(rates)) if rates else FPS_UNKNOWN,
        guidance=config.sampling.guidance,
        steps=config.sampling.steps,
        fps_prefix=config.text.fps_prefix,
    )


def _manifest(
    config: TrainMovieGenConfig, csv_path: str, folder: str, weights_hash: str
) -> LatentManifest:
    manifest = build_latent_manifest(
        folder,
        captions_by_video(csv_path),
        buckets=config.data.parsed_buckets(),
        weights_hash=weights_hash,
    )
    # In a folder that several tables share, latents without a caption here are those of another.
    left_out = [entry for entry in manifest.rejected if entry.reason != "no caption"]
    if left_out:
        shown = "\n".join(f"  {entry.name}: {entry.reason}" for entry in left_out[:MAX_ROWS_SHOWN])
        logger.warning("%d of %s are left out:\n%s", len(left_out), Path(csv_path).name, shown)
    if config.text.fps_prefix:
        manifest = manifest.with_captions(_with_fps)
    return manifest


def _with_fps(clip: LatentClip) -> str:
    return with_fps(clip.caption, clip.fps) if clip.fps > 0 else clip.caption  # images have none


def _check_scaling(path: str, config: TAEConfig, manifest: LatentManifest) -> None:
    """Refuse an autoencoder that would undo another scaling than the latents are trained with."""
    made_with = TAEConfig.from_mapping(manifest.config)
    for name in ("scaling_factor", "shift_factor"):
        here, there = getattr(config, name), getattr(made_with, name)
        if here != there:
            raise ValueError(
                f"{name} is {here} in {path}, but the latents were made with {there}; encode the "
                "videos again (scripts/encode.py)"
            )
