"""Measure whether a generator obeys its source: held-out edits of moving shapes, judged.

mg evaluate-edits --checkpoint outputs/edit_shapes/generator \\
    --output_folder outputs/judged
"""

import dataclasses

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.known_names import check_known, one_of
from mg.pipelines.generator_folder import open_generator
from mg.pipelines.memory import log_peak_memory
from mg.pipelines.sampling_checks import check_request
from mg.pipelines.sampling_settings import SamplingSettings
from mg.pipelines.visual_inputs import VisualInputs
from mg.shapes.edit_evaluation import (
    NUM_EDITS,
    check_edit_evaluation,
    evaluate_edits,
    held_out_edits,
    table_of_edits,
)
from mg.shapes.edits import SPLITS

# What --help shows.
COMMON = (
    "checkpoint",
    "output_folder",
    "num_edits",
    "split",
    "seed",
    "steps",
    "guidance",
    "batch_size",
    "overwrite",
    "device",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalEditsConfig(DeviceConfig):
    """Evaluation on held-out edits. What is null is the generator's default.

    Args:
        checkpoint: folder of a generator trained on mg make-samples --pairs.
        output_folder: folder for report.md, report.json and contact_sheet.png.
        num_edits: number of edits; the edited attribute takes turns.
        split: held_out, edits to combinations that no training pair shows; or train, further pairs
            of the combinations that training pairs show.
        seed: seed of the first video; it rises by one with each further video.
        steps: steps of the sampler.
        guidance: weight of what the branch that it pushes away from is without.
        guidance_drops: what that is: text, source, or both with a comma.
        batch_size: videos sampled together.
        overwrite: replace an existing report.
    """

    checkpoint: str
    output_folder: str = "outputs/edits_judged"
    num_edits: int = NUM_EDITS
    split: str = one_of("held_out", tuple(SPLITS))
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    guidance_drops: str | None = None
    batch_size: int = 8
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known([self.split], SPLITS, kind="split", place="of the edits")


def main() -> None:
    """Parse, check, load, evaluate."""
    config = parse_config(EvalEditsConfig, description=__doc__, common=COMMON)
    parts = open_generator(config.checkpoint)
    settings = SamplingSettings.of(
        parts.defaults,
        steps=config.steps,
        guidance=config.guidance,
        guidance_drops=config.guidance_drops,
    )
    check_edit_evaluation(config.output_folder, settings, overwrite=config.overwrite)
    edits = held_out_edits(
        config.num_edits,
        size=settings.height,
        num_frames=settings.num_frames,
        split=config.split,
    )
    prompts = [edit.instruction for edit, _, _ in edits]
    inputs = [VisualInputs(source=source) for _, source, _ in edits]
    check_request(parts, prompts, settings, inputs=inputs)
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.pipelines.text_to_video import TextToVideo

    runs = evaluate_edits(
        TextToVideo(parts.with_weights()),
        config.output_folder,
        settings=settings,
        num_edits=config.num_edits,
        split=config.split,
        seed=config.seed,
        batch_size=config.batch_size,
        overwrite=config.overwrite,
    )
    print(table_of_edits(runs), end="")
    log_peak_memory()
