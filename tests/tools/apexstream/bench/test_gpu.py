from __future__ import annotations

from apexstream.bench import gpu, machine


def test_a_machine_without_a_gpu_gives_the_reason() -> None:
    (row,) = gpu.rows()
    name, reason = machine.gpu()
    if name is None:
        assert row.value is None and reason in row.note
    else:
        assert row.value is not None or row.note
