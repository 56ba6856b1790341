from __future__ import annotations

import json

from apexstream.bench import machine


def test_the_machine_is_described_without_naming_anybody() -> None:
    found = machine.describe()
    assert found["processor"] and found["cores"] >= 1 and found["memory_gib"] > 0
    assert {"numpy", "mediapipe", "onnxruntime"} <= set(found["versions"])
    assert "/" not in "".join(found["versions"].values()) and json.dumps(found)


def test_a_gpu_is_named_or_its_absence_explained() -> None:
    name, reason = machine.gpu()
    assert bool(name) != bool(reason)
