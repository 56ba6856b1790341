from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apexstream.cluster.parts import PartFiles, watched
from engine.errors import InputError
from stream.recorded.folders.records import PART, Wanted
from stream.recorded.folders.store import Store
from stream.recorded.folders.tasks import Task
from stream.recorded.parts.plan import Part
from stream.recorded.passage import Ending, Seen, Step
from tests.parts import MadePart, shorten_parts
from tests.stream.recorded.folders.test_runs import a_task

WANTED = Wanted({"version": "1"})
PARTS = (Part(end=20.0), Part(start=20.0))


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=5.0, around=2.0, tail=3.0, least=1.0)


@pytest.fixture(params=["folder", "store"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PartFiles]:
    store = Store(f"file://{tmp_path}/store") if request.param == "store" else None
    yield PartFiles(a_task(tmp_path), PARTS, WANTED, store)


def found() -> tuple[MadePart, MadePart]:
    left, right = MadePart(0, 249), MadePart(130, 399)
    left.event(16, 17, known=18)
    return left, right


def test_parts_are_joined_once_they_are_there(files: PartFiles) -> None:
    assert not files.exists(0)
    for number, part in enumerate(found()):
        files.write(number, part)
        assert files.exists(number)
    with files.joined() as steps:
        kinds = list(steps)
    assert [step.frame.index for step in kinds if isinstance(step, Seen)] == list(range(400))
    assert isinstance(kinds[-1], Ending)


def test_a_part_that_is_missing_is_said(files: PartFiles) -> None:
    files.write(0, found()[0])
    with pytest.raises(InputError, match="part 2 is missing, or the video has changed"), files.joined() as steps:
        list(steps)


def test_a_damaged_part_is_said_and_done_again(files: PartFiles) -> None:
    for number, part in enumerate(found()):
        files.write(number, part)
    name = files._name(1)
    path = files.task.folder / name if files.store is None else Path(files.store.url.removeprefix("file://"), "s1/a", name)
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(40) + content[100:])
    with pytest.raises(InputError, match="cannot be read"), files.joined() as steps:
        list(steps)
    assert [files.exists(number) for number in range(2)] == [True, False]


def test_a_part_that_was_cut_off_does_not_exist(tmp_path: Path) -> None:
    files = PartFiles(a_task(tmp_path), PARTS, WANTED, None)
    files.write(0, found()[0])
    path = next(files.task.folder.glob(f"{PART}*"))
    path.write_bytes(path.read_bytes()[:-8])
    assert not files.exists(0)


def test_parts_are_removed_where_the_results_are_there(files: PartFiles) -> None:
    files.write(0, found()[0])
    files.remove()
    assert not files.exists(0)
    files.remove()


def test_an_incomplete_part_does_not_exist(files: PartFiles) -> None:
    def broken() -> Iterator[Step]:
        yield from list(found()[0])[:10]
        raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        files.write(0, broken())
    assert not files.exists(0)


def test_parts_of_another_video_program_or_cut_do_not_count(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    PartFiles(task, PARTS, WANTED, None).write(0, found()[0])
    assert not PartFiles(task, PARTS, Wanted({"version": "2"}), None).exists(0)
    assert not PartFiles(task, (Part(end=19.0), Part(start=19.0)), WANTED, None).exists(0)
    task.video.write_bytes(b"another video")
    assert not PartFiles(task, PARTS, WANTED, None).exists(0)


def test_the_progress_of_a_part_is_noted(tmp_path: Path) -> None:
    notes: list[tuple[int, int | None, int]] = []
    steps = list(watched(MadePart(0, 4), PARTS[0], lambda *note: notes.append(note)))
    assert isinstance(steps[-1], Ending)
    assert notes == [(k, 250, 0) for k in range(1, 6)]


def test_tasks_in_other_folders_have_other_files(tmp_path: Path) -> None:
    one = a_task(tmp_path, "a")
    other = Task(one.video, "b", tmp_path / "out" / "b", one.size)
    PartFiles(one, PARTS, WANTED, None).write(0, found()[0])
    assert not PartFiles(other, PARTS, WANTED, None).exists(0)
