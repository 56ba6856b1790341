from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.soak import folds
from tests.soak.folds import called, lines, unequal

FILES = ("folds.jsonl", "summary.json", "predictions.csv", "recipe.json")


def written(folder: Path, *records: str) -> Path:
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("\n".join(records if name == FILES[0] else ["{}"]))
    return folder


def test_records_are_compared_without_times_and_order(tmp_path: Path) -> None:
    one = written(tmp_path / "one", '{"seed": 0, "seconds": 1.25}', '{"seed": 1, "seconds": 2}')
    other = written(tmp_path / "other", '{"seed": 1, "seconds": 0.5}', '{"seed": 0, "seconds": 12}')
    assert unequal(one, other) == [] and len(lines(one / FILES[0])) == 2
    (other / FILES[0]).write_text('{"seed": 1, "seconds": 0.5}')
    (other / FILES[2]).unlink()
    assert unequal(one, other) == [FILES[0], FILES[2]]
    assert unequal(tmp_path / "none", tmp_path / "none") == list(FILES)


def test_a_command_is_killed_when_so_much_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "PROGRAM", "import threading; print('begun', flush=True); threading.Event().wait()")
    counts = iter([0, 1, 1, 2, 2])
    happened = list[int]()
    _, said = called([], lambda: next(counts), {1: lambda process: happened.append(1), 2: subprocess.Popen.kill})
    assert happened == [1] and said in ("", "begun\n")
