"""Generate videos from prompts: an mp4 for one prompt, or a folder for a file of prompts.

mg generate --prompt "a red circle moving left on a black background" \\
    --output red_circle.mp4
mg edit --source clip.mp4 --strength 0.9 --prompt "a blue circle ..." \\
    --output edited.mp4
"""

import dataclasses
import logging
import sys
from pathlib import Path

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.known_names import one_of
from mg.pipelines.generated_files import (
    check_output_name,
    check_outputs,
    describe_videos,
    numbered_paths,
    read_prompts,
    unfinished,
    write_generated,
)
from mg.pipelines.generator_folder import SHIPPED_GENERATOR, open_generator
from mg.pipelines.generator_lora import with_lora
from mg.pipelines.generator_parts import GeneratorParts
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SCHEDULES, SamplingSettings, check_ranges
from mg.pipelines.visual_inputs import VisualInputs, check_known_frames
from mg.tiling.sizes import Tiling

logger = logging.getLogger("mg")

# What --help shows.
COMMON = (
    "prompt",
    "prompts_file",
    "source",
    "strength",
    "output",
    "checkpoint",
    "num_frames",
    "resolution",
    "steps",
    "guidance",
    "seed",
    "device",
)


# What a video begins with besides its prompt.
VISUAL = tuple(field.name for field in dataclasses.fields(VisualInputs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateConfig(DeviceConfig):
    """Generates videos from prompts. What is null is the generator's default.

    Args:
        checkpoint: folder of a generator (model_index.json, denoiser, autoencoder, conditions); by
            default the one that ships here, of moving shapes.
        lora: LoRA file (.safetensors), or its folder, to merge into the generator.
        lora_weight: how much of it; 1 is what was trained.
        prompt: what the video is to show; without it and without anything else to begin with, the
            first of the generator's example prompts.
        prompts_file: text file with a prompt on each line, in place of prompt. Videos that are
            there already, made in the same way, are left as they are.
        source: video to be edited, by a generator that was trained with sources or, with a strength
            below 1, by any.
        strength: below 1, the source takes the place of noise, noised to the time 1 - strength
            (with schedule=published to where that share of the steps is left): how much may change.
        first_frame: image that the video begins with, for a generator that was trained so.
        prefix: video that the video begins with, as first_frame.
        suffix: video that the video ends with, as first_frame.
        known_frames: video of which the frames of mask are kept, for a generator that was trained
            with masks; the others are made.
        mask: frames to keep, ranges counted from 0 such as 0-7,24-31, whole frames of the latent.
        guidance_drops: what the branch that guidance pushes away from is without: text, source or
            frames, or several with commas.
        output: the file to write (.mp4, .mkv, .mov; .png for one frame), with prompts_file the
            folder of 0000.mp4, 0001.mp4, ...; a .json beside each video says how it was made.
        num_frames: frames of each video; 1 is an image, as is an output that ends in .png.
        resolution: side of a square, or [height, width], in pixels.
        fps: frames per second.
        steps: steps of the sampler; more take longer and are more exact.
        guidance: weight of the text, 0 or more; 1 turns guidance off and takes half the time.
        negative_prompt: what the video is pushed away from.
        true_cfg_scale: weight of classifier-free guidance with negative_prompt, beside the one
            that the network takes as an input (HunyuanVideo); 1 is none, more takes twice as long.
        prompt_template: JSON file with what stands around a prompt for HunyuanVideo's text
            encoder, {"template": "... {} ...", "crop_start": N}.
        text_dtype: precision of HunyuanVideo's first text encoder, float32, float16 or bfloat16.
        seed: seed of the first video; it rises by one with each further video.
        schedule: times of the steps, linear_quadratic, linear, or published, those of the
            scheduler that the generator was published with; null takes the generator's own.
        num_reference_steps: steps of the linear schedule that linear_quadratic imitates.
        solver: euler, or midpoint, which takes twice as long per step.
        two_passes: guidance in two passes instead of one of double batch; half the memory.
        batch_size: videos sampled together.
        truncate: cut prompts that are too long, instead of refusing them.
        keep_latents: leave the latents beside the videos (mg decode reads them).
        overwrite: make all videos again and replace existing files.
        dtype: precision of the transformer, float32, float16 or bfloat16.
        decode_dtype: precision of the TAE's decoder, float32, float16 or bfloat16.
        tiling: sizes of the decoder's tiles in frames and pixels.
    """

    output: str
    checkpoint: str = str(SHIPPED_GENERATOR)
    lora: str | None = None
    lora_weight: float = 1.0
    prompt: str | None = None
    prompts_file: str | None = None
    source: str | None = None
    strength: float = 1.0
    first_frame: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    known_frames: str | None = None
    mask: str | None = None
    guidance_drops: str | None = None
    num_frames: int | None = None
    resolution: int | tuple[int, int] | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    true_cfg_scale: float = 1.0
    prompt_template: str | None = None
    text_dtype: str = "float32"
    seed: int = 0
    schedule: str | None = one_of(None, SCHEDULES)
    num_reference_steps: int = 250
    solver: str = one_of("euler", ("euler", "midpoint"))
    two_passes: bool = False
    batch_size: int = 1
    truncate: bool = False
    keep_latents: bool = False
    overwrite: bool = False
    dtype: str = "float32"
    decode_dtype: str = "float32"
    tiling: Tiling = dataclasses.field(default_factory=Tiling)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt is not None and self.prompts_file is not None:
            raise ValueError("give either prompt or prompts_file")
        given = [name for name in VISUAL if getattr(self, name) is not None]
        VisualInputs(**{name: getattr(self, name) for name in given})  # refuses what does not fit
        if given and self.prompt is None and self.prompts_file is None:
            raise ValueError(f"give a prompt (or prompts_file) beside {', '.join(given)}")
        if self.lora is None and self.lora_weight != 1:
            raise ValueError("lora_weight has no effect without lora")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}; expected 1 or more")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed={self.seed}; expected 0 to 2^64 - 1")
        # Before weights are read and hashed, which may take minutes.
        check_ranges({name: value for name, value in vars(self).items() if value is not None})


def main() -> None:
    """Parse, check, load, generate."""
    config = parse_config(GenerateConfig, description=__doc__, common=COMMON)
    if sys.argv[0] == "mg edit" and config.source is None:
        raise ValueError("mg edit needs --source VIDEO; mg generate takes a prompt alone")
    prompts = [] if config.prompts_file is None else read_prompts(config.prompts_file)
    if config.prompt is not None and not config.prompt.strip():
        logger.warning("The prompt is empty: the video may show anything.")
    if config.prompts_file is None:
        check_output_name(config.output)
    parts = open_generator(config.checkpoint).with_text_dtype(config.text_dtype)
    if config.prompts_file is None:
        prompts = [_example_prompt(parts) if config.prompt is None else config.prompt]
    if config.lora is not None:
        parts = with_lora(parts, config.lora, weight=config.lora_weight)
    settings = _settings(config, parts.defaults)
    seeds = [config.seed + i for i in range(len(prompts))]
    paths = [Path(config.output)]
    if config.prompts_file is not None:
        paths = numbered_paths(config.output, len(prompts), settings.num_frames)
    given = VisualInputs(**{name: getattr(config, name) for name in VISUAL})
    inputs = [given] * len(prompts)
    check_request(parts, prompts, settings, inputs=inputs, truncate=config.truncate)
    given = given.fitted(settings)
    check_known_frames(given, parts.autoencoder.spec, settings.num_frames)
    inputs = [given] * len(prompts)
    check_outputs(paths, settings.num_frames, overwrite=_may_be_there(config))
    # All that can be refused has been: now come the weights, which may take minutes.
    parts = parts.with_weights()
    left = _left_to_make(config, parts, prompts, seeds, paths, settings, inputs)
    if left:
        wanted = [(prompts[i], seeds[i], paths[i], inputs[i]) for i in left]
        _generate(config, parts, settings, wanted)
    if config.prompts_file is not None:
        logger.info("%d made, %d finished before", len(left), len(prompts) - len(left))


def _example_prompt(parts: GeneratorParts) -> str:
    """Return the first example prompt of a generator.

    Raises:
        ValueError: it has none.
    """
    if parts.scope is None or not parts.scope.examples:
        raise ValueError("give either prompt or prompts_file: the generator has no examples")
    prompt = parts.scope.examples[0]
    logger.info("No prompt is given; taking an example of the generator's: %r", prompt)
    return prompt


def _left_to_make(config, parts, prompts, seeds, paths, settings, inputs) -> list[int]:
    """Return the places of the videos to make, of those that may be there from before."""
    if config.overwrite or config.prompts_file is None:
        return list(range(len(prompts)))
    descriptions = describe_videos(
        parts,
        prompts,
        seeds,
        settings,
        dtype=config.dtype,
        decode_dtype=config.decode_dtype,
        tiling=config.tiling,
        inputs=inputs,
    )
    return unfinished(paths, descriptions, keep_latents=config.keep_latents)


def _may_be_there(config: GenerateConfig) -> bool:
    """Return whether videos may be there: in a folder of prompts they are from before."""
    return config.overwrite or config.prompts_file is not None


def _generate(config, parts, settings, wanted) -> None:
    """Make the videos of (prompt, seed, path, inputs)."""
    prompts, seeds, paths, inputs = zip(*wanted, strict=True)
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.pipelines.text_to_video import TextToVideo

    generator = TextToVideo(
        parts, dtype=config.dtype, decode_dtype=config.decode_dtype, tiling=config.tiling
    )
    videos = write_generated(
        generator,
        prompts,
        paths,
        seeds=seeds,
        settings=settings,
        inputs=inputs,
        batch_size=config.batch_size,
        truncate=config.truncate,
        keep_latents=config.keep_latents,
        overwrite=_may_be_there(config),
        origin={"checkpoint": str(Path(config.checkpoint).resolve())},
    )
    for path, prompt, _ in zip(paths, prompts, videos, strict=True):
        logger.info("%s: %s", path, prompt)
    log_peak_memory()


def _settings(config: GenerateConfig, defaults) -> SamplingSettings:
    size = config.resolution
    height, width = size if isinstance(size, tuple | list) else (size, size)
    num_frames = config.num_frames
    if num_frames is None and Path(config.output).suffix.lower() == ".png":
        num_frames = 1
    return SamplingSettings.of(
        defaults,
        num_frames=num_frames,
        height=height,
        width=width,
        fps=config.fps,
        steps=config.steps,
        guidance=config.guidance,
        negative_prompt=config.negative_prompt,
        schedule=config.schedule,
        num_reference_steps=config.num_reference_steps,
        solver=config.solver,
        two_passes=config.two_passes,
        guidance_drops=config.guidance_drops,
        strength=config.strength,
        true_cfg_scale=config.true_cfg_scale,
        prompt_template=config.prompt_template,
    )
