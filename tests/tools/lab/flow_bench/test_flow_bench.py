"""The command line of the flow benchmark."""

from __future__ import annotations

import json

import cv2
import pytest
from typer import Typer
from typer.testing import CliRunner

from engine.errors import ApexError
from engine.ops.tvl1 import gpu
from lab.flow_bench.__main__ import main


@pytest.mark.usefixtures("opencv_on_one_thread")
def test_the_clock_may_be_cpu_time() -> None:
    app = Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["--every", "120", "--cpu-time", "--json", "--backend", "cpu"])
    assert done.exit_code == 0, done.output
    assert cv2.getNumThreads() == 1
    assert all(row["ratio"] > 1 for row in json.loads(done.output))


def test_the_command_prints_a_table_or_json() -> None:
    app = Typer()
    app.command()(main)
    table = CliRunner().invoke(app, ["--every", "120"])
    assert table.exit_code == 0, table.output
    assert table.output.splitlines()[2].startswith("| all | 2 |")
    as_json = CliRunner().invoke(app, ["--every", "120", "--json"])
    rows = json.loads(as_json.output)
    assert rows[0]["cases"] == 2
    assert rows[0]["ours"].keys() == {"mean", "moving", "p95"}


@pytest.mark.parametrize("asked", [["--backend", "gpu"], ["--backend", "gpu", "--batch", "64"]])
def test_a_backend_that_cannot_run_is_an_error(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "refusal", lambda: "no CUDA GPU: it was removed")
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1
    assert isinstance(result.exception, ApexError) and "no CUDA GPU: it was removed" in str(result.exception)
