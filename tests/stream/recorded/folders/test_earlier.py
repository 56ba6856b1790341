from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.files import folder_lock
from stream.recorded.folders.earlier import bring_back, is_set_aside, remove_earlier, set_aside, settle, settle_if_idle
from stream.recorded.folders.records import Record, read_record, write_record
from tests.stream.recorded.folders.results import a_file, finished_results

NAMES = ("events.jsonl", "summary.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Finished results."""
    return finished_results(tmp_path / "a", a_file(tmp_path / "a.mp4"))


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}


def test_finished_results_are_set_aside_and_come_back(folder: Path) -> None:
    before = content(folder)
    set_aside(folder, [*NAMES, "is not there.csv"])
    assert is_set_aside(folder)
    assert content(folder).keys() == {".earlier-events.jsonl", ".earlier-run.json", ".earlier-summary.json", "run.json"}
    assert read_record(folder) == Record(False, ("events.jsonl", "is not there.csv", "summary.json"))
    a_file(folder / "events.jsonl", "half of it")
    bring_back(folder)
    assert content(folder) == before and not is_set_aside(folder)


class KilledError(Exception):
    """Stands for a kill."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, work: Callable[[], object]) -> bool:
    """Do some work, killed before it renames, replaces or removes a file for that time; whether it was."""
    count = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count > step:
                raise KilledError
            return original(*args, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        try:
            work()
        except KilledError:
            return True
    return False


@pytest.mark.parametrize("step", range(8))
def test_a_kill_at_any_step_loses_no_finished_results(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(folder)

    def fails() -> None:
        set_aside(folder, NAMES)
        a_file(folder / "events.jsonl", "half of it")
        bring_back(folder)

    assert kill_at(monkeypatch, step, fails) is (step < 7)
    settle(folder)
    assert content(folder) == before


@pytest.mark.parametrize("step", range(4))
def test_a_kill_after_the_new_results_leaves_those_alone(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_aside(folder, NAMES)
    for name in NAMES:
        a_file(folder / name, "new")
    write_record(folder, Record(True, NAMES))
    after = {name: text for name, text in content(folder).items() if not name.startswith(".")}
    assert kill_at(monkeypatch, step, lambda: remove_earlier(folder)) is (step < 3)
    settle(folder)
    assert content(folder) == after


def test_files_of_a_persons_own_stay(folder: Path) -> None:
    own = {name: a_file(folder / name, "own") for name in (".earlier-notes.txt", "notes.txt")}
    (folder / ".earlier-results").mkdir()
    set_aside(folder, NAMES)
    settle(folder)
    set_aside(folder, NAMES)
    write_record(folder, Record(True))
    settle(folder)
    assert all(path.read_text() == "own" for path in own.values())
    assert (folder / ".earlier-results").is_dir()


def test_what_another_process_works_on_is_not_settled(folder: Path) -> None:
    before = content(folder)
    set_aside(folder, NAMES)
    with folder_lock(folder):
        settle_if_idle(folder)
        assert is_set_aside(folder)
    settle_if_idle(folder)
    assert content(folder) == before
    settle_if_idle(folder / "none")
    assert not (folder / "none").exists()
