"""What a network's file may hold, checked before any library opens it: one graph of plain operations, complete in itself.

A card covers its file's content alone, so parameters in files beside it are refused. So are graphs within the graph, which
Loop, Scan and If have, and functions: a network that never ends cannot be stopped from outside. No network that this
project exports has any of these.

The file is ONNX (protocol buffers); its fields are walked here, as `onnx` is not installed everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from engine.errors import WeightsError

_Field = tuple[int, int | memoryview]

GRAPH, FUNCTIONS = 7, 25
NODES, INITIALIZERS, SPARSE_INITIALIZERS = 1, 5, 15
OPERATION, ATTRIBUTES = 4, 5
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE_TENSOR, SPARSE_TENSORS = 5, 6, 10, 11, 22, 23
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Numbers of fields in ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto (onnx.proto)."""


def check_graph(weights: Path) -> None:
    """Raise WeightsError where a network's file needs other files or may run without end, or is no network."""
    try:
        there = weights.stat()
        _check_file(weights, (there.st_ino, there.st_size, there.st_mtime_ns))
    except OSError as cause:
        raise WeightsError(f"{weights} cannot be read: {cause.strerror}") from cause


@lru_cache(maxsize=16)
def _check_file(weights: Path, content: tuple[int, int, int]) -> None:
    """As `check_graph`, once for a content: each source opens the same file, and 1,800 operations take 25 ms."""
    del content
    try:
        for number, model in _fields(memoryview(weights.read_bytes())):
            if number == FUNCTIONS:
                raise WeightsError(f"{weights} holds functions, which networks for apexstream do without; inline them")
            if number == GRAPH and isinstance(model, memoryview):
                _check(model, weights)
    except (IndexError, ValueError) as cause:
        raise WeightsError(f"{weights} is no ONNX model, or is damaged") from cause


def _check(graph: memoryview, weights: Path) -> None:
    for number, part in _fields(graph):
        if not isinstance(part, memoryview):
            continue
        if number == INITIALIZERS:
            _check_tensor(part, weights)
        elif number == SPARSE_INITIALIZERS:
            _check_sparse(part, weights)
        elif number == NODES:
            _check_node(part, weights)


def _check_node(node: memoryview, weights: Path) -> None:
    fields = list(_fields(node))
    named = (bytes(part) for at, part in fields if at == OPERATION and isinstance(part, memoryview))
    operation = next(named, b"").decode(errors="replace")
    for attribute in (part for at, part in fields if at == ATTRIBUTES and isinstance(part, memoryview)):
        for number, part in _fields(attribute):
            if not isinstance(part, memoryview):
                continue
            if number in (SUBGRAPH, SUBGRAPHS):
                raise WeightsError(
                    f"{weights} holds the operation {operation[:40]!r} with a graph of its own, which may run without end; "
                    "networks for apexstream have one graph of plain operations"
                )
            if number in (TENSOR, TENSORS):
                _check_tensor(part, weights)
            elif number in (SPARSE_TENSOR, SPARSE_TENSORS):
                _check_sparse(part, weights)


def _check_sparse(sparse: memoryview, weights: Path) -> None:
    for _, part in _fields(sparse):
        if isinstance(part, memoryview):
            _check_tensor(part, weights)


def _check_tensor(tensor: memoryview, weights: Path) -> None:
    for number, part in _fields(tensor):
        if number == EXTERNAL_DATA or (number == DATA_LOCATION and part):
            raise WeightsError(
                f"{weights} keeps parameters in another file, of which its card says nothing; save it as one file "
                "(onnx.save with save_as_external_data=False)"
            )


def _fields(message: memoryview) -> Iterator[_Field]:
    """Number and value of each field of a message: an integer, or the bytes of what has a length (none for fixed sizes).

    Raises ValueError or IndexError where it is none.
    """
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _integer(message, at)
            yield number, value
            continue
        length, at = _integer(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if length < 0 or at + length > len(message):
            raise ValueError("a field ends behind its message, or is of no known kind")
        if kind == 2:
            yield number, message[at : at + length]
        at += length


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
