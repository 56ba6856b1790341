from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from apexstream.cluster import archive
from apexstream.cluster.archive import ArchiveWorker, Cut, Item, PartDone, Place, run_on_cluster, video_shares
from apexstream.cluster.connection import Cluster
from apexstream.cluster.dispatch import Done, Failed, Happening, Note, Progressed, Started
from apexstream.cluster.ray_process import Node, Raised, Returned
from apexstream.video_analysis import AnalysisOptions, analyze_video
from engine.errors import InputError, OutputError
from stream.recorded.files import as_json
from stream.recorded.folders.outcome import Outcome
from stream.recorded.folders.records import PART, read_record
from stream.recorded.folders.store import Store
from stream.recorded.folders.tasks import Task
from stream.recorded.folders.workers import StopRequest
from stream.recorded.parts.plan import Part
from stream.recorded.settings import AnalysisSettings, ReadingSettings
from tests.parts import shorten_parts
from tests.stream.recorded.folders.results import a_file
from tests.stream.recorded.folders.test_runs import Notes, a_task
from tests.videos import stepping, write_video

OPTIONS = AnalysisOptions(report=False)


def worker(tmp_path: Path, task: Task, **other: Any) -> ArchiveWorker:
    mark = a_file(tmp_path / "out" / ".cluster-1")
    place = Place(Path.cwd(), task.video, mark)
    given = {"deciding": OPTIONS.wanted().deciding, "out": tmp_path / "out", "place": place, **other}
    return ArchiveWorker(pickle.dumps((OPTIONS, os.getpid)), **given)


def test_a_video_is_analysed_once_though_its_worker_was_lost_after_it(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    write_video(task.video, stepping(64, 48, 5))
    one = worker(tmp_path, task)
    assert one.progress() is None
    outcome = one.do(Item(task, None), False)
    assert isinstance(outcome, Outcome)
    assert outcome.report is not None and outcome.problem is None
    assert one.progress() == (5, 5, 0)
    record = read_record(task.folder)
    assert record is not None and record.finished
    earlier = worker(tmp_path, task).do(Item(task, None), True)
    assert isinstance(earlier, Outcome)
    assert earlier.report is not None and earlier.report.timing == outcome.report.timing
    assert as_json(earlier.report.summary) == as_json(outcome.report.summary) and earlier.report.events == ()
    again = worker(tmp_path, task).do(Item(task, record.timing), True)  # what was there before is no result of this run
    assert isinstance(again, Outcome)
    assert again.report is not None and again.report.timing != outcome.report.timing


def test_a_request_to_stop_ends_the_analysis_in_order(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    write_video(task.video, stepping(64, 48, 5))
    one = worker(tmp_path, task)
    one.stop()
    outcome = one.do(Item(task, None), False)
    assert isinstance(outcome, Outcome)
    assert outcome.stopped


def test_a_node_without_what_is_needed_says_so(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    missing = Place(tmp_path / "none", task.video, tmp_path)
    for place, sentence in (
        (missing, f"has no folder {tmp_path / 'none'}; what is read and written must be in folders that all nodes share"),
        (Place(Path.cwd(), tmp_path / "none" / "a.mp4", tmp_path), f"does not see {tmp_path / 'none'} as it is here"),
        (Place(Path.cwd(), task.video, tmp_path / "none" / ".cluster-1"), f"does not see {tmp_path / 'none'} as it is here"),
    ):
        with pytest.raises(InputError, match=sentence):
            worker(tmp_path, task, place=place)
    other = {**OPTIONS.wanted().deciding, "version": "0.0.1"}
    with pytest.raises(InputError, match=r"another version is installed there \(version was 0.0.1 and is "):
        worker(tmp_path, task, deciding=other)


def test_a_node_that_cannot_write_results_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    task = a_task(tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(InputError, match=rf"cannot write into {tmp_path / 'out'} \(read-only file system\)"):
        worker(tmp_path, task)


class ScriptedDispatch:
    """In place of the cluster: what a test says happens."""

    happenings: tuple[Happening, ...] = ()
    dropped = 0
    last: ScriptedDispatch

    def __init__(self, cluster: Cluster, items: list[Item], *given: object, **options: object) -> None:
        self.items, self.dropped_items = list(items), set[int]()
        ScriptedDispatch.last = self

    def run(self) -> Iterator[Happening]:
        yield from self.happenings

    def drop_waiting(self, numbers: Collection[int] | None = None) -> None:
        ScriptedDispatch.dropped += numbers is None
        self.dropped_items |= set(numbers or ())

    def add(self, items: Sequence[Item]) -> range:
        self.items += items
        return range(len(self.items) - len(items), len(self.items))


def happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[Task], *happenings: Happening
) -> tuple[Notes, list[str]]:
    monkeypatch.setattr("apexstream.cluster.dispatch.Dispatch", ScriptedDispatch)
    monkeypatch.setattr(ScriptedDispatch, "happenings", happenings)
    notes, said = Notes(), list[str]()
    run_on_cluster(
        tasks,
        OPTIONS,
        os.getpid,
        out=tmp_path / "out",
        store=None,
        cluster=cast(Cluster, None),
        jobs=None,
        watcher=notes,
        stop=StopRequest(),
        say=said.append,
    )
    return notes, said


def test_what_happens_on_the_cluster_reaches_the_watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = a_task(tmp_path, "a"), a_task(tmp_path, "b")
    left = a_file(tmp_path / "out" / f"{archive.MARK}old")
    full = Outcome(b, None, "no space left", disk_full=True)
    script = (Started(0), Progressed(0, (1, 2, 0)), Note("a node is gone"), Failed(0, "it ended"), Done(1, Returned(full)))
    notes, said = happened(tmp_path, monkeypatch, [a, b], *script)
    assert notes.notes == [("started", "a"), ("1 of 2", "a"), ("it ended", "a"), ("no space left", "b")]
    assert said == ["a node is gone"] and ScriptedDispatch.dropped == 1
    assert not left.exists() and not list((tmp_path / "out").glob(f"{archive.MARK}*"))


def test_an_error_of_the_run_is_no_error_of_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[Happening]:
        (mark,) = (tmp_path / "out").glob(f"{archive.MARK}*")
        mark.unlink()  # as a person may
        raise BrokenPipeError
        yield

    monkeypatch.setattr(ScriptedDispatch, "run", broken)
    with pytest.raises(BrokenPipeError):
        happened(tmp_path, monkeypatch, [a_task(tmp_path)])


PARTS = (Part(end=5.0), Part(5.0, 10.0), Part(start=10.0))


def test_a_long_video_is_done_in_parts_which_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = a_task(tmp_path, "a"), a_task(tmp_path, "b")
    script: list[Happening] = [Started(0), Done(0, Returned(Cut(PARTS)))]
    script += [
        Started(2),
        Progressed(4, (100, 100, 0)),  # its frames are done, its file is not written yet
        Progressed(2, (50, 100, 0)),
        Started(3),
        Done(3, Returned(PartDone())),
        Done(2, Returned(PartDone())),
    ]
    script += [Done(4, Returned(PartDone())), Started(5), Progressed(5, (50, 100, 1)), Progressed(5, (100, 100, 1))]
    script += [Done(5, Returned(Outcome(a, None, None)))]
    notes, _ = happened(tmp_path, monkeypatch, [a, b], *script)
    shares = [f"{share} of 1000" for share in (300, 450, 750, 900, 900, 950, 1000)]
    assert notes.notes == [("started", "a"), *((share, "a") for share in shares), ("done", "a")]
    added = ScriptedDispatch.last.items[2:]
    assert [(item.task, item.parts, item.part) for item in added] == [(a, PARTS, k) for k in (0, 1, 2, None)]


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_a_video_of_which_a_part_fails_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    task = a_task(tmp_path, "a")
    ends = Failed(2, "a sentence") if how == "killed" else Done(2, Returned(Outcome(task, None, "a sentence")))
    script = (Started(0), Done(0, Returned(Cut(PARTS))), ends, Done(1, Returned(PartDone())), Failed(3, "another"))
    notes, _ = happened(tmp_path, monkeypatch, [task], *script)
    assert notes.notes == [("started", "a"), ("a sentence", "a")]
    assert ScriptedDispatch.last.dropped_items == {1, 2, 3}


def test_a_worker_does_parts_and_joins_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=1.0, around=0.5, tail=0.5, least=1.0)
    task = a_task(tmp_path)
    write_video(task.video, stepping(64, 48, 180), options={"g": "15"})
    options = AnalysisOptions(AnalysisSettings(reading=ReadingSettings(part_minutes=3 / 60)), frames=True)
    needs = pickle.dumps((options, os.getpid))
    place = Place(Path.cwd(), task.video, a_file(tmp_path / "out" / ".cluster-1"))
    one = ArchiveWorker(needs, options.wanted().deciding, tmp_path / "out", place)
    cut = one.do(Item(task, None), False)
    assert isinstance(cut, Cut)
    items = [Item(task, None, cut.parts, number) for number in range(2)]
    assert [one.do(item, False) for item in items] == [PartDone(), PartDone()]
    assert one.progress() is not None
    waiting = {path: path.stat().st_mtime_ns for path in task.folder.glob(f"{PART}*")}
    assert len(waiting) == 2
    assert one.do(items[0], True) == PartDone()  # it is there
    assert {path: path.stat().st_mtime_ns for path in task.folder.glob(f"{PART}*")} == waiting
    outcome = one.do(Item(task, None, cut.parts), False)
    assert isinstance(outcome, Outcome)
    assert outcome.problem is None
    assert outcome.report is not None
    assert outcome.report.summary["video"]["frames"] == 180
    assert not list(task.folder.glob(f"{PART}*"))
    here = a_task(tmp_path, "here")
    alone = analyze_video(task.video, here.folder, options, stream=task.name)
    assert as_json(alone.summary) == as_json(outcome.report.summary)
    for name in ("events.jsonl", "frames.csv", "activity.jsonl"):
        assert (task.folder / name).read_bytes() == (here.folder / name).read_bytes()


def test_a_part_that_is_stopped_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_parts(monkeypatch, warm=1.0, around=0.5, tail=0.5, least=1.0)
    task = a_task(tmp_path)
    write_video(task.video, stepping(64, 48, 90))
    one = worker(tmp_path, task)
    one.stop()
    outcome = one.do(Item(task, None, PARTS, 0), False)
    assert isinstance(outcome, Outcome)
    assert outcome.stopped
    assert not list(task.folder.glob(f"{PART}*"))


def test_a_part_that_cannot_be_analysed_says_why(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    task.video.write_bytes(b"no video")
    outcome = worker(tmp_path, task).do(Item(task, None, PARTS, 0), False)
    assert isinstance(outcome, Outcome)
    assert outcome.problem is not None
    assert "cannot be read as a video" in outcome.problem


def test_a_defect_on_a_node_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        happened(tmp_path, monkeypatch, [a_task(tmp_path)], Done(0, Raised(RuntimeError("a defect"))))


def test_as_many_workers_as_jobs_would_be() -> None:
    assert [len(video_shares(Node("k", "n", cpus, 64_000_000_000, 0))) for cpus in (0, 1, 2, 8)] == [0, 1, 2, 6]
    assert len(video_shares(Node("k", "n", 8, 3 * archive.MEMORY_BYTES, 0))) == 3


def test_a_store_that_cannot_be_read_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = a_task(tmp_path)
    write_video(task.video, stepping(64, 48, 5))
    store = Store(f"file://{tmp_path}/store")

    def away(self: Store, task: Task) -> None:
        raise OutputError("the store is away")

    one = worker(tmp_path, task, place=Place(Path.cwd(), task.video, None, store))
    monkeypatch.setattr(Store, "results", away)
    outcome = one.do(Item(task, None), True)
    assert isinstance(outcome, Outcome)
    assert outcome.problem == "the store is away"
