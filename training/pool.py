"""Work in several processes at once. They end with the process that started them, and when it stops early."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from engine.errors import ApexError

T = TypeVar("T")


def _nothing() -> None:
    pass


@contextmanager
def processes(jobs: int, tasks: int, begin: Callable[[], None] = _nothing) -> Iterator[Executor | None]:
    """Processes for jobs of so many tasks at once, or None where one after the other will do.

    begin is called in each of them first. Where the block is left by an exception (Ctrl-C too), what waits is dropped and what
    runs is ended. Raises ApexError where a process dies.
    """
    if jobs == 1 or tasks < 2:
        yield None
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, tasks), multiprocessing.get_context("spawn"), _start, (begin,))
    try:
        yield pool
    except BaseException as cause:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            while process.is_alive():  # a join alone may return while the executor's thread is taking the exit status itself
                process.join(0.05)
        if isinstance(cause, BrokenProcessPool):
            raise ApexError("a worker process died (short of memory?); the same command with fewer --jobs goes on") from cause
        raise
    else:
        pool.shutdown()


def each(pool: Executor | None, work: Sequence[Callable[[], T]]) -> Iterator[T]:
    """The results of all work, as they come; in this process, one after the other, without a pool."""
    if pool is None:
        for task in work:
            yield task()
        return
    futures = [pool.submit(task) for task in work]
    pool.submit(_nothing)  # the executor looks for its processes when work comes, just before it starts one more
    for future in as_completed(futures):
        yield future.result()


def _start(begin: Callable[[], None]) -> None:
    """Interrupts are the parent's to handle, and a worker ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    begin()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
