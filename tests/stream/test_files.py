from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.errors import OutputError
from stream.files import LineFile, folder_lock, remove_leftovers, replacing, write_atomically


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, ["old"])
    write_atomically(path, ["n", "e\n", "w"])
    assert path.read_bytes() == b"ne\nw"
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "new"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "summary.json"
    write_atomically(path, ["old"])
    with pytest.raises(OutputError, match=r"summary\.json cannot be written: no space left on device"):
        write_atomically(path, pieces())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.txt cannot be written: no such file or directory"):
        write_atomically(tmp_path / "none" / "a.txt", ["a"])


def test_lines_are_on_disk_as_they_come(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.csv")
    for count in (1, 2):
        file.append("ü,1\n")
        assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "ü,1\n" * count
    file.close()


def test_a_line_that_does_not_fit_on_the_disk_is_reported() -> None:
    """/dev/full takes no byte: a full disk on every machine."""
    file = LineFile(Path("/dev/full"))
    with pytest.raises(OutputError, match=r"/dev/full cannot be written: no space left on device"):
        file.append("a\n")
    file.close()


def test_the_permissions_of_the_new_file_are_the_writers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as temporary:
        temporary.write_bytes(b"a")
        temporary.chmod(0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def test_writing_text_loads_no_numpy() -> None:
    script = "import sys, stream.files; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_what_a_kill_leaves_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from stream.files import replacing\n"
        "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.csv"], cwd=root, check=False)
    assert len(list(tmp_path.iterdir())) == 1, "a temporary folder is left"
    for own in ("a.csv", ".hidden", ".a.b"):
        (tmp_path / own).mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.b", ".hidden", "a.csv"]


def test_a_persons_folder_with_such_a_name_stays(tmp_path: Path) -> None:
    for content in (".keys.backup_1/id", ".a.csv.personal/a.csv/b", ".a.csv.old_2026/a.csv.bak"):
        (tmp_path / content).parent.mkdir(parents=True)
        (tmp_path / content).write_text("mine")
    remove_leftovers(tmp_path)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_a_folder_is_locked_without_a_file(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(BlockingIOError), folder_lock(tmp_path, shared=True):
        pass
    with folder_lock(tmp_path, shared=True), folder_lock(tmp_path, shared=True):
        assert not list(tmp_path.iterdir())
        with pytest.raises(BlockingIOError), folder_lock(tmp_path):
            pass


def test_a_lock_is_waited_for_as_long_as_asked_for(tmp_path: Path) -> None:
    opened = ExitStack()
    opened.enter_context(folder_lock(tmp_path))
    release = threading.Timer(0.1, opened.close)
    release.start()
    with folder_lock(tmp_path, wait_s=60):
        release.join()
        with pytest.raises(BlockingIOError), folder_lock(tmp_path, wait_s=0.01):
            pass


def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("stream.files.fcntl.flock", unsupported)
    with folder_lock(tmp_path), folder_lock(tmp_path):
        assert tmp_path.is_dir()
