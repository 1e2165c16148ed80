"""Random generators, as the tests of the pipelines have them."""

from tests.pipelines.conftest import (
    generator_folder,
    generator_parts,
    make_square_generator,
    weights,
)

__all__ = ["generator_folder", "generator_parts", "make_square_generator", "weights"]
