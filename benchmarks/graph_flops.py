"""FLOPs of a network by its graph: 2 per multiply-add of every convolution and product.

The graph is that of the plain form of the layers, which computes what the definitions say; work
that the form for CPUs saves is not taken off. It is compiled and not run, so its weights need no
values.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindspore import nn

__all__ = ["flops_of_graph"]

PRODUCTS = ("MatMul", "BatchMatMul", "MatMulExt", "BatchMatMulExt")
CONVOLUTIONS = ("Conv2D", "Conv2DTranspose")


def flops_of_graph(cell: "nn.Cell", inputs: Sequence[Any]) -> int:
    """Return the FLOPs of one call.

    Args:
        cell: built within `layers.choose("Ascend")`.
        inputs: of its call.
    """
    from mindspore.graph.api import _cell_graph_executor as executor
    from mindspore.train import mind_ir_pb2

    graph, _ = executor.compile(cell, *inputs, phase="export.flops", do_convert=False)
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(executor._get_func_graph_proto(cell, graph, "mind_ir"))
    primitives = {f"REF::{p.name}": p for p in model.primitives}
    return sum(_flops_of_part(part, primitives) for part in (model.graph, *model.functions))


def _flops_of_part(part: Any, primitives: dict[str, Any]) -> int:
    """Return the FLOPs of a graph's own nodes."""
    shapes = {p.name: tuple(p.dims) for p in part.parameter}
    shapes |= {x.name: tuple(x.tensor[0].dims) for x in part.input if x.tensor}
    for node in part.node:
        results = [t for a in node.attribute if a.name == "shape" for t in a.tensors]
        if len(results) == 1:
            shapes[node.output[0]] = tuple(results[0].dims)
    total = 0
    for node in part.node:
        primitive = primitives.get(node.op_type)
        name = node.op_type if primitive is None else primitive.op_type
        if name not in CONVOLUTIONS + PRODUCTS:
            continue
        first, second = (shapes.get(value) for value in node.input[:2])  # none: a constant
        result = shapes[node.output[0]]
        if name == "Conv2DTranspose":  # each value that comes in meets the whole kernel
            multiplied = math.prod(first) * math.prod(second[1:])
        elif name == "Conv2D":
            multiplied = math.prod(result) * math.prod(second[1:])
        elif second is not None:
            multiplied = math.prod(result[:-1]) * math.prod(second[-2:])
        else:
            multiplied = math.prod(result[:-2]) * result[-1] * math.prod(first[-2:])
        total += 2 * multiplied
    return total
