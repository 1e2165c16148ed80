"""Open-Sora 2.0's Video DC-AE as a family."""

from collections.abc import Mapping
from typing import Any

from mg.models.dc_ae.config import VideoDCAEConfig, fields_of_shapes
from mg.models.families import AutoencoderFamily, Shapes, Tensors
from mg.weights.assumed_config import check_fields, shapes_of, warn_of_assumed

__all__ = ["FAMILY"]


UNTOLD_FIELDS = ("temporal_downsample", "scaling_factor")  # by the tensors


def is_own(shapes: Shapes) -> bool:
    return "decoder.stages.0.op_list.0.main.conv.conv.weight" in shapes


def complete(config: Mapping[str, Any] | None, tensors: Tensors) -> dict[str, Any]:
    told = fields_of_shapes(shapes_of(tensors))
    if config is not None:
        check_fields(config, told)
        return {**told, **config}
    fields = VideoDCAEConfig.from_mapping(told).to_dict()
    warn_of_assumed({field: fields[field] for field in UNTOLD_FIELDS})
    return fields


FAMILY = AutoencoderFamily(
    name="dc_ae",
    class_names=("VideoDCAE",),
    network="mg.models.dc_ae.network:VideoDCAE",
    from_fields=VideoDCAEConfig.from_mapping,
    is_own=is_own,
    complete=complete,
    description="the Video DC-AE of Open-Sora 2.0",
)
