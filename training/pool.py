"""Work in several processes. They end with the process that started them, and when it stops early."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from engine.errors import ApexError

T = TypeVar("T")


class GivenPool(Executor):
    """A pool that is given all work at once.

    gpus is how many workers have a GPU each, which their work is to use; 0 where it is to use CPUs. device is theirs, in
    PyTorch's words.
    """

    gpus = 0
    device = "cpu"

    @abstractmethod
    def each(self, work: Sequence[Callable[[], T]]) -> Iterator[T]:
        """The results of all work, as they are done."""


OpenPool = Callable[[int, int, Callable[[], None]], AbstractContextManager[Executor | None]]
"""`processes`, or what takes its place on several machines."""


def nothing() -> None:
    """What a process does first that needs no preparation."""


@contextmanager
def processes(jobs: int, tasks: int, initialize: Callable[[], None] = nothing) -> Iterator[Executor | None]:
    """A pool of at most jobs worker processes, or None where one job or one task needs none.

    initialize is called first in each of them. If the block is left by an exception (also Ctrl-C), waiting tasks are dropped
    and running ones terminated. Raises ApexError where a process dies.
    """
    if jobs == 1 or tasks < 2:
        yield None
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, tasks), multiprocessing.get_context("spawn"), _start, (initialize,))
    try:
        yield pool
    except BaseException as cause:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            while process.is_alive():  # a join alone may return while the executor's thread is taking the exit status itself
                process.join(0.05)
        if isinstance(cause, BrokenProcessPool):
            raise ApexError("a worker process died (short of memory?); the same command with fewer --jobs continues") from cause
        raise
    else:
        pool.shutdown()


def each(pool: Executor | None, work: Sequence[Callable[[], T]]) -> Iterator[T]:
    """The results of all work, as they are done; without a pool in this process, one after the other."""
    if pool is None:
        for task in work:
            yield task()
        return
    if isinstance(pool, GivenPool):
        yield from pool.each(work)
        return
    futures = [pool.submit(task) for task in work]
    pool.submit(nothing)  # makes the executor check its processes and start one more
    for future in as_completed(futures):
        yield future.result()


def _start(initialize: Callable[[], None]) -> None:
    """In a worker process: the parent handles interrupts, and the worker ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    initialize()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
