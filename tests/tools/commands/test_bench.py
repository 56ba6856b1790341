from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.cli import main
from tools.commands import bench


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["bench", *arguments])
    return int(end.value.code or 0)


def test_figures_are_shown_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "QUICK", bench.Plan(4, 30, 1, 1, 1, (1,)))
    record = tmp_path / "deep" / "bench.json"
    assert ended("--quick", "--only", "stages,gpu", "--processes", "2", "--json", str(record)) == 0
    shown, told = capsys.readouterr()
    assert "rendering 4 s" in told and "each stage" in told
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["command"] == "apexstream bench --quick --only stages,gpu --processes 2"
    names = [row["name"] for row in found["rows"]]
    assert names[0] == "decoding" and names[-1].startswith("GPU")
    assert all(name.split(",")[0].split()[0] in shown for name in names)
    assert str(tmp_path) not in record.read_text(encoding="utf-8") and found["machine"]["cores"] >= 1


def test_a_part_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--only", "stages,nonsense") == 2
    assert "nonsense" in capsys.readouterr().err


def test_what_is_no_number_of_processes_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--only", "gpu", "--processes", "many") == 2
    assert "is neither auto nor a number" in capsys.readouterr().err
