"""Work of training (folds, clips) done by workers on a cluster, in place of the processes of `training.pool`."""

from __future__ import annotations

import hashlib
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import engine
import training
from apexstream.cluster.archive import SHARED, check_same, enter
from apexstream.cluster.connection import Cluster, connected
from apexstream.cluster.dispatch import Dispatch, Done, Failed, Note, divided
from apexstream.cluster.ray_process import Node, Returned, Share
from engine.errors import ApexError, BackendError, InputError
from training.pool import GivenPool, OpenPool

T = TypeVar("T")

MEMORY_BYTES = 2_000_000_000
"""What a worker on a CPU is given of a node's memory."""
GPU_MEMORY_BYTES = 4_000_000_000
"""What a worker with a GPU is given of it, beside the GPU's own."""
CPU, GPU = "cpu", "cuda"
"""The devices of workers without and with a GPU, in PyTorch's words."""
PACKAGES = ("ai-edge-litert", "dlib-bin", "numba", "numpy", "opencv-contrib-python", "torch")
"""Their versions decide results."""


class WorkRunner:
    """In a process on a node: calls what it is given. Raises InputError where the node has not what it needs, such as the file
    or folder shared, BackendError where PyTorch cannot use the GPU that the worker is given."""

    def __init__(
        self, folder: Path, versions: dict[str, str], initialize: bytes, device: str = CPU, shared: Path | None = None
    ) -> None:
        enter(folder)
        if shared is not None and not shared.exists():
            raise InputError(f"{socket.gethostname()} does not see {shared.absolute()}; {SHARED}")
        check_same(versions, _versions())
        if device != CPU:
            from training.device import choose_device

            choose_device(device)
        pickle.loads(initialize)()

    def do(self, work: Callable[[], T], again: bool) -> T:
        """The result of a piece of work; one whose worker was lost is simply repeated."""
        return work()

    def progress(self) -> None:
        """Nothing is said before the end."""


class ClusterPool(GivenPool):
    """Does work on a cluster, at most so many pieces at once (None: as many as there are workers): a piece per core, or, with
    gpus, the number of the cluster's GPUs at the beginning, a piece per GPU."""

    def __init__(
        self,
        cluster: Cluster,
        most: int | None,
        factory: Callable[[], WorkRunner],
        say: Callable[[str], None],
        gpus: int = 0,
    ) -> None:
        self._cluster, self._most, self._factory, self._say = cluster, most, factory, say
        self.gpus, self.device = gpus, GPU if gpus else CPU

    def each(self, work: Sequence[Callable[[], T]]) -> Iterator[T]:
        """The results of all work, as they are done. Raises what a piece of it raises, ApexError where one cannot be done."""
        shares = gpu_shares if self.gpus else core_shares
        for happening in Dispatch(self._cluster, work, self._factory, shares, most=self._most).run():
            if isinstance(happening, Note):
                self._say(happening.sentence)
            elif isinstance(happening, Failed):
                raise ApexError(f"{happening.sentence}; the same command continues")
            elif isinstance(happening, Done):
                if not isinstance(happening.result, Returned):
                    raise happening.result.error
                yield happening.result.value


def core_shares(node: Node) -> list[Share]:
    """A worker per core, which runs on one thread and uses no GPU."""
    return [Share(share.node, 1, share.memory) for share in divided(node, node.cpus, MEMORY_BYTES)]


def gpu_shares(node: Node) -> list[Share]:
    """A worker per GPU, among which the cores are divided; none on a node without GPUs."""
    return [replace(share, gpus=1.0) for share in divided(node, node.gpus, GPU_MEMORY_BYTES)]


def pool_of(address: str, say: Callable[[str], None], device: str = CPU, shared: Path | None = None) -> OpenPool:
    """What opens a pool on the cluster at address, in place of `training.pool.processes`; one job means as many as there are
    workers. say takes sentences on the cluster; shared is a file or folder that nodes must see to take part.

    device is auto, cpu or cuda: with auto, work is done on GPUs alone where the cluster has any, else on CPUs, so that all
    results of a run are of one kind of device. Opening raises BackendError for cuda where no node has a GPU.
    """

    @contextmanager
    def opened(jobs: int, tasks: int, initialize: Callable[[], None]) -> Iterator[GivenPool | None]:
        if not tasks:
            yield None
            return
        with connected(address) as cluster:
            gpus = 0 if device == CPU else _count_gpus(cluster.nodes, device, say)
            place = Path.cwd(), _versions(), pickle.dumps(initialize), GPU if gpus else CPU, shared
            yield ClusterPool(cluster, None if jobs == 1 else jobs, partial(WorkRunner, *place), say, gpus)

    return opened


def _count_gpus(nodes: Sequence[Node], device: str, say: Callable[[str], None]) -> int:
    counts = [len(gpu_shares(node)) for node in nodes]
    gpus = sum(counts)
    if not gpus and device == "cuda":
        raise BackendError("no node of the cluster has a GPU, and a core and 4 GB of memory for it; --device cpu needs none")
    if gpus and 0 in counts:
        say(f"the cluster's GPUs do the work ({gpus}); nodes without one take no part")
    return gpus


def _versions() -> dict[str, str]:
    """Of the packages, and a digest of the code, which may differ under one version in checkouts."""
    found = {"code": _code()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _code() -> str:
    digest = hashlib.sha256()
    for package in (engine, training):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
