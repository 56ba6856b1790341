from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import runtime
from engine.errors import BackendError, WeightsError
from engine.weights import default_weights


def test_auto_takes_onnx_runtime_and_refuses_nothing() -> None:
    runner = runtime.load(default_weights())
    assert runner.backend == "ort" and runner.refusals == {}


def test_a_backend_asked_for_is_the_one_that_runs() -> None:
    assert runtime.load(str(default_weights()), backend="eager").backend == "eager"


def test_a_backend_passed_over_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtime.NEEDS, "ort", ("no_such_module",))
    runner = runtime.load(default_weights())
    assert runner.backend == "eager"
    assert runner.refusals == {"ort": "no_such_module not installed; install apexstream again"}


def test_where_nothing_can_run_all_reasons_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in runtime.NEEDS:
        monkeypatch.setitem(runtime.NEEDS, name, ("no_such_module",))
    with pytest.raises(BackendError, match=r"ort cannot run here.*eager cannot run here"):
        runtime.load(default_weights())


@pytest.mark.parametrize("name", ["trt", "cuda", ""])
def test_an_unknown_backend_is_told_with_the_known_ones(name: Any) -> None:
    with pytest.raises(BackendError, match="there are auto, ort, eager"):
        runtime.load(default_weights(), backend=name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no network file .*gone\.onnx"):
        runtime.load(tmp_path / "gone.onnx")


def test_the_report_imports_nothing_heavy() -> None:
    code = "import sys; from engine.runtime import report; print(report()); print({'torch', 'onnxruntime'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["{'ort': None, 'eager': None}", "set()"]
