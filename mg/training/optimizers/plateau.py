"""A learning rate that falls when the validation loss stops falling (Movie Gen 3.1.4)."""

import dataclasses
import math
from collections.abc import Mapping

from mg.training.setting_checks import check_types, require

__all__ = ["Plateau", "PlateauSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauSettings:
    """When the learning rate falls, and how far.

    Args:
        num_validations: validations in a row without improvement after which it falls.
        min_improvement: share of the best loss by which a new one must be lower to count.
        factor: what the learning rate is multiplied by each time.
        min_multiplier: the smallest product of these factors.
    """

    num_validations: int = 3
    min_improvement: float = 0.001
    factor: float = 0.5
    min_multiplier: float = 0.01

    def __post_init__(self) -> None:
        check_types(self, "plateau.")
        require(
            self.num_validations >= 1,
            f"plateau.num_validations={self.num_validations}; expected 1 or more",
        )
        require(
            0 <= self.min_improvement < 1,
            f"plateau.min_improvement={self.min_improvement}; expected 0 to below 1",
        )
        require(
            0 < self.factor < 1,
            f"plateau.factor={self.factor}; expected a number between 0 and 1",
        )
        require(
            0 < self.min_multiplier <= 1,
            f"plateau.min_multiplier={self.min_multiplier}; expected more than 0, at most 1",
        )


@dataclasses.dataclass
class Plateau:
    """Follows the validation loss.

    Attributes:
        settings: when to lower the learning rate.
        multiplier: present factor on the learning rate.
        best_loss: lowest loss that counted as an improvement; None before the first validation.
        num_without_improvement: validations since then, or since the learning rate last fell.
    """

    settings: PlateauSettings
    multiplier: float = 1.0
    best_loss: float | None = None
    num_without_improvement: int = 0

    def update(self, loss: float) -> bool:
        """Take in a validation loss, 0 or more; return whether the learning rate falls now.

        One that is not finite is not an improvement.
        """
        if math.isfinite(loss) and self._improves(loss):
            self.best_loss, self.num_without_improvement = loss, 0
            return False
        self.num_without_improvement += 1
        if self.num_without_improvement < self.settings.num_validations:
            return False
        self.num_without_improvement = 0
        before = self.multiplier
        self.multiplier = max(self.settings.min_multiplier, before * self.settings.factor)
        return self.multiplier < before

    def _improves(self, loss: float) -> bool:
        if self.best_loss is None:
            return True
        return loss < self.best_loss * (1 - self.settings.min_improvement)

    def state(self) -> dict[str, float | None]:
        """Return what a checkpoint must hold; plain numbers that JSON can keep."""
        return {
            "multiplier": self.multiplier,
            "best_loss": self.best_loss,
            "num_without_improvement": self.num_without_improvement,
        }

    def load_state(self, state: Mapping[str, float | None]) -> None:
        """Go on from what `state` returned.

        Raises:
            ValueError: other fields than those of `state`.
        """
        if set(state) != set(self.state()):
            raise ValueError(
                f"state of a plateau with {sorted(state)}; expected {sorted(self.state())}"
            )
        self.multiplier = state["multiplier"]
        self.best_loss = state["best_loss"]
        self.num_without_improvement = state["num_without_improvement"]
