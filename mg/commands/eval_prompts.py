"""Measure whether a generator follows prompts it was not trained on (captions of moving shapes).

mg evaluate-prompts --output_folder outputs/prompts
"""

import dataclasses

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.pipelines.generator_folder import SHIPPED_GENERATOR, load_generator
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.prompt_evaluation import (
    check_evaluation,
    evaluate_prompts,
    table_of,
    wanted_clips,
)
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalPromptsConfig(DeviceConfig):
    """Evaluation on the 48 held-out captions. What is null is the generator's default.

    Args:
        checkpoint: folder of a generator trained on captions of mg make-samples; by
            default the one that ships here.
        output_folder: folder for report.md, report.json and contact_sheet.png.
        num_prompts: take so many of the 48; null takes all.
        videos_per_prompt: videos of each prompt, with different seeds.
        seed: seed of the first video; each further one has a number more.
        steps: steps of the sampler.
        guidance: weight of the text in the table's first row; the others are without guidance and
            without a prompt.
        schedule: times of the steps, linear_quadratic, linear, or published, those of the
            scheduler that the generator was published with; null takes the generator's own.
        solver: euler, or midpoint, which takes twice as long per step.
        batch_size: videos sampled together.
        overwrite: replace an existing report.
    """

    checkpoint: str = str(SHIPPED_GENERATOR)
    output_folder: str = "outputs/prompts"
    num_prompts: int | None = None
    videos_per_prompt: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    schedule: str | None = None
    solver: str = "euler"
    batch_size: int = 8
    overwrite: bool = False


def main() -> None:
    """Parse, check, load, evaluate."""
    config = parse_config(EvalPromptsConfig, description=__doc__)
    wanted = wanted_clips(config.num_prompts, config.videos_per_prompt)
    parts = load_generator(config.checkpoint)
    settings = SamplingSettings.of(
        parts.defaults,
        steps=config.steps,
        guidance=config.guidance,
        schedule=config.schedule,
        solver=config.solver,
    )
    check_evaluation(config.output_folder, settings, overwrite=config.overwrite)
    check_request(parts, [combination.caption for combination in wanted], settings)
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.pipelines.text_to_video import TextToVideo

    runs = evaluate_prompts(
        TextToVideo(parts),
        wanted,
        config.output_folder,
        settings=settings,
        seed=config.seed,
        batch_size=config.batch_size,
        overwrite=config.overwrite,
    )
    print(table_of(runs), end="")
    log_peak_memory()
