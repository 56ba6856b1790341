from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apexstream.bench.report import Row
from apexstream.bench.whole import MeasurementError
from apexstream.cli import main
from apexstream.commands import bench


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
    shown, reported = capsys.readouterr()
    assert "rendering 4 s" in reported and "each stage" in reported
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


def test_what_was_measured_is_kept_where_a_later_part_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> Iterator[Row]:
        raise MeasurementError("the service did not start")
        yield

    monkeypatch.setitem(bench._MEASURES, "live", lambda *_: iter([Row("sources", "sources", 3.0)]))
    monkeypatch.setitem(bench._MEASURES, "latency", fails)
    assert ended("--only", "live,latency", "--json", str(tmp_path / "bench.json")) == 1
    shown, reported = capsys.readouterr()
    assert "sources" in shown and "the service did not start" in reported
    assert [row["name"] for row in json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]] == ["sources"]


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bench._MEASURES, "gpu", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    for target in (tmp_path, tmp_path / "file" / "bench.json"):
        assert ended("--only", "gpu", "--json", str(target)) == 1
        assert f"{target} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "missing", "named"),
    [
        ("whole", {"torch"}, "torch"),
        ("latency", {"skimage"}, "skimage"),
        ("gpu", {"psutil", "torch", "skimage"}, "psutil"),
        ("stages", {"psutil", "torch"}, "psutil, torch"),
    ],
)
def test_missing_packages_are_named_before_anything_is_measured(
    part: str, missing: set[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None if name in missing else object())
    assert ended("--only", part) == 1
    assert capsys.readouterr().err == f"apexstream: error: this measurement needs {named}: pip install 'apexstream[bench]'\n"
