"""What TensorRT is given: the network folded, and in half precision where that is asked for.

Constant-folded: whatever depends on parameters alone is computed beforehand, so that plain layers of plain parameters are left.
Half precision: TensorRT 11 computes in the types that the ONNX graph names, so here is where it is decided. Matrix products and
convolutions take 16 bits; norms, softmax, sums and the kernel machine, whose distances are small differences of large numbers,
stay in 32. Whether what comes out is close enough is for `engine.runtime.parity` to decide, by answers.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import WeightsError
from engine.runtime.graph import check_graph
from engine.runtime.ort import folded

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

HALVED = ("Gemm", "MatMul", "Conv")
"""Operations of which all inputs and the output are of one type."""

PREPARATION = 1
"""To be counted up where `prepared` gives something else than before: engines of before are then compiled again."""

KEPT = "kernel."
"""What the names of parameters begin with that stay in 32 bits, with all that is computed from them alone."""


def prepared(weights: Path, *, half: bool) -> bytes:
    """An ONNX file as TensorRT is given it; inputs and outputs stay float32. Raises WeightsError for what is no ONNX file."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    check_graph(weights)
    try:
        kept = _kept(onnx.load(str(weights)).graph)
        model: ModelProto = onnx.load_model_from_string(folded(weights))
    except DecodeError as cause:
        raise WeightsError(f"{weights} is no ONNX model ({cause})") from cause
    if half:
        _halve(model.graph, kept)
    own = [domain for domain in model.opset_import if not domain.domain]
    del model.opset_import[:]  # ONNX Runtime names each of its own, used or not
    model.opset_import.extend(own)
    return bytes(model.SerializeToString())


def _kept(graph: GraphProto) -> set[str]:
    """Names of the parameters that stay wide, and of what is computed from parameters with one of these among them."""
    fixed = {value.name for value in graph.initializer} | {""}
    kept = {name for name in fixed if name.startswith(KEPT)}
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
            if kept.intersection(node.input):
                kept.update(node.output)
    return kept


def _halve(graph: GraphProto, kept: set[str]) -> None:
    parameters = {value.name: value for value in graph.initializer}
    nodes: list[NodeProto] = []
    narrow: set[str] = set()
    for node in graph.node:
        if node.op_type in HALVED and not kept.intersection(node.input):
            narrow.update(name for name in node.input if name in parameters)
            nodes.extend(_in_half(node, parameters.keys()))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    _replace_parameters(graph, narrow, used)


def _in_half(node: NodeProto, parameters: Collection[str]) -> list[NodeProto]:
    """The node between casts; parameters are read under another name."""
    from onnx import TensorProto, helper

    before = []
    for place, name in enumerate(node.input):
        if not name:
            continue
        if name in parameters:
            node.input[place] = f"{name}_half"
            continue
        cast = f"{node.output[0]}_in{place}_half"
        before.append(helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT16))
        node.input[place] = cast
    out = node.output[0]
    node.output[0] = f"{out}_half"
    return [*before, node, helper.make_node("Cast", [node.output[0]], [out], name=f"{out}_wide", to=TensorProto.FLOAT)]


def _replace_parameters(graph: GraphProto, narrow: set[str], used: set[str]) -> None:
    """Store these parameters in 16 bits, and in 32 only those that are used so."""
    from onnx import numpy_helper

    stored = []
    for value in graph.initializer:
        if value.name in narrow:
            array = numpy_helper.to_array(value).astype(np.float16)
            stored.append(numpy_helper.from_array(array, f"{value.name}_half"))
        if value.name in used:
            stored.append(value)
    del graph.initializer[:]
    graph.initializer.extend(stored)
