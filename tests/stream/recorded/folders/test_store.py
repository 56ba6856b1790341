from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import BackendError, InputError, OutputError
from stream.recorded.folders.outcome import earlier_outcome
from stream.recorded.folders.records import read_record
from stream.recorded.folders.runs import make_plan, run_task
from stream.recorded.folders.store import Store, is_url
from stream.recorded.folders.tasks import Task
from tests.object_store import BUCKET, SECRET, object_store
from tests.stream.recorded.folders.results import WANTED, a_file
from tests.stream.recorded.folders.test_runs import Analysis, a_task


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("objects")) as environment:
        yield environment


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        return Store(f"file://{tmp_path / 'store'}")
    for name, value in request.getfixturevalue("access").items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://{BUCKET}/{tmp_path.name}/results/")


def in_mirror(task: Task, out: Path) -> Task:
    return Task(task.video, task.name, out / task.name, task.size)


def test_results_are_uploaded_and_known_by_the_next_run(store: Store, tmp_path: Path) -> None:
    store.check()
    task = a_task(tmp_path)
    outcome = run_task(task, Analysis(), WANTED, out=tmp_path / "out", store=store)
    assert outcome.problem is None and outcome.task == task and not task.folder.exists()
    assert store.names() == ["s1/a/events.jsonl", "s1/a/run.json", "s1/a/summary.json"]
    assert store.names("s1/a") == ["events.jsonl", "run.json", "summary.json"]
    with store.mirror() as out:
        assert out.name == store.url.rstrip("/").rsplit("/", 1)[-1]
        there = in_mirror(task, out)
        assert [one.task for one in make_plan([there], WANTED).finished] == [there]
        store.remove(["s1/a/run.json", "s1/a/none"])
        store.refresh(task.name, there.folder)
        assert read_record(there.folder) is None and make_plan([there], WANTED).todo[0].reason == "not finished before"
    with store.results(task) as local:
        assert earlier_outcome(local) is None


def test_names_that_lead_out_of_a_folder_are_left_out(tmp_path: Path) -> None:
    store, there = Store(f"memory://{tmp_path.name}/results"), a_file(tmp_path / "file", "{}")
    for name in ("a/run.json", "../run.json", "a/../../../run.json", "a//../../summary.json"):
        store.put(there, name)
    assert store.names() == ["a/run.json"]
    with store.mirror() as out:
        assert {path.relative_to(out.parent) for path in out.parent.rglob("*.json")} == {Path("results/a/run.json")}


def test_a_second_run_replaces_what_changed_and_keeps_what_was_edited(store: Store, tmp_path: Path) -> None:
    task = a_task(tmp_path)
    run_task(task, Analysis(lambda video, folder: a_file(folder / "frames.csv") and None), WANTED, out=tmp_path, store=store)
    store.put(a_file(tmp_path / "edited", "by a person\n"), "s1/a/events.jsonl")
    store.put(a_file(tmp_path / "notes", "of the day"), "s1/a/notes.txt")
    run_task(task, Analysis(), WANTED, out=tmp_path, store=store)
    assert store.names("s1/a") == ["edited-events.jsonl", "events.jsonl", "notes.txt", "run.json", "summary.json"]
    store.get("s1/a/notes.txt", tmp_path / "got" / "notes.txt")
    assert (tmp_path / "got" / "notes.txt").read_text() == "of the day"


def test_what_a_killed_run_set_aside_in_a_folder_that_was_copied_replaces_nothing(store: Store, tmp_path: Path) -> None:
    task = a_task(tmp_path)
    run_task(task, Analysis(), WANTED, out=tmp_path, store=store)
    for name in ("run.json", "events.jsonl", "summary.json"):
        store.put(a_file(tmp_path / "old", "old"), f"s1/a/.earlier-{name}")

    def fails(video: Path, folder: Path) -> None:
        raise OutputError("no space left")

    assert run_task(task, Analysis(fails), WANTED, out=tmp_path, store=store).problem == "no space left"
    with store.results(task) as local:
        record = read_record(local.folder)
        assert record is not None and record.finished and (local.folder / "events.jsonl").read_text() == "{}\n"


def test_the_record_is_uploaded_last(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, put = a_task(tmp_path), Store.put
    run_task(task, Analysis(), WANTED, out=tmp_path, store=store)

    def fails(self: Store, path: Path, name: str) -> None:
        if name.endswith("summary.json"):
            raise OutputError("the network is gone")
        put(self, path, name)

    monkeypatch.setattr(Store, "put", fails)
    assert run_task(task, Analysis(), WANTED, out=tmp_path, store=store).problem == "the network is gone"
    assert "run.json" not in store.names("s1/a")


def test_a_store_is_opened_by_each_process(store: Store) -> None:
    store.check()
    assert pickle.loads(pickle.dumps(store)) == store and SECRET.encode() not in pickle.dumps(store)


def test_no_access_is_one_sentence_without_credentials(
    access: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-" + SECRET)
    with pytest.raises(OutputError, match=rf"^s3://{BUCKET}/denied cannot be read or written: ") as caught:
        Store(f"s3://{BUCKET}/denied").check()
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has a password") as refused:
        Store("sftp://anna:secret-word@host/archive").check()
    assert "secret-word" not in str(refused.value)
    for host in ("[host", "h\u2100st"):
        with pytest.raises(InputError, match=r"its host cannot be read$"):
            Store(f"sftp://anna:secret-word@{host}/archive").check()


def test_a_missing_package_or_kind_of_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"nosuch://a cannot be read or written: .*nosuch"):
        Store("nosuch://a").check()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(BackendError, match=r"^gs://a needs a package: Please install gcsfs"):
        Store("gs://a").check()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(BackendError, match=r"pip install 'apexstream\[s3\]'"):
        Store("s3://other").check()


@pytest.mark.parametrize(("out", "url"), [("s3://b/x", True), ("results", False), ("/a/b", False), ("C:\\results", False)])
def test_urls_are_told_from_folders(out: str, url: bool) -> None:
    assert is_url(out) == url
