"""What validations are judged by."""

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["DIFFUSION_LOSS", "FLOW_LOSS", "MAX_LISTED", "PSNR", "Metric"]

MAX_LISTED = 8  # parts that are listed and drawn one by one; validation.jsonl has all


@dataclasses.dataclass(frozen=True)
class Metric:
    """The number by which validations are judged, and what it is made of.

    Args:
        key: its key in what `Task.validate` returns.
        parts_key: key of its parts there, {name: number}, such as those of each clip.
        label: what people call it, with its unit.
        is_higher_better: whether a higher number is a better one.
        digits: digits behind the point, in texts.
        part_text: what stands before a part's name where people read it, such as "t = ".
    """

    key: str
    parts_key: str
    label: str
    is_higher_better: bool
    digits: int
    part_text: str = ""

    def score(self, entry: Mapping[str, Any]) -> float:
        """Return the number of a validation with the sign that makes higher the better."""
        return entry[self.key] if self.is_higher_better else -entry[self.key]

    def text(self, value: float) -> str:
        """Return a number as people read it."""
        return f"{value:.{self.digits}f}"

    def name_of_part(self, name: str) -> str:
        """Return the name of a part as people read it, such as "t = 0.18"."""
        return self.part_text + name


DIFFUSION_LOSS = Metric(
    "diffusion_loss",
    "diffusion_loss_at_step",
    "diffusion loss",
    is_higher_better=False,
    digits=4,
    part_text="step ",
)
FLOW_LOSS = Metric(
    "flow_loss", "flow_loss_at_t", "flow loss", is_higher_better=False, digits=4, part_text="t = "
)
PSNR = Metric("psnr", "psnr_per_clip", "PSNR (dB)", is_higher_better=True, digits=2)
