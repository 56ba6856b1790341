from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from apexstream.cluster import archive
from apexstream.cluster.archive import ArchiveWorker, Item, Place, run_on_cluster, video_shares
from apexstream.cluster.connection import Cluster
from apexstream.cluster.dispatch import Done, Failed, Happening, Note, Progressed, Started
from apexstream.cluster.ray_process import Node, Raised, Returned
from apexstream.video_analysis import AnalysisOptions
from engine.errors import InputError
from stream.recorded.files import as_json
from stream.recorded.folders.records import read_record
from stream.recorded.folders.runs import Outcome
from stream.recorded.folders.tasks import Task
from stream.recorded.folders.workers import StopRequest
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
    assert outcome.report is not None and outcome.problem is None
    assert one.progress() == (5, 5, 0)
    record = read_record(task.folder)
    assert record is not None and record.finished
    earlier = worker(tmp_path, task).do(Item(task, None), True)
    assert earlier.report is not None and earlier.report.timing == outcome.report.timing
    assert as_json(earlier.report.summary) == as_json(outcome.report.summary) and earlier.report.events == ()
    again = worker(tmp_path, task).do(Item(task, record.timing), True)  # what was there before is no result of this run
    assert again.report is not None and again.report.timing != outcome.report.timing


def test_a_request_to_stop_ends_the_analysis_in_order(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    write_video(task.video, stepping(64, 48, 5))
    one = worker(tmp_path, task)
    one.stop()
    assert one.do(Item(task, None), False).stopped


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


class ScriptedDispatch:
    """In place of the cluster: what a test says happens."""

    happenings: tuple[Happening, ...] = ()
    dropped = 0

    def __init__(self, cluster: Cluster, items: list[Item], *given: object, **options: object) -> None:
        self.items = items

    def run(self) -> Iterator[Happening]:
        yield from self.happenings

    def drop_waiting(self) -> None:
        ScriptedDispatch.dropped += 1


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


def test_a_defect_on_a_node_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        happened(tmp_path, monkeypatch, [a_task(tmp_path)], Done(0, Raised(RuntimeError("a defect"))))


def test_as_many_workers_as_jobs_would_be() -> None:
    assert [len(video_shares(Node("k", "n", cpus, 64_000_000_000, 0))) for cpus in (0, 1, 2, 8)] == [0, 1, 2, 6]
    assert len(video_shares(Node("k", "n", 8, 3 * archive.MEMORY_BYTES, 0))) == 3
