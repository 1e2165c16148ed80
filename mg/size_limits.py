"""Sizes in configs beyond which no network is built: found by arithmetic, before anything is."""

from collections.abc import Mapping

__all__ = ["MAX_LAYERS", "MAX_PARAMETERS", "MAX_WIDTH", "check_num_parameters", "check_sizes"]

# Far beyond any network that is known: the largest have 10^12 parameters, 16384 channels, 200
# layers.
MAX_WIDTH = 1 << 17
MAX_LAYERS = 4096
MAX_PARAMETERS = 10**12


def check_sizes(of: object, limits: Mapping[str, int]) -> None:
    """Raise ValueError if a field of a config, or a number in it, exceeds its limit.

    Args:
        of: the config.
        limits: largest value by the name of the field.
    """
    for name, limit in limits.items():
        value = getattr(of, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(number > limit for number in numbers):
            raise ValueError(f"{name}={value}: no network is that large; at most {limit} is taken")


def check_num_parameters(number: int) -> None:
    """Raise ValueError if a network would have more than `MAX_PARAMETERS`.

    Args:
        number: of its parameters, or about so.
    """
    if number > MAX_PARAMETERS:
        raise ValueError(
            f"a network of this config has about {number:.1e} parameters; at most "
            f"{MAX_PARAMETERS:.0e} are taken"
        )
