"""What a network's file may hold, checked before any library opens it: one graph of plain operations, complete in itself.

A card covers its file's content alone, so parameters in files beside it are refused. So are graphs within the graph, which
Loop, Scan and If have, and functions: a network that never ends cannot be stopped from outside. No network that this
project exports has any of these.

The file is ONNX (protocol buffers); its fields are walked here, as `onnx` is not installed everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from engine.errors import WeightsError

PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "subgraph", 10: "tensor", 11: "subgraph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external data", 14: "data location"},
}
"""The parts of a network that are checked: of each kind of message the numbers of fields and what they hold (onnx.proto)."""

OPERATION = 4
"""The field of a node that names its operation."""


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
        _check("model", memoryview(weights.read_bytes()), weights)
    except (IndexError, ValueError) as cause:
        raise WeightsError(f"{weights} is no ONNX model, or is damaged") from cause


def _check(kind: str, message: memoryview, weights: Path, operation: bytes = b"") -> None:
    """Checks a message of a kind of PARTS with all in it; operation is that of the node around it."""
    fields: Iterable[tuple[int, int | memoryview]] = fields_of(message)
    if kind == "node":
        fields = list(fields)
        names = (bytes(value) for number, value in fields if number == OPERATION and isinstance(value, memoryview))
        operation = next(names, b"")
    for number, value in fields:
        part = PARTS[kind].get(number)
        if part == "function":
            raise WeightsError(f"{weights} holds functions, which networks for apexstream do without; inline them")
        if part == "external data" or (part == "data location" and value):
            raise WeightsError(
                f"{weights} keeps parameters in another file, of which its card says nothing; save it as one file "
                "(onnx.save with save_as_external_data=False)"
            )
        if part is None or not isinstance(value, memoryview):
            continue
        if part == "subgraph":
            raise WeightsError(
                f"{weights} holds the operation {operation.decode(errors='replace')[:40]!r} with a graph of its own, which may "
                "run without end; networks for apexstream have one graph of plain operations"
            )
        _check(part, value, weights, operation)


def fields_of(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
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
