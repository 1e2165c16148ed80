"""Shapes and number of a transformer's parameters, without building it."""

import math

from mg.models.movie_gen.config import MovieGenConfig

__all__ = ["num_parameters", "parameter_shapes"]


def parameter_shapes(config: MovieGenConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of `MovieGenTransformer(config)` by name, in its order.

    Args:
        config: of any size; nothing is allocated.
    """
    dim = config.dim
    shapes: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (dim, config.patch_values)}
    if config.condition_channels:
        shapes["condition_embedding.weight"] = (dim, config.condition_values)
    for axis, rows in zip(("frames", "height", "width"), config.position_table, strict=True):
        shapes[f"positions.{axis}"] = (rows, dim)
    for number, encoder in enumerate(config.text_encoders):
        prefix = f"text_inputs.inputs.{number}"
        shapes[f"{prefix}.linear.weight"] = (dim, encoder.width)
        shapes[f"{prefix}.norm.gamma"] = (dim,)
        shapes[f"{prefix}.norm.beta"] = (dim,)
    shapes["time_embedding.first.weight"] = (dim, config.timestep_width)
    shapes["time_embedding.second.weight"] = (dim, dim)
    shapes["time_modulation.weight"] = (6 * dim, dim)
    for number in range(config.num_layers):
        block = _block_shapes(config)
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    shapes["final_modulation.weight"] = (2 * dim, dim)
    shapes["final_norm.norm.weight"] = (dim,)
    shapes["final_linear.weight"] = (config.patch_values, dim)
    return shapes


def _block_shapes(config: MovieGenConfig) -> dict[str, tuple[int, ...]]:
    dim, inner = config.dim, config.ffn_dim
    return {
        "modulation": (6, dim),
        "self_norm.norm.weight": (dim,),
        **_attention_shapes(config, "self_attention"),
        "cross_norm.weight": (dim,),
        **_attention_shapes(config, "cross_attention"),
        "ffn_norm.norm.weight": (dim,),
        "ffn.gate.weight": (inner, dim),
        "ffn.up.weight": (inner, dim),
        "ffn.down.weight": (dim, inner),
    }


def _attention_shapes(config: MovieGenConfig, prefix: str) -> dict[str, tuple[int, ...]]:
    names = ("query", "key", "value", "output")
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.{name}.weight": (config.dim, config.dim) for name in names
    }
    if config.qk_norm:
        shapes |= {f"{prefix}.{name}_norm.weight": (config.head_dim,) for name in names[:2]}
    return shapes


def num_parameters(config: MovieGenConfig) -> int:
    """Return how many numbers the parameters of `MovieGenTransformer(config)` hold."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())
