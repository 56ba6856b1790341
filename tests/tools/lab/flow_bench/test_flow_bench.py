"""The flow benchmark: its rendered truth, its errors, its report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

import lab.flow_bench.__main__ as bench_flow
from engine.ops.tvl1 import gpu, tvl1
from lab.flow_bench.__main__ import AMPLITUDES, FIELDS, NOISES, Sample


def test_the_truth_carries_moving_onto_fixed() -> None:
    for face in bench_flow.faces().items():
        for field in FIELDS:
            case = bench_flow.render(face, field, amplitude=1.2, noise=0, seed=1)
            y, x = np.mgrid[:128, :128].astype(np.float32)
            brought = cv2.remap(
                case.moving, x + case.truth[0], y + case.truth[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
            )
            moves = np.sqrt((case.truth**2).sum(0)) > 0.3
            before, after = (np.abs(picture.astype(float) - case.fixed)[moves].mean() for picture in (case.moving, brought))
            assert after < 0.5 * before, (case.face, case.field)  # measured 0.40 at most; 1.4 and more with the sign turned


def test_the_set_is_the_same_every_time_and_complete() -> None:
    first, second = (next(bench_flow.cases()) for _ in range(2))
    np.testing.assert_array_equal(first.fixed, second.fixed)
    np.testing.assert_array_equal(first.moving, second.moving)
    assert len(bench_flow.faces()) * len(FIELDS) * len(AMPLITUDES) * len(NOISES) == 240


def test_the_longest_motion_is_the_amplitude() -> None:
    face = next(iter(bench_flow.faces().items()))
    for field in FIELDS:
        truth = bench_flow.render(face, field, amplitude=2.0, noise=0, seed=1).truth
        assert np.sqrt((truth**2).sum(0)).max() == pytest.approx(2, rel=0.02)


def test_endpoint_errors() -> None:
    truth = np.zeros((2, 10, 10), np.float32)
    truth[0, :5] = 2
    flow = truth.copy()
    flow[:, :5] += np.float32([0.3, 0.4])[:, None, None]
    errors = bench_flow.endpoint_errors(flow, truth)
    assert errors.mean == pytest.approx(0.25)
    assert errors.moving == pytest.approx(0.5)
    assert errors.p95 == pytest.approx(0.5)


@pytest.fixture
def one_thread() -> Iterator[None]:
    chosen = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(chosen)


@pytest.mark.usefixtures("one_thread")
def test_ours_takes_a_twelfth_of_the_time_at_most() -> None:
    tvl1(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), backend="cpu")
    noisy = [case for number, case in enumerate(bench_flow.cases()) if number % 48 == 2]
    samples: list[Sample] = [
        bench_flow.measure(case, lambda fixed, moving: tvl1(fixed, moving, backend="cpu"), time.thread_time) for case in noisy
    ]
    assert bench_flow.summarize("noisy", samples).ratio >= 12  # measured 142 in such cases


@pytest.mark.usefixtures("one_thread")
def test_the_clock_may_be_cpu_time() -> None:
    app = Typer()
    app.command()(bench_flow.main)
    told = CliRunner().invoke(app, ["--every", "120", "--cpu-time", "--json", "--backend", "cpu"])
    assert told.exit_code == 0, told.output
    assert cv2.getNumThreads() == 1
    assert all(row["ratio"] > 1 for row in json.loads(told.output))


def test_the_command_prints_a_table_or_json() -> None:
    app = Typer()
    app.command()(bench_flow.main)
    table = CliRunner().invoke(app, ["--every", "120"])
    assert table.exit_code == 0, table.output
    assert table.output.splitlines()[2].startswith("| all | 2 |")
    as_json = CliRunner().invoke(app, ["--every", "120", "--json"])
    rows = json.loads(as_json.output)
    assert rows[0]["cases"] == 2
    assert rows[0]["ours"].keys() == {"mean", "moving", "p95"}


@pytest.mark.parametrize("asked", [["--backend", "gpu"], ["--backend", "gpu", "--batch", "64"]])
def test_a_backend_that_cannot_run_is_one_sentence_and_exit_1(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "refusal", lambda: "no CUDA GPU: it was sold")
    app = Typer()
    app.command()(bench_flow.main)
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1
    assert "no CUDA GPU: it was sold" in result.stderr
    assert "Traceback" not in result.output
