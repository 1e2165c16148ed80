#!/usr/bin/env python
"""Check without a device that every operation of the networks is one MindSpore has for Ascend.

    python tools/audit_ascend.py                       # a small network; all sizes use the same
    python tools/audit_ascend.py --graphs decode --dtypes bfloat16 --json audit.json
    python tools/audit_ascend.py --markdown primitives.md
    python tools/audit_ascend.py --model_config my_tae.yaml

Compiles each network's graph on CPU without running it (`ms.export` to MindIR), lists its
primitives with the dtypes they give, and looks each one up in the documentation of the installed
MindSpore ("Supported Platforms"). Ends with exit code 1 if a primitive is not documented for
Ascend, is unknown, or is known for trouble there (Conv3D, dynamic shapes, float64).
See docs/ascend.md for what this does and does not prove.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from audited_networks import FLOAT32_GRAPHS, GRAPHS, network_and_inputs
from mg.console import printable
from mg.files import write_text
from mg.models.families import autoencoder_family
from mg.yaml_file import read_yaml

if TYPE_CHECKING:
    from mindspore import nn

    from mg.models.autoencoder import AutoencoderSettings

__all__ = ["PrimitiveUse", "Verdict", "audit", "exported_primitives", "judge", "main"]

DTYPES = ("float32", "bfloat16")

# Small, but with every part of the network that has operations of its own.
SMALL_CONFIG = {
    "ch": 32,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "z_channels": 4,
    "dropout": 0.1,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "temporal_downsample_level": [0],
    "temporal_upsample_level": [1],
}

# Primitives without a platform list of their own, reviewed by hand. A name in the middle is the
# documented function that the primitive belongs to: it is looked up like the rest. None marks
# the ones that order or group values and have no kernel.
REVIEWED = {
    "BiasAddGrad": ("mindspore.ops.bias_add", "its gradient"),
    "ClampScalar": ("mindspore.ops.clamp", "with Python numbers as bounds; kernel aclnnClamp"),
    "Contiguous": (None, "copies a value into the order of its axes"),
    "Conv2DBackpropFilter": ("mindspore.ops.conv2d", "its gradient by the weights"),
    "Conv2DBackpropInput": (
        "mindspore.ops.conv2d",
        "its gradient by the input; only the class for users is deprecated",
    ),
    "Divs": ("mindspore.ops.div", "by a Python number; kernel aclnnDivs"),
    "DropoutGrad": ("mindspore.ops.dropout", "its gradient"),
    "GeLUGrad": ("mindspore.ops.gelu", "its gradient; kernel aclnnGeluBackward"),
    "InplaceAddExt": ("mindspore.ops.add", "written over its first input; kernel aclnnInplaceAdd"),
    "LayerNormGrad": ("mindspore.ops.LayerNorm", "its gradient"),
    "LessScalar": ("mindspore.ops.less", "than a Python number; kernel aclnnLtScalar"),
    "Load": (None, "reads a parameter into the graph"),
    "MakeTuple": (None, "groups values"),
    "MatMulExt": ("mindspore.ops.matmul", "the same for any rank; kernel aclnnMatmul"),
    "MaxPoolGrad": ("mindspore.ops.MaxPool", "its gradient"),
    "Muls": ("mindspore.ops.mul", "by a Python number; kernel aclnnMuls"),
    "ReluGrad": ("mindspore.ops.relu", "its gradient; kernel aclnnThresholdBackward"),
    "ResizeNearestNeighborGrad": ("mindspore.ops.ResizeNearestNeighbor", "its gradient"),
    "RsqrtGrad": ("mindspore.ops.rsqrt", "its gradient"),
    "SiLUGrad": ("mindspore.ops.silu", "its gradient; kernel aclnnSiluBackward"),
    "SoftmaxBackward": ("mindspore.ops.softmax", "its gradient; kernel aclnnSoftmaxBackward"),
    "SplitWithSize": ("mindspore.ops.split", "with a list of sizes; kernel aclnnSplitWithSize"),
    "SqrtGrad": ("mindspore.ops.sqrt", "its gradient"),
    "StridedSliceGrad": ("mindspore.ops.strided_slice", "its gradient"),
    "Switch": (None, "chooses between two graphs"),
    "TensorMove": (None, "copies a value before it is overwritten in place; the compiler's own"),
    "TupleGetItem": (None, "takes one of grouped values"),
    "UpdateState": (None, "orders reads and writes of parameters"),
}

# Documented for Ascend, and yet not to be used there.
TROUBLE = {
    "Conv3D": "3-D convolution in bf16 fails or crawls on several Ascend parts",
    "Conv3DBackpropFilter": "gradient of a 3-D convolution, see Conv3D",
    "Conv3DBackpropInput": "gradient of a 3-D convolution, see Conv3D",
    "Conv3DTranspose": "3-D convolution in bf16 fails or crawls on several Ascend parts",
}
TROUBLE_DTYPES = {"float64", "complex64", "complex128"}
# MindIR's names of types -> numpy's
DTYPE_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


@dataclasses.dataclass
class PrimitiveUse:
    """How one primitive occurs in the exported graphs."""

    count: int = 0
    graphs: set[str] = dataclasses.field(default_factory=set)
    dtypes: set[str] = dataclasses.field(default_factory=set)
    has_dynamic_shape: bool = False

    def add(self, other: "PrimitiveUse") -> None:
        self.count += other.count
        self.graphs |= other.graphs
        self.dtypes |= other.dtypes
        self.has_dynamic_shape |= other.has_dynamic_shape


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a primitive may be used on Ascend, and where that is written."""

    supported: bool
    source: str


def documented_platforms(path: str) -> set[str] | None:
    """Return the "Supported Platforms" of a function or class; None if it does not name any.

    Args:
        path: full name, as "mindspore.ops.add".
    """
    import mindspore
    import mindspore.ops.auto_generate

    places = [path]
    if path.startswith("mindspore.ops."):  # some are documented in the generated module alone
        places.append("mindspore.ops.auto_generate." + path.rpartition(".")[2])
    for place in places:
        found: Any = mindspore
        for name in place.split(".")[1:]:
            found = getattr(found, name, None)
        text = getattr(found, "__doc__", None) or ""
        match = re.search(r"Supported Platforms:\s*\n\s*(.+)", text)
        if match:
            return set(re.findall(r"``(\w+)``", match[1]))
    return None


def _referred_function(primitive: str) -> str | None:
    """Return the function that a primitive's documentation refers to for details."""
    import mindspore.ops.auto_generate as generated
    from mindspore import ops

    cell = getattr(ops, primitive, None) or getattr(generated, primitive, None)
    match = re.search(r"Refer to :func:`~?([\w.]+)`", getattr(cell, "__doc__", None) or "")
    return match[1] if match else None


def judge(primitive: str, use: PrimitiveUse) -> Verdict:
    """Return whether a primitive, used in this way, is fit for Ascend."""
    if primitive in TROUBLE:
        return Verdict(False, TROUBLE[primitive])
    if use.has_dynamic_shape:
        return Verdict(False, "has a dynamic shape: minutes of compilation, half the speed")
    if use.dtypes & TROUBLE_DTYPES:
        return Verdict(False, f"computes in {', '.join(sorted(use.dtypes & TROUBLE_DTYPES))}")
    if primitive in REVIEWED:
        function, reason = REVIEWED[primitive]
        if function is None:
            return Verdict(True, f"no kernel: {reason}")
        return _look_up([function], f": {reason}")
    functions = [f"mindspore.ops.{primitive}"]
    referred = _referred_function(primitive)
    if referred is not None:
        functions.append(referred)
    return _look_up(functions)


def _look_up(functions: Iterable[str], remark: str = "") -> Verdict:
    for function in functions:
        platforms = documented_platforms(function)
        if platforms is not None:
            names = "no platform" if not platforms else ", ".join(sorted(platforms))
            return Verdict("Ascend" in platforms, f"{function} ({names}){remark}")
    return Verdict(False, f"unknown: no platforms documented at {', '.join(functions)}{remark}")


def exported_primitives(
    network: "nn.Cell", inputs: Sequence[Any], *, graph: str
) -> dict[str, PrimitiveUse]:
    """Return the primitives of a network's compiled graph by name; nothing is run.

    Args:
        network: compiled as it is, in training or inference mode.
        inputs: values of the shapes and dtypes that it will be called with.
        graph: name that the result carries.
    """
    import mindspore as ms
    from mindspore.train import mind_ir_pb2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{graph}.mindir"
        ms.export(network, *inputs, file_format="MINDIR", file_name=str(path.with_suffix("")))
        model = mind_ir_pb2.ModelProto()
        model.ParseFromString(path.read_bytes())
    primitives = {f"REF::{p.name}": p.op_type for p in model.primitives}
    parts = (model.graph, *model.functions)
    # A function that is called goes by its own name, or by the name of the node that chose it.
    called = {f"REF::{function.name}" for function in model.functions}
    called |= {f"REF::{output}" for part in parts for node in part.node for output in node.output}
    uses: dict[str, PrimitiveUse] = {}
    for part in parts:
        for node in part.node:
            if node.op_type == "Constant" or node.op_type in called:
                continue
            name = primitives.get(node.op_type, node.op_type)
            uses.setdefault(name, PrimitiveUse()).add(_use_of(node, graph))
    return uses


def _use_of(node: Any, graph: str) -> PrimitiveUse:
    """Return the use that one node of a MindIR graph makes of its primitive."""
    from mindspore.train import mind_ir_pb2

    outputs = [t for a in node.attribute if a.name == "shape" for t in a.tensors]
    types = {mind_ir_pb2.TensorProto.DataType.Name(t.data_type) for t in outputs}
    return PrimitiveUse(
        count=1,
        graphs={graph},
        dtypes={DTYPE_NAMES.get(name, name.lower()) for name in types},
        has_dynamic_shape=any(size < 0 for t in outputs for size in t.dims),
    )


def used_primitives(
    config: "AutoencoderSettings", graphs: Iterable[str], dtypes: Iterable[str]
) -> dict[str, PrimitiveUse]:
    """Return the primitives of the networks' graphs, each compiled in each dtype.

    Args:
        config: of the TAE.
        graphs: of `GRAPHS`, what `network_and_inputs` makes.
        dtypes: of `DTYPES`; text encoders are compiled in float32, in which they run.
    """
    import mindspore as ms

    mode = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    uses: dict[str, PrimitiveUse] = {}
    try:
        for graph in graphs:
            for dtype in ("float32",) if graph in FLOAT32_GRAPHS else dtypes:
                found = exported_primitives(*network_and_inputs(config, graph, dtype), graph=graph)
                for name, use in found.items():
                    uses.setdefault(name, PrimitiveUse()).add(use)
    finally:
        ms.set_context(mode=mode)
    return uses


def audit(uses: dict[str, PrimitiveUse]) -> list[dict[str, Any]]:
    """Return one plain row per primitive, by name, as it is written to JSON."""
    rows = []
    for name in sorted(uses):
        use, verdict = uses[name], judge(name, uses[name])
        rows.append(
            {
                "primitive": name,
                "supported": verdict.supported,
                "count": use.count,
                "graphs": sorted(use.graphs),
                "dtypes": sorted(use.dtypes),
                "source": verdict.source,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as aligned text."""
    cells = [("", "primitive", "nodes", "graphs", "dtypes", "where it is documented")]
    for row in rows:
        mark = "ok" if row["supported"] else "FAIL"
        lists = (",".join(row["graphs"]), ",".join(row["dtypes"]) or "-")
        cells.append((mark, row["primitive"], str(row["count"]), *lists, row["source"]))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def markdown(rows: list[dict[str, Any]], mindspore_version: str) -> str:
    """Return the rows as a page of the documentation."""
    lines = [
        "# Primitives of the networks, and where Ascend is documented for them",
        "",
        "Written by `python tools/audit_ascend.py --markdown FILE` with MindSpore "
        f"{mindspore_version}: the primitives",
        "of all graphs that [ascend.md](ascend.md) lists, the dtypes that their results "
        "have there, and what of",
        "the installed MindSpore names Ascend among its supported platforms. A dash stands for "
        "groups and",
        "order, which have no dtype.",
        "",
        "| primitive | dtypes | graphs | source |",
        "|---|---|---|---|",
    ]
    for row in rows:
        mark = "" if row["supported"] else "**not fit:** "
        dtypes = ", ".join(row["dtypes"]) or "-"
        source = row["source"].replace("|", "\\|")
        lines.append(f"| {row['primitive']} | {dtypes} | {len(row['graphs'])} | {mark}{source} |")
    return "\n".join(lines) + "\n"


def _choices(known: Sequence[str]):
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        wrong = [name for name in chosen if name not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"unknown {wrong}; choose of {','.join(known)}")
        return chosen

    return parse


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model_config", type=Path, help="YAML or JSON with keys of TAE_CONFIG; default: small"
    )
    for flag, known in (("--graphs", GRAPHS), ("--dtypes", DTYPES)):
        default, text = ",".join(known), f"comma-separated, of {','.join(known)}; default: all"
        parser.add_argument(flag, type=_choices(known), default=default, help=text)
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--markdown", type=Path, help="also write the table here, as Markdown")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    os.environ.setdefault("GLOG_v", "3")  # before MindSpore is imported
    try:
        config = SMALL_CONFIG
        if arguments.model_config is not None:
            config = read_yaml(arguments.model_config)
        for path in (arguments.json, arguments.markdown):
            if path is not None and path.exists() and not arguments.overwrite:
                raise FileExistsError(f"{path} exists; --overwrite replaces it")
        config = autoencoder_family("tae").read_config(config)
    except (ValueError, OSError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    import mindspore

    rows = audit(used_primitives(config, arguments.graphs, arguments.dtypes))
    failed = [row["primitive"] for row in rows if not row["supported"]]
    print(table(rows))
    if arguments.json is not None:
        result = {"mindspore": mindspore.__version__, "failed": failed, "primitives": rows}
        write_text(arguments.json, json.dumps(result, indent=1) + "\n", overwrite=True)
    if arguments.markdown is not None:
        write_text(arguments.markdown, markdown(rows, mindspore.__version__), overwrite=True)
    if failed:
        print(f"\nnot fit for Ascend: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(
        f"\n{len(rows)} primitives, all documented for Ascend by MindSpore {mindspore.__version__}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
