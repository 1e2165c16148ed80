"""A generator in a folder of diffusers: CogVideoX and HunyuanVideo, as they were published.

    model_index.json                          class of the pipeline, and of each part
    scheduler/        scheduler_config.json
    transformer/, vae/                        config.json, weights (whole or in shards)
    text_encoder/, tokenizer/ (and _2)        may be null in the index: texts then come embedded

Such a generator samples with its own scheduler (`schedule=published`). Nothing here imports
MindSpore.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mg.conditions.text.encoder import TextEncoder
from mg.conditions.text.llama_encoder import LlamaEncoder
from mg.conditions.text.pretrained import PretrainedTextEncoder
from mg.conditions.visual import NO_CHANNELS
from mg.console import one_line
from mg.files import sha256_of_file
from mg.flow.scheduler_config import SCHEDULER_CLASSES, build_scheduler
from mg.json_file import read_json_object
from mg.latent_spec import LatentSpec
from mg.models.denoiser_folder import read_denoiser, read_denoiser_config
from mg.models.families import autoencoder_family, denoiser_family
from mg.models.reading import open_autoencoder, read_autoencoder
from mg.pipelines.generator_defaults import GeneratorDefaults
from mg.pipelines.generator_parts import GeneratorParts, GeneratorWeights, check_fit
from mg.weights.checkpoint_file import find_weights
from mg.weights.safetensors_file import INDEX_SUFFIX, safetensors_files

__all__ = [
    "PIPELINES",
    "SCHEDULER_FOLDER",
    "open_diffusers_pipeline",
    "read_scheduler",
    "scheduler_file",
]

SCHEDULER_FOLDER = "scheduler"
# What CogVideoX 1.5 states as the size of a latent, which none of its videos has; and the height
# and width of the videos on its model card.
LATER_SAMPLE, LATER_SIZE = (300, 300), (768, 1360)


def _cogvideox_defaults(config: Any, spec: LatentSpec) -> GeneratorDefaults:
    is_later = config.patch_size_t is not None  # 1.5 was trained at twice the frame rate
    sample = (config.sample_height, config.sample_width)
    size = (sample[0] * spec.h, sample[1] * spec.w)
    if is_later and sample == LATER_SAMPLE:
        size = LATER_SIZE
    return GeneratorDefaults(
        num_frames=config.sample_frames,
        size=size,
        fps=16 if is_later else 8,
        guidance=6.0,
        steps=50,
        schedule="published",
    )


def _hunyuan_defaults(config: Any, spec: LatentSpec) -> GeneratorDefaults:
    return GeneratorDefaults(
        num_frames=129,
        size=(720, 1280),
        fps=24,
        guidance=6.0,
        steps=50,
        schedule="published",
        embedded_guidance=config.guidance_embeds,
    )


def _cogvideox_encoders(folder: Path, config: Any) -> list[TextEncoder]:
    max_tokens = config.max_text_seq_length
    return [
        PretrainedTextEncoder("t5", folder / "text_encoder", max_tokens=max_tokens, padded=True)
    ]


def _hunyuan_encoders(folder: Path, config: Any) -> list[TextEncoder]:
    return [
        LlamaEncoder(folder / "text_encoder"),
        PretrainedTextEncoder("clip", folder / "text_encoder_2", pooled=True),
    ]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """One class of diffusers' pipelines.

    Attributes:
        denoiser, autoencoder: their families.
        text_parts: parts of text encoding, with the classes that are known.
        defaults: from the denoiser's config and the autoencoder's latents.
        encoders: from folder and denoiser's config.
    """

    denoiser: str
    autoencoder: str
    text_parts: Mapping[str, tuple[str, ...]]
    defaults: Callable[[Any, LatentSpec], GeneratorDefaults]
    encoders: Callable[[Path, Any], list[TextEncoder]]

    def classes(self) -> dict[str, tuple[str, ...]]:
        """Return the classes that are known, by the name of the part."""
        return {
            "scheduler": tuple(SCHEDULER_CLASSES),
            "transformer": (denoiser_family(self.denoiser).class_name,),
            "vae": autoencoder_family(self.autoencoder).class_names,
            **self.text_parts,
        }


PIPELINES = {
    "CogVideoXPipeline": Pipeline(
        "cogvideox",
        "cogvideox",
        {"text_encoder": ("T5EncoderModel",), "tokenizer": ("T5Tokenizer", "T5TokenizerFast")},
        _cogvideox_defaults,
        _cogvideox_encoders,
    ),
    "HunyuanVideoPipeline": Pipeline(
        "hunyuan",
        "hunyuan",
        {
            "text_encoder": ("LlamaModel",),
            "tokenizer": ("LlamaTokenizer", "LlamaTokenizerFast"),
            "text_encoder_2": ("CLIPTextModel",),
            "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
        },
        _hunyuan_defaults,
        _hunyuan_encoders,
    ),
}


def open_diffusers_pipeline(folder: Path, index: Mapping[str, Any]) -> GeneratorParts:
    """Return what a folder of diffusers holds but for its weights, checked.

    Args:
        folder: with model_index.json.
        index: what stands in it; its class is one of `PIPELINES`.

    Raises:
        FileNotFoundError: a part that the index names is not there.
        ValueError: a class or a value that is not implemented, damaged files, or parts that do
            not fit each other.
    """
    pipeline = PIPELINES[index["_class_name"]]
    parts = _parts(folder, index, pipeline)
    scheduler = read_scheduler(folder)
    family, config = read_denoiser_config(folder / "transformer")
    encoders = []
    if set(pipeline.text_parts) <= parts:
        encoders = pipeline.encoders(folder, config)
    autoencoder = open_autoencoder(folder / "vae", family=pipeline.autoencoder)
    try:
        check_fit(config, autoencoder.spec, encoders, NO_CHANNELS)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error

    def read_weights() -> GeneratorWeights:
        denoiser = read_denoiser(folder / "transformer")
        coder = read_autoencoder(folder / "vae", method=pipeline.autoencoder)
        file = find_weights(folder / "vae")
        files = safetensors_files(file) if file.name.endswith(INDEX_SUFFIX) else [file]
        sha256 = {
            str(file.relative_to(folder)): sha256_of_file(file)
            for file in (*denoiser.files, *files)
        }
        return GeneratorWeights(denoiser.tensors, coder, sha256)

    return GeneratorParts(
        folder,
        config,
        {},
        autoencoder,
        encoders,
        pipeline.defaults(config, autoencoder.spec),
        {},
        family=family,
        scheduler=scheduler,
        read_weights=read_weights,
    )


def scheduler_file(folder: Path) -> Path:
    """Return where the scheduler's config stands in a generator's folder."""
    return folder / SCHEDULER_FOLDER / "scheduler_config.json"


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Return the fields of a generator's scheduler_config.json, checked.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, or describes steps that are not implemented.
    """
    path = scheduler_file(folder)
    fields = _read_json(path)
    try:
        build_scheduler(fields, 1)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return fields


def _parts(folder: Path, index: Mapping[str, Any], pipeline: Pipeline) -> set[str]:
    """Return the names of the parts that there are, all of classes that are known."""
    place = folder / "model_index.json"
    there = set()
    for name, known in pipeline.classes().items():
        entry = index.get(name)
        if entry in (None, [None, None]):
            if name not in pipeline.text_parts:
                raise ValueError(f"{place} names no {name}; expected {' or '.join(known)}")
            continue
        class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
        if class_name not in known:
            raise ValueError(
                f"{place}: {name} is of class {one_line(repr(class_name))}, which is not known; "
                f"expected {' or '.join(known)}"
            )
        if not (folder / name).is_dir():
            hint = ""
            if name in pipeline.text_parts:
                hint = (
                    f", or write [null, null] for {name} there and give prompt_embeds in Python (a "
                    "command needs the text encoders)"
                )
            raise FileNotFoundError(
                f"{folder} lacks the folder {name}, which {place.name} names; copy the folder as "
                f"a whole{hint}"
            )
        there.add(name)
    return there


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; copy the folder as a whole") from None
