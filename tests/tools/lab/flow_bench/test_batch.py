"""A batch's report; the timing itself needs a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from apexstream.bench.floor import DEVICES, floor
from engine.errors import BackendError
from engine.ops.tvl1 import gpu, tvl1
from lab.flow_bench.batch import _report, batch_table, bench_batch
from lab.flow_bench.cases import cases


def test_without_a_gpu_the_reason_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "refusal", lambda: "no CUDA GPU: this machine has no NVIDIA driver")
    with pytest.raises(BackendError, match=r"on a GPU only: no CUDA GPU"):
        bench_batch(4)


def test_the_report_stands_beside_the_floor_and_opencv() -> None:
    chosen = [case for number, case in enumerate(cases()) if number == 30]
    flow = np.stack([tvl1(case.fixed, case.moving, backend="cpu") for case in chosen])
    report = _report("NVIDIA H200", DEVICES["H200"], chosen, flow, (100.0, 200.0, 300.0, 400.0))
    assert report["times_floor"] == pytest.approx(100 / (floor(DEVICES["H200"], 1, 128, 128).seconds * 1e6))
    assert report["times_opencv"] == pytest.approx(report["opencv_us_per_pair"] / 100)
    assert 0 < report["apart_max"] < 0.1
    assert report["error_mean"] <= report["opencv_error_mean"]
    table = batch_table(report)
    assert "100 us for 1 pairs" in table
    assert "x the floor" in table
    assert "unknown" in batch_table(_report("Voodoo2", None, chosen, flow, (100.0, 200.0, 300.0, 400.0)))


@pytest.mark.gpu
def test_a_batch_on_a_gpu() -> None:
    if (reason := gpu.refusal()) is not None:
        pytest.skip(reason)
    report = bench_batch(64)
    assert report["times_opencv"] > 100
    assert report["apart_mean"] < 1e-3
