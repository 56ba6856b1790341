from __future__ import annotations

from pathlib import Path

import pytest

from stream.recorded.folders import earlier
from stream.recorded.folders.earlier import bring_back, is_set_aside, remove_earlier, set_aside
from stream.recorded.folders.records import Record, read_record
from tests.stream.recorded.folders.results import a_file, finished_results

NAMES = ("events.jsonl", "summary.json")


def results(tmp_path: Path) -> tuple[Path, Record]:
    folder = finished_results(tmp_path / "a", a_file(tmp_path / "a.mp4"))
    record = read_record(folder)
    assert record is not None
    return folder, record


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_finished_results_are_set_aside_and_come_back(tmp_path: Path) -> None:
    folder, record = results(tmp_path)
    own = a_file(folder / "notes.txt", "own")
    set_aside(folder, record, [*NAMES, "is not there.csv"])
    assert is_set_aside(folder)
    assert files(folder) == [".earlier-events.jsonl", ".earlier-run.json", ".earlier-summary.json", "notes.txt", "run.json"]
    assert read_record(folder) == Record(False, ("events.jsonl", "is not there.csv", "summary.json"))
    bring_back(folder)
    assert read_record(folder) == record and own.read_text() == "own"
    assert files(folder) == ["events.jsonl", "notes.txt", "run.json", "summary.json"]


def test_what_is_not_finished_stays_where_it_is(tmp_path: Path) -> None:
    folder, _ = results(tmp_path)
    set_aside(folder, Record(False), NAMES)
    assert files(folder) == ["events.jsonl", "run.json", "summary.json"] and not is_set_aside(folder)
    assert read_record(folder) == Record(False, NAMES)


def test_results_stay_set_aside_while_others_are_not_finished(tmp_path: Path) -> None:
    folder, record = results(tmp_path)
    set_aside(folder, record, NAMES)
    a_file(folder / "events.jsonl", "half of it")
    set_aside(folder, Record(False), NAMES)
    assert (folder / "events.jsonl").read_text() == "half of it"
    bring_back(folder)
    assert (read_record(folder), (folder / "events.jsonl").read_text()) == (record, "{}\n")


def test_a_kill_while_they_are_set_aside_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, record = results(tmp_path)
    write, written = earlier.write_record, []

    def killed(folder: Path, record: Record, *more: str) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(record)
        write(folder, record, *more)

    monkeypatch.setattr(earlier, "write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        set_aside(folder, record, NAMES)
    monkeypatch.undo()
    assert files(folder) == [".earlier-events.jsonl", ".earlier-summary.json", "run.json"]
    unfinished = read_record(folder)
    assert unfinished is not None
    set_aside(folder, unfinished, NAMES)
    assert files(folder) == ["events.jsonl", "run.json", "summary.json"]


def test_results_that_were_replaced_go_before_others_are_set_aside(tmp_path: Path) -> None:
    folder, record = results(tmp_path)
    a_file(folder / ".earlier-report.html", "older")
    a_file(folder / ".earlier-run.json", "older")
    set_aside(folder, record, NAMES)
    assert ".earlier-report.html" not in files(folder)
    remove_earlier(folder)
    assert files(folder) == ["run.json"] and not is_set_aside(folder)
