from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from engine.errors import ApexError, InputError
from training.pool import GivenPool, T, each, nothing, processes

ROOT = Path(__file__).resolve().parents[2]


def square(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def interrupted() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "continues"


def dies() -> None:
    os._exit(3)


def fails() -> None:
    raise InputError("no such clip")


def never_ends() -> None:
    threading.Event().wait()


def held(path: Path) -> None:
    """Take the lock of a file, tell it, and keep it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print("held", flush=True)
        never_ends()


def initialize() -> None:
    os.environ["BEGUN_IN"] = str(os.getpid())


def told_at_begin() -> bool:
    return os.environ.get("BEGUN_IN") == str(os.getpid())


class PoolHere(GivenPool):
    """Does all work in this process, last first, and notes how much it was given."""

    def __init__(self, gpus: int = 0) -> None:
        self.given: list[int] = []
        self.gpus = gpus

    def each(self, work: Sequence[Callable[[], T]]) -> Iterator[T]:
        self.given.append(len(work))
        return (task() for task in reversed(work))

    @contextmanager
    def open(self, jobs: int, tasks: int, initialize: Callable[[], None]) -> Iterator[Executor]:
        initialize()
        yield self


def test_a_pool_may_be_given_all_work_at_once() -> None:
    pool = PoolHere()
    with pool.open(1, 2, nothing) as opened:
        assert list(each(opened, [partial(square, 3), partial(square, 2)])) == [(4, os.getpid()), (9, os.getpid())]
    assert pool.given == [2]


@pytest.mark.parametrize(("jobs", "tasks", "inside"), [(1, 3, False), (2, 1, False), (2, 3, True)])
def test_all_work_is_done_once(jobs: int, tasks: int, inside: bool) -> None:
    with processes(jobs, tasks) as pool:
        found = list(each(pool, [partial(square, n) for n in range(tasks)]))
    assert sorted(value for value, _ in found) == [n**2 for n in range(tasks)]
    assert all((pid != os.getpid()) == inside for _, pid in found)
    assert not multiprocessing.active_children()


def test_every_process_is_initialized() -> None:
    with processes(2, 4, initialize) as pool:
        assert all(each(pool, [told_at_begin] * 4))


def test_an_interrupt_is_the_parents_to_handle() -> None:
    with processes(2, 2) as pool:
        assert list(each(pool, [interrupted, interrupted])) == ["continues", "continues"]


def test_a_process_that_dies_is_an_error_in_one_sentence() -> None:
    with (
        pytest.raises(ApexError, match=r"a worker process died .*; the same command with fewer --jobs continues"),
        processes(2, 2) as pool,
    ):
        list(each(pool, [dies, never_ends]))
    assert not multiprocessing.active_children()


def test_an_error_in_a_process_is_the_callers_and_ends_the_others() -> None:
    with pytest.raises(InputError, match="no such clip"), processes(2, 2) as pool:
        list(each(pool, [fails, never_ends]))
    assert not multiprocessing.active_children()


def test_leaving_early_ends_what_runs() -> None:
    with pytest.raises(KeyboardInterrupt), processes(2, 4) as pool:
        for _ in each(pool, [partial(square, 1), never_ends, never_ends, never_ends]):
            raise KeyboardInterrupt
    assert not multiprocessing.active_children()


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = (
        "from functools import partial; from pathlib import Path\n"
        "from tests.training.test_pool import held, never_ends; from training.pool import each, processes\n"
        f"if __name__ == '__main__':\n with processes(2, 2) as pool: list(each(pool, [partial(held, Path({str(lock)!r})), "
        "never_ends]))\n"
    )
    (tmp_path / "script.py").write_text(script)
    command, env = [sys.executable, str(tmp_path / "script.py")], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"held\n"
        parent.kill()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # free once the worker is gone
