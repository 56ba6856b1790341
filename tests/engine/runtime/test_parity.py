from __future__ import annotations

import numpy as np
import pytest

from engine.runtime.parity import PROBES, difference
from engine.types import F32

SHAPE = (3, 28, 28)


def answers(maps: F32) -> F32:
    return np.asarray(maps.mean((2, 3)), np.float32)


@pytest.mark.parametrize(("precision", "allowed"), [("float16", 2e-3), ("float32", 1e-4)])
def test_the_greatest_difference_decides(precision: str, allowed: float) -> None:
    def other(maps: F32) -> F32:
        out = answers(maps)
        out[-1, 1] += np.float32(1.5 * allowed)
        return out

    assert difference(answers, answers, "it", SHAPE, precision) == ""
    assert difference(lambda maps: other(maps) if len(maps) == 1 else answers(maps), answers, "it", SHAPE, precision) != ""
    said = difference(other, answers, "ONNX Runtime", SHAPE, precision)
    assert said.startswith("its answers differ from ONNX Runtime's by ") and said.endswith(f"(allowed {allowed:.0e})")


def test_several_maps_and_one_alone_are_compared() -> None:
    asked: list[int] = []
    difference(lambda maps: [asked.append(len(maps)), answers(maps)][1], answers, "it", SHAPE, "float32")
    assert asked == [PROBES, 1]
