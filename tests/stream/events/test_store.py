from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError
from stream.events import store as store_module
from stream.events.database import FILE, LostError
from stream.events.query import Reader, examine
from stream.events.retention import CONFIRM_S, TrustedClock, Waited
from stream.events.store import EXAMINED_S, Store
from stream.events.store_threads import HUNG_S
from tests.events import read, seqs, stored

ROOT = Path(__file__).resolve().parents[3]


def test_what_is_appended_is_read_back_with_its_seq(store: Store) -> None:
    assert store.append([stored(1), stored(2, label="positive")]) == [1, 2]
    assert store.append([]) == []
    assert store.append([stored(3)]) == [3]
    assert store.last == 3
    first, second, third = read(store)
    assert first == {**stored(1), "seq": 1}
    assert list(first)[:3] == ["type", "v", "seq"]
    assert (second["label"], third["id"]) == ("positive", "lobby-3")


def test_seq_goes_on_after_a_restart_and_after_everything_was_removed(tmp_path: Path) -> None:
    with Store(tmp_path) as first:
        first.append([stored(1), stored(2)])
        identity = first.identity
    with Store(tmp_path, keep_days=-1) as second:
        assert (second.last, second.identity) == (2, identity)
        assert second.prune() == 2
        assert read(second) == []
    with Store(tmp_path) as third:
        assert third.last == 2
        assert third.append([stored(3)]) == [3]


def test_all_or_none_of_a_batch_is_kept(store: Store) -> None:
    store.append([stored(1)])
    broken = {**stored(3), "label": None}
    with pytest.raises(OutputError, match="NOT NULL"):
        store.append([stored(2), broken])
    assert seqs(read(store)) == [1]
    assert store.append([stored(4)]) == [2], "a failed append uses up no seq"


def test_retention_by_age_removes_only_old_events(tmp_path: Path) -> None:
    with Store(tmp_path, keep_days=30) as kept:
        kept.append([stored(1), stored(2), stored(3)])
        with sqlite3.connect(tmp_path / FILE) as aged:
            aged.execute("UPDATE events SET stored_at = stored_at - 31 * 86400 WHERE seq <= 2")
        aged.close()
        assert (kept.prune(), kept.prune()) == (2, 0)
        assert seqs(read(kept)) == [3]


def test_retention_by_size_removes_the_oldest_and_shrinks_the_file(tmp_path: Path) -> None:
    bound = 400_000
    with Store(tmp_path, keep_bytes=bound) as kept:
        kept.append([stored(number) for number in range(1, 3001)])
        while kept.prune():
            pass
        left = seqs(read(kept, limit=10_000))
        assert left == list(range(3001 - len(left), 3001)), "the newest are left, none missing between"
        assert 200 < len(left) < 1000
    assert bound / 2 < (tmp_path / FILE).stat().st_size <= bound


def test_nothing_is_removed_by_a_clock_that_is_wrong_for_a_while(tmp_path: Path) -> None:
    """200 days ahead for half a minute, and back; then a year on, for good."""
    machine = {"wall": time.time(), "steady": 0.0}

    def clock(newest: float | None, waited: Waited | None) -> TrustedClock:
        return TrustedClock(newest, waited, wall=lambda: machine["wall"], steady=lambda: machine["steady"])

    with Store(tmp_path, keep_days=90, clock=clock) as kept:
        kept.append([stored(number) for number in range(14)])
        machine["wall"] += 200 * 86_400
        for _ in range(3):
            machine["steady"] += 10
            machine["wall"] += 10
            assert kept.prune() == 0
        machine["wall"] -= 200 * 86_400
        assert kept.prune() == 0
        machine["wall"] += 365 * 86_400
        assert kept.prune() == 0
        machine["wall"] += CONFIRM_S
        machine["steady"] += CONFIRM_S
        assert kept.prune() == 14
    machine["wall"] = time.time() + 200 * 86_400
    with Store(tmp_path / "other", keep_days=90) as other:
        other.append([stored(1)])
    with Store(tmp_path / "other", keep_days=90, clock=clock) as opened_with_a_wrong_clock:
        assert opened_with_a_wrong_clock.prune() == 0


def test_a_service_that_runs_a_few_hours_a_week_removes_old_events_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = {"wall": time.time(), "steady": 0.0}

    def clock(newest: float | None, waited: Waited | None) -> TrustedClock:
        return TrustedClock(newest, waited, wall=lambda: machine["wall"], steady=lambda: machine["steady"])

    removed = 0
    for week in range(10):
        with Store(tmp_path, keep_days=20, clock=clock) as kept:
            kept.append([stored(week)])
            for _ in range(16):
                removed += kept.prune()
                machine["wall"] += 1800
                machine["steady"] += 1800
            removed += kept.prune()
        machine["wall"] += 7 * 86_400
        machine["steady"] = 0.0
    assert removed >= 4
    assert "by the clock of this machine the newest event is 7 days old" in caplog.text


def test_an_event_stamped_by_a_clock_years_behind_is_not_old(tmp_path: Path) -> None:
    with Store(tmp_path, keep_days=30) as kept:
        kept.append([stored(number) for number in range(5)])
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as aged:
            aged.execute("UPDATE events SET stored_at = stored_at - 31 * 86400 WHERE seq = 1")
            aged.execute("UPDATE events SET stored_at = 0 WHERE seq = 3")
            aged.execute("UPDATE events SET stored_at = stored_at + 1e9 WHERE seq = 4")
        assert (kept.prune(), kept.prune()) == (1, 0)
        assert seqs(read(kept)) == [2, 3, 4, 5]


def removed(folder: Path) -> None:
    for path in folder.glob(f"{FILE}*"):
        path.unlink()


def folder_removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    path = folder / FILE
    shutil.copy(path, folder / "copy")
    (folder / "copy").replace(path)


def overwritten(folder: Path) -> None:
    with (folder / FILE).open("r+b") as file:
        file.write(bytes(100))


def checkpointed(folder: Path) -> None:
    """Else the content of SQLite's log would repair the file."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def overwritten_after_its_header(folder: Path) -> None:
    checkpointed(folder)
    with (folder / FILE).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def overwritten_by_another_store(folder: Path) -> None:
    with Store(folder.parent / "other") as other:
        other.append([stored(7)])
    checkpointed(folder)
    (folder / FILE).write_bytes(other.path.read_bytes())


@pytest.mark.parametrize(
    "harm",
    [
        *(removed, folder_removed, replaced),
        *(overwritten, overwritten_after_its_header, overwritten_by_another_store),
    ],
)
def test_nothing_is_appended_to_a_file_lost_while_in_use(harm: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "events"
    with Store(folder) as kept:
        kept.append([stored(1)])
        kept.examine()
        harm(folder)
        with pytest.raises(LostError, match=r"was removed or replaced|is damaged"):
            kept.examine()
        with pytest.raises(LostError):
            kept.append([stored(2)])
        with pytest.raises(LostError):
            kept.reopen()
        assert kept.last == 1


def test_a_read_error_of_the_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Store(tmp_path) as store:
        with monkeypatch.context() as broken:
            broken.setattr(os, "pread", refuse)
            for use in (store.check, store.examine, store.reopen, lambda: store.append([stored(1)])):
                with pytest.raises(OutputError, match=r"events\.sqlite3.*nput/output error"):
                    use()
        assert store.append([stored(1)]) == [1]


def test_a_folder_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    folder, away = tmp_path / "events", tmp_path / "away"
    with Store(folder) as store:
        folder.rename(away)
        folder.symlink_to("x" * 300)  # fails in stat, for root too, as a folder without rights does for everybody else
        for use in (store.check, store.reopen):
            with pytest.raises(OutputError, match=r"events\.sqlite3"):
                use()
        folder.unlink()
        away.rename(folder)
        assert store.append([stored(1)]) == [1]


def test_the_examination_of_a_large_file_is_limited_and_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path) as kept:
        kept.append([stored(1)])
        path, identity = kept.path, kept.identity
    with contextlib.closing(sqlite3.connect(path)) as large:
        large.execute("CREATE TABLE filler AS SELECT zeroblob(33554432) AS x")
    assert examine(path, identity, 1, within_s=60.0)
    assert any(not examine(path, identity, 1, within_s=step / 2000) for step in range(1, 100))
    with Store(tmp_path) as kept:
        kept.examine()
        overwritten_after_its_header(tmp_path)
        with pytest.raises(LostError):
            kept.examine()
        monkeypatch.setattr(store_module, "examine", lambda *_, within_s: within_s > EXAMINED_S)
        kept.examine()
        with pytest.raises(LostError):
            kept.append([stored(2)])
    assert EXAMINED_S < HUNG_S


def test_a_file_moved_away_and_back_has_each_event_once(tmp_path: Path) -> None:
    path, away = tmp_path / FILE, tmp_path / "away"
    with Store(tmp_path) as kept:
        kept.append([stored(1)])
        path.rename(away)
        with pytest.raises(LostError):
            kept.append([stored(2)])
        away.rename(path)
        kept.examine()
        kept.check()
        assert kept.append([stored(2)]) == [2]
        assert seqs(read(kept)) == [1, 2]


def test_an_event_written_while_the_file_is_removed_is_not_stored_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is removed between the event's transaction and the check after it, and put back."""
    with Store(tmp_path) as kept:
        check_file, failing = kept.check, iter([False, True, False, False])

        def check() -> None:
            if next(failing):
                raise LostError("removed")
            check_file()

        monkeypatch.setattr(kept, "check", check)
        with pytest.raises(LostError):
            kept.append([stored(1)])
        kept.append([stored(1)])
        assert [event["id"] for event in read(kept)] == ["lobby-1"]


@pytest.mark.parametrize("harm", [removed, folder_removed])
def test_a_new_file_continues_the_old_one_where_allowed(harm: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "events"
    with Store(folder, recreate=True) as kept:
        kept.append([stored(1), stored(2)])
        identity = kept.identity
        harm(folder)
        kept.reopen()
        assert kept.append([stored(3)]) == [3]
        assert (kept.identity, seqs(read(kept))) == (identity, [3])
        with pytest.raises(OutputError, match="in use by another service"):
            Store(folder)
    with Store(folder) as again:
        assert (again.identity, again.last) == (identity, 3)


def test_a_file_that_replaced_the_store_is_not_used(tmp_path: Path) -> None:
    with Store(tmp_path, recreate=True) as kept:
        replaced(tmp_path)
        with pytest.raises(LostError):
            kept.reopen()


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_a_removed_log_is_recreated_without_loss(ending: str, tmp_path: Path) -> None:
    with Store(tmp_path) as kept:
        kept.append([stored(1)])
        Path(f"{kept.path}{ending}").unlink()
        with pytest.raises(LostError):
            kept.append([stored(2)])
        kept.reopen()
        assert kept.append([stored(2)]) == [2]
        assert seqs(read(kept)) == [1, 2]


def test_a_store_readable_by_everybody_is_made_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Store(tmp_path) as kept:
        path = kept.path
    path.chmod(0o666)
    with Store(tmp_path):
        assert path.stat().st_mode & 0o777 == 0o660
    assert "could be used by every user of this machine (mode 0666)" in caplog.text


def test_a_store_without_its_identity_is_reported(tmp_path: Path) -> None:
    with Store(tmp_path) as kept:
        kept._db.execute("DELETE FROM identity")
    for opened in (Store, Reader):
        with pytest.raises(OutputError, match=r"is damaged \(it has lost its identity\)"):
            opened(tmp_path)


def test_pruning_goes_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PRUNED_AT_ONCE", 10)
    with Store(tmp_path, keep_days=-1) as kept:
        kept.append([stored(number) for number in range(25)])
        assert [kept.prune() for _ in range(4)] == [10, 10, 5, 0]


def test_a_killed_service_leaves_its_folder_free_and_its_events_whole(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from stream.events.store import Store; from tests.events import stored\n"
        "store = Store(Path(sys.argv[1])); print(store.append([stored(1), stored(2)])); sys.stdout.flush(); sys.stdin.read()"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "[1, 2]\n"
    with pytest.raises(OutputError, match="in use"):
        Store(tmp_path)
    with Reader(tmp_path) as beside:
        assert seqs(beside.since(0)) == [1, 2], "read while the service has it open"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    with Reader(tmp_path) as reader:
        assert seqs(reader.since(0)) == [1, 2]
    with Store(tmp_path) as again:
        assert again.append([stored(3)]) == [3]


def test_a_full_disk_is_reported_and_storing_continues_once_there_is_room(store: Store) -> None:
    store.append([stored(1)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutputError, match="the disk is full"):
        store.append([stored(number) for number in range(500)])
    assert (store.last, seqs(read(store))) == (1, [1])
    store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert store.append([stored(2)]) == [2]


def test_the_file_is_private(store: Store) -> None:
    store.append([stored(1)])
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.path.parent.iterdir()}
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}


def test_a_write_error_is_reported_and_storing_continues_once_it_works(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that takes no more, in a process of its own."""
    script = """
import resource, signal, sys
from pathlib import Path
from engine.errors import OutputError
from stream.events.store import Store
from tests.events import read, stored

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store, number = Store(Path(sys.argv[1])), 0
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    while True:
        store.append([stored(number)])
        number += 1
except OutputError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.append([stored(number)]) == [number + 1]
assert [event["seq"] for event in read(store, limit=number + 2)] == list(range(1, number + 2))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "cannot be written or read: the disk refuses" in ran.stdout


def of_node(number: int, node: str = "desk") -> dict[str, Any]:
    return {**stored(number), "node": node, "node_store": "5a", "node_seq": number}


def test_positions_of_other_nodes_are_stored_with_their_events(tmp_path: Path) -> None:
    with Store(tmp_path) as first:
        first.append([of_node(1), of_node(2), of_node(9, "door"), stored(3)])
        with pytest.raises(OutputError, match="NOT NULL"):
            first.append([of_node(3), {**of_node(4), "label": None}])
        assert first.positions == {("desk", "5a"): 2, ("door", "5a"): 9}
    with Store(tmp_path, keep_days=-1) as second:
        assert second.prune() == 4
        assert second.positions == {("desk", "5a"): 2, ("door", "5a"): 9}, "they outlive their events"


def test_positions_go_back_with_an_event_that_was_written_while_the_file_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store:
        store.append([of_node(1)])
        checks = iter([None, LostError("it was removed")])

        def check() -> None:
            problem = next(checks)
            if problem is not None:
                raise problem

        monkeypatch.setattr(store, "check", check)
        with pytest.raises(LostError):
            store.append([of_node(2)])
    with Store(tmp_path) as again:
        assert (again.positions, seqs(read(again))) == ({("desk", "5a"): 1}, [1])


def test_a_new_file_has_the_positions_of_the_old_one(tmp_path: Path) -> None:
    with Store(tmp_path, recreate=True) as store:
        store.append([of_node(1), of_node(7, "door")])
        for path in tmp_path.glob(f"{FILE}*"):
            path.unlink()
        store.reopen()
        store.append([of_node(2)])
    with Store(tmp_path) as again:
        assert again.positions == {("desk", "5a"): 2, ("door", "5a"): 7}
