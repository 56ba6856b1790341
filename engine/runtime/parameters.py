"""What a network's file says of itself, and its parameters: read without `onnx`, which is not installed everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import WeightsError
from engine.runtime.graph import check_graph, fields_of

GRAPH, PROPERTY = 7, 14
"""Fields of a model (onnx.proto)."""
KEY, VALUE = 1, 2
"""Fields of a property."""
TENSOR = 5
"""The field of a graph that holds a parameter."""
SIZES, KIND, NUMBERS, NAME, CONTENT = 1, 2, 4, 8, 9
"""Fields of a tensor."""
KINDS: dict[int, Any] = {1: np.float32, 7: np.int64, 10: np.float16, 11: np.float64}
"""Numbers that are read, by their kind; parameters of other kinds are left out."""


def read(weights: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The description that this project writes into an exported network, and the network's parameters by name.

    Raises WeightsError for a file that is no network, or has no description.
    """
    check_graph(weights)
    description: dict[str, Any] | None = None
    parameters: dict[str, npt.NDArray[Any]] = {}
    try:
        for number, value in fields_of(memoryview(weights.read_bytes())):
            if number == PROPERTY:
                said = dict(fields_of(_bytes(value)))
                if bytes(_bytes(said[KEY])) == b"apexstream":
                    description = json.loads(bytes(_bytes(said[VALUE])))
            elif number == GRAPH:
                tensors = (part for field, part in fields_of(_bytes(value)) if field == TENSOR)
                parameters.update(found for tensor in tensors if (found := _parameter(_bytes(tensor))) is not None)
    except (OSError, IndexError, KeyError, ValueError) as cause:
        raise WeightsError(f"{weights} is not a network exported by apexstream ({cause})") from cause
    if description is None:
        raise WeightsError(f"{weights} is not a network exported by apexstream (it does not say what it is)")
    return description, parameters


def _parameter(tensor: memoryview) -> tuple[str, npt.NDArray[Any]] | None:
    """Name and values of a tensor."""
    fields = list(fields_of(tensor))
    single = dict(fields)
    kind = KINDS.get(int(single.get(KIND, 0)))
    if kind is None:
        return None
    sizes = [value for number, value in fields if number == SIZES and isinstance(value, int)]
    content = np.frombuffer(_bytes(single.get(CONTENT, single.get(NUMBERS))), kind)
    return bytes(_bytes(single[NAME])).decode(), content.reshape(sizes)


def _bytes(value: int | memoryview | None) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a field holds no bytes where some are expected")
    return value
