"""The exercise's record: all that the house needs to know of it."""

from mg.models.families import AutoencoderFamily
from tests.contract.exercise.config import ExerciseConfig

FAMILY = AutoencoderFamily(
    name="exercise",
    class_names=("ExerciseAutoencoder",),
    network="tests.contract.exercise.network:ExerciseAutoencoder",
    from_fields=ExerciseConfig.from_mapping,
    is_own=lambda shapes: set(shapes) == {"down.weight", "down.bias", "up.weight", "up.bias"},
    complete=lambda config, tensors: dict(config or {}),
    description="a family that only a test knows",
)
