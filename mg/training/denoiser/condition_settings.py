"""The section `conditions` of a training run: what its network is conditioned on besides text."""

import dataclasses

from mg.conditions.frame_draws import FrameDraws
from mg.conditions.visual import FRAME_MODES
from mg.data.latent_dataset import VisualDraws
from mg.training.setting_checks import check_types, require

__all__ = ["ConditionSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionSettings:
    """What the network is conditioned on besides text, and how often it is without.

    Args:
        source: train on pairs: the table's column `source` names the video that each is an edit
            of; both have latents.
        source_dropout: share of the samples that are trained without their source.
        first_frame, prefix, suffix, mask: share of the samples of which the first frame, some
            frames at the beginning, at the end, or anywhere are known; of the rest, none is.
        first_frame_folder: folder of latents of the first frames alone, which mg encode made with
            --max_frames 1; needed for first_frame unless the autoencoder codes the first frame by
            itself, as causal ones do.
    """

    source: bool = False
    source_dropout: float = 0.1
    first_frame: float = 0.0
    prefix: float = 0.0
    suffix: float = 0.0
    mask: float = 0.0
    first_frame_folder: str | None = None

    def __post_init__(self) -> None:
        check_types(self, "conditions.")
        dropout = self.source_dropout
        require(0 <= dropout < 1, f"conditions.source_dropout={dropout}; expected 0 to below 1")
        try:
            self.visual_draws()
        except ValueError as error:
            raise ValueError(f"conditions: {error}") from error
        require(
            self.first_frame_folder is None or self.first_frame > 0,
            "conditions.first_frame_folder has no effect with conditions.first_frame=0",
        )

    def visual_draws(self) -> VisualDraws:
        """Return how often samples have which condition."""
        frames = FrameDraws({mode: getattr(self, mode) for mode in FRAME_MODES})
        return VisualDraws(
            source_dropout=self.source_dropout if self.source else None,
            frames=frames if frames.modes else None,
        )
