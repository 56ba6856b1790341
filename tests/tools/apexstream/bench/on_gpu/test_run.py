"""Which checks are done, in what order and how often; the checks here are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from apexstream.bench.on_gpu import run
from apexstream.bench.on_gpu.check import Check, Entry, Job, NoGpuError, SkippedError
from engine.errors import BackendError, InputError
from engine.ops import device

MADE_BY = {"source": "abc", "device": {"name": "a GPU"}}


class Bench:
    """A part "timing" of made-up checks, and the names of those that ran."""

    def __init__(self, out: Path) -> None:
        self.out, self.ran = out, list[str]()
        self.made_by: dict[str, Any] = MADE_BY
        self.checks: list[Check] = []

    def add(self, name: str, outcome: Entry | BaseException, least: float = 0) -> None:
        def call(job: Job) -> Entry:
            self.ran.append(name)
            if isinstance(outcome, BaseException):
                raise outcome
            return dict(outcome)

        self.checks.append(Check(name, call, least))

    def __call__(self, **options: Any) -> bool:
        self.ran.clear()
        return run.measure(["timing"], self.out, **{"seconds": 60, **options})

    def entries(self, number: int = 0) -> dict[str, Any]:
        checks: dict[str, Any] = json.loads(self.out.read_text())["runs"][number]["checks"]
        return {name.removeprefix("timing: "): entry for name, entry in checks.items()}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path / "gpu.json")
    monkeypatch.setattr(device, "refusal", lambda: None)
    monkeypatch.setattr(run, "made_here", lambda: made.made_by)
    module: Callable[[str], object] = lambda name: SimpleNamespace(CHECKS={"timing": made.checks})  # noqa: E731
    monkeypatch.setattr(run, "import_module", module)
    return made


def test_what_is_in_the_record_is_done_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.add("flow", {"us": 5})
    bench.add("more", {"folds": 3, "finished": False})
    assert bench() and bench.ran == ["flow", "more"]
    assert bench() and bench.ran == ["more"]
    assert bench(again=True) and bench.ran == ["flow", "more"]
    assert bench.entries()["flow"]["us"] == 5
    assert "flow: in the record already" in capsys.readouterr().out


def test_another_version_or_device_is_measured_anew_beside_the_old(bench: Bench) -> None:
    bench.add("flow", {"us": 5})
    bench()
    bench.made_by = {**MADE_BY, "source": "def"}
    assert bench() and bench.ran == ["flow"]
    assert bench.entries(0)["flow"]["us"] == bench.entries(1)["flow"]["us"] == 5


def test_a_check_that_fails_does_not_cost_the_others_their_turn(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.add("wrong", {"px": 3, "right": False})
    bench.add("refused", BackendError("the GPU failed"))
    bench.add("broken", ValueError("a mistake"))
    bench.add("absent", ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    bench.add("not here", SkippedError("no flow maps"))
    bench.add("good", {"right": True})
    assert not bench()
    kinds = {
        name: {key: entry[key] for key in ("failed", "skipped") if key in entry} for name, entry in bench.entries().items()
    }
    assert kinds == {
        "wrong": {"failed": "the figures are wrong"},
        "refused": {"failed": "the GPU failed"},
        "broken": {"failed": "ValueError: a mistake"},
        "absent": {"skipped": "cv2 is not installed"},
        "not here": {"skipped": "no flow maps"},
        "good": {},
    }
    assert bench.entries()["wrong"]["px"] == 3
    bench()
    assert bench.ran == ["wrong", "refused", "broken", "absent", "not here"]
    assert "3 failed: timing: wrong; timing: refused; timing: broken" in capsys.readouterr().out


def test_each_result_is_on_disk_before_the_next_check(bench: Bench) -> None:
    bench.add("flow", {"us": 5})
    bench.add("stopped", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench()
    assert list(bench.entries()) == ["flow"]


def test_what_would_end_too_late_is_not_begun(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.add("long", {}, least=100)
    bench.add("short", {}, least=1)
    assert bench(seconds=50) and bench.ran == ["short"]
    assert "out of time before 1 checks (timing: long ...)" in capsys.readouterr().out


def test_a_file_that_is_no_record_stays_as_it_is(bench: Bench) -> None:
    bench.add("flow", {})
    for text in ("notes", "[]", '{"runs": [3]}'):
        bench.out.write_text(text)
        with pytest.raises(InputError, match="no record of this command"):
            bench()
        assert bench.out.read_text() == text and not bench.ran


def test_no_gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "refusal", lambda: "no driver")
    with pytest.raises(NoGpuError, match="no driver"):
        bench()
    assert not bench.out.exists()
