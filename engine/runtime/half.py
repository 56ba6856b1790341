"""Half precision, written into the network file: matrix products and convolutions in 16 bits, everything else in 32.

TensorRT 11 computes in the types that the ONNX graph names, so this is where half precision is decided. Norms, softmax, sums
and the kernel machine, whose distances are small differences of large numbers, stay in 32 bits. Whether what comes out is
close enough is for `engine.runtime.trt` to decide, by answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import WeightsError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

HALVED = ("Gemm", "MatMul", "Conv")
"""Operations of which all inputs and the output are of one type."""

KEPT = "kernel."
"""Parameters by whose names what stays in 32 bits is known."""


def halved(content: bytes) -> bytes:
    """An ONNX file's content with its products in half precision; inputs and outputs stay float32.

    Raises WeightsError for content that is no ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as cause:
        raise WeightsError(f"the network file is no ONNX model ({cause})") from cause
    graph = model.graph
    fixed = _depends_on_parameters_alone(graph)
    kept = _reached_from_kept(graph, fixed)
    nodes: list[NodeProto] = []
    for node in graph.node:
        wide = node.op_type not in HALVED or fixed.issuperset(node.output) or kept.intersection(node.input)
        nodes.extend([node] if wide else _in_half(node))
    del graph.node[:]
    graph.node.extend(nodes)
    content_out: bytes = model.SerializeToString()
    return content_out


def _in_half(node: NodeProto) -> list[NodeProto]:
    """The node between casts; each value cast anew, since runtimes merge equal casts."""
    from onnx import TensorProto, helper

    before = []
    for place, name in enumerate(node.input):
        if name:
            narrow = f"{node.output[0]}_in{place}_half"
            before.append(helper.make_node("Cast", [name], [narrow], name=narrow, to=TensorProto.FLOAT16))
            node.input[place] = narrow
    out = node.output[0]
    node.output[0] = f"{out}_half"
    return [*before, node, helper.make_node("Cast", [node.output[0]], [out], name=f"{out}_wide", to=TensorProto.FLOAT)]


def _depends_on_parameters_alone(graph: GraphProto) -> set[str]:
    """Names of values that no map changes; runtimes work them out once, and in 32 bits."""
    fixed = {value.name for value in graph.initializer} | {""}
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
    return fixed


def _reached_from_kept(graph: GraphProto, fixed: set[str]) -> set[str]:
    """The parameters that stay wide, with what is worked out of them alone."""
    kept = {value.name for value in graph.initializer if value.name.startswith(KEPT)}
    for node in graph.node:
        if kept.intersection(node.input) and fixed.issuperset(node.output):
            kept.update(node.output)
    return kept
