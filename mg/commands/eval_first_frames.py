"""Measure whether a generator keeps to a first frame: held-out clips of moving shapes, judged.

mg evaluate-first-frames --checkpoint outputs/first_frame_shapes/generator \\
    --output_folder outputs/judged
"""

import dataclasses

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.pipelines.generator_folder import open_generator
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import VisualInputs
from mg.shapes.first_frame_evaluation import (
    NUM_CLIPS,
    check_first_frame_evaluation,
    evaluate_first_frames,
    held_out_clips,
    table_of_first_frames,
)

# What --help shows.
COMMON = (
    "checkpoint",
    "output_folder",
    "num_clips",
    "seed",
    "steps",
    "guidance",
    "batch_size",
    "overwrite",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalFirstFramesConfig(DeviceConfig):
    """Evaluation on held-out first frames. What is null is the generator's default.

    Args:
        checkpoint: folder of a generator of moving shapes that takes a first frame.
        output_folder: folder for report.md, report.json and contact_sheet.png.
        num_clips: number of clips.
        seed: seed of the first video; it rises by one with each further video.
        steps: steps of the sampler.
        guidance: weight of what the branch that it pushes away from is without.
        guidance_drops: what that is: text, frames, or both with a comma.
        batch_size: videos sampled together.
        overwrite: replace an existing report.
    """

    checkpoint: str
    output_folder: str = "outputs/first_frames_judged"
    num_clips: int = NUM_CLIPS
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    guidance_drops: str | None = None
    batch_size: int = 8
    overwrite: bool = False


def main() -> None:
    """Parse, check, load, evaluate."""
    config = parse_config(EvalFirstFramesConfig, description=__doc__, common=COMMON)
    parts = open_generator(config.checkpoint)
    settings = SamplingSettings.of(
        parts.defaults,
        steps=config.steps,
        guidance=config.guidance,
        guidance_drops=config.guidance_drops,
    )
    check_first_frame_evaluation(config.output_folder, settings, overwrite=config.overwrite)
    clips = held_out_clips(config.num_clips, size=settings.height, num_frames=settings.num_frames)
    prompts = [combination.caption for combination, _ in clips]
    inputs = [VisualInputs(first_frame=frames[0]) for _, frames in clips]
    check_request(parts, prompts, settings, inputs=inputs)
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.pipelines.text_to_video import TextToVideo

    runs = evaluate_first_frames(
        TextToVideo(parts.with_weights()),
        config.output_folder,
        settings=settings,
        num_clips=config.num_clips,
        seed=config.seed,
        batch_size=config.batch_size,
        overwrite=config.overwrite,
    )
    print(table_of_first_frames(runs), end="")
    log_peak_memory()
