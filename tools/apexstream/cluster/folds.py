"""Work of training (folds, clips) done by workers on a cluster, in place of the processes of `training.pool`."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from apexstream.cluster.archive import check_same, enter
from apexstream.cluster.connection import Cluster, connected
from apexstream.cluster.dispatch import Dispatch, Done, Failed, Note, divided
from apexstream.cluster.ray_process import Node, Returned, Share
from engine.errors import ApexError
from training.pool import GivenPool, OpenPool

T = TypeVar("T")

MEMORY_BYTES = 2_000_000_000
"""What a worker is given of a node's memory."""
PACKAGES = ("apexstream", "numpy", "torch")
"""Their versions decide results."""


class WorkRunner:
    """In a process on a node: calls what it is given. Raises InputError where the node has not what it needs."""

    def __init__(self, folder: Path, versions: dict[str, str], initialize: bytes) -> None:
        enter(folder)
        check_same(versions, _versions())
        pickle.loads(initialize)()

    def do(self, work: Callable[[], T], again: bool) -> T:
        """The result of a piece of work; one whose worker was lost is simply repeated."""
        return work()

    def progress(self) -> None:
        """Nothing is said before the end."""


class ClusterPool(GivenPool):
    """Does work on all nodes of a cluster, one piece per core, at most so many at once (None: as many as there are cores)."""

    def __init__(self, cluster: Cluster, most: int | None, initialize: Callable[[], None], say: Callable[[str], None]) -> None:
        self._cluster, self._most, self._initialize, self._say = cluster, most, initialize, say

    def each(self, work: Sequence[Callable[[], T]]) -> Iterator[T]:
        """The results of all work, as they are done. Raises what a piece of it raises, ApexError where one cannot be done."""
        factory = partial(WorkRunner, Path.cwd(), _versions(), pickle.dumps(self._initialize))
        for happening in Dispatch(self._cluster, work, factory, core_shares, most=self._most).run():
            if isinstance(happening, Note):
                self._say(happening.sentence)
            elif isinstance(happening, Failed):
                raise ApexError(f"{happening.sentence} (short of memory?); the same command continues")
            elif isinstance(happening, Done):
                if not isinstance(happening.result, Returned):
                    raise happening.result.error
                yield happening.result.value


def core_shares(node: Node) -> list[Share]:
    """A worker per core; work of training that is spread runs on one thread and uses no GPU."""
    return [Share(share.node, 1, share.memory) for share in divided(node, node.cpus, MEMORY_BYTES)]


def pool_of(address: str, say: Callable[[str], None]) -> OpenPool:
    """What opens a pool on the cluster at address, in place of `training.pool.processes`; one job means as many as there are
    cores. say takes sentences on the cluster."""

    @contextmanager
    def opened(jobs: int, tasks: int, initialize: Callable[[], None]) -> Iterator[GivenPool | None]:
        if not tasks:
            yield None
            return
        with connected(address) as cluster:
            yield ClusterPool(cluster, None if jobs == 1 else jobs, initialize, say)

    return opened


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
