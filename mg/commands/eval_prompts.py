"""Measure whether a generator follows prompts it was not trained on (captions of moving shapes).

mg evaluate-prompts --output_folder outputs/prompts
mg evaluate-prompts --lora LORA.safetensors --split new_colour_held_out --videos_per_prompt 5
"""

import dataclasses

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.known_names import check_known, one_of
from mg.pipelines.generator_folder import SHIPPED_GENERATOR, open_generator
from mg.pipelines.generator_lora import with_lora
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SCHEDULES, SamplingSettings
from mg.shapes.clips import ALL_COLOURS, COLOURS
from mg.shapes.prompt_evaluation import (
    check_evaluation,
    evaluate_prompts,
    table_of,
    wanted_clips,
)

# What --help shows.
COMMON = (
    "checkpoint",
    "lora",
    "split",
    "output_folder",
    "num_prompts",
    "videos_per_prompt",
    "seed",
    "steps",
    "guidance",
    "batch_size",
    "overwrite",
    "device",
)

HELD_OUT_SPLITS = ("held_out", "new_colour_held_out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalPromptsConfig(DeviceConfig):
    """Evaluation on held-out captions. What is null is the generator's default.

    Args:
        checkpoint: folder of a generator trained on captions of mg make-samples; by
            default the one that ships here.
        lora: LoRA file (.safetensors), or its folder, to merge into the generator.
        split: which captions: held_out, 48, or new_colour_held_out, 9 of a colour that the shipped
            generator does not know. The judge tells that colour from the others wherever a LoRA is
            merged or its captions are taken.
        output_folder: folder for report.md, report.json and contact_sheet.png.
        num_prompts: take so many of them; null takes all.
        videos_per_prompt: videos of each prompt, with different seeds.
        seed: seed of the first video; it rises by one with each further video.
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
    lora: str | None = None
    split: str = one_of("held_out", HELD_OUT_SPLITS)
    output_folder: str = "outputs/prompts"
    num_prompts: int | None = None
    videos_per_prompt: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    schedule: str | None = one_of(None, SCHEDULES)
    solver: str = one_of("euler", ("euler", "midpoint"))
    batch_size: int = 8
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known([self.split], HELD_OUT_SPLITS, kind="split", place="of the captions")

    @property
    def colours(self) -> dict[str, tuple[int, int, int]]:
        """Those that the judge tells apart."""
        return COLOURS if self.lora is None and self.split == "held_out" else ALL_COLOURS


def main() -> None:
    """Parse, check, load, evaluate."""
    config = parse_config(EvalPromptsConfig, description=__doc__, common=COMMON)
    wanted = wanted_clips(config.num_prompts, config.videos_per_prompt, split=config.split)
    parts = open_generator(config.checkpoint)
    if config.lora is not None:
        parts = with_lora(parts, config.lora)
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
        TextToVideo(parts.with_weights()),
        wanted,
        config.output_folder,
        settings=settings,
        seed=config.seed,
        batch_size=config.batch_size,
        colours=config.colours,
        overwrite=config.overwrite,
    )
    print(table_of(runs), end="")
    log_peak_memory()
