from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import engine
from apexstream.cluster import folds
from apexstream.cluster.connection import Cluster
from apexstream.cluster.dispatch import Done, Failed, Happening, Note
from apexstream.cluster.folds import ClusterPool, WorkRunner, core_shares, gpu_shares, pool_of
from apexstream.cluster.ray_process import Node, Raised, Returned
from engine.errors import ApexError, BackendError, InputError
from training.pool import each, nothing


def runner(folder: Path, initialize: Callable[[], object] = os.getpid, **other: str) -> WorkRunner:
    return WorkRunner(folder, {**folds._versions(), **other}, pickle.dumps(initialize))


def test_work_is_done_in_the_folder_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").mkdir()
    one = runner(tmp_path / "maps", partial(os.putenv, "X", "1"))
    assert one.do(os.getcwd, False) == str(tmp_path / "maps") and one.progress() is None
    with pytest.raises(InputError, match=r"torch was 0.1 and is "):
        runner(tmp_path, torch="0.1")
    changed = tmp_path / "changed"
    changed.mkdir()
    with monkeypatch.context() as patched, pytest.raises(InputError, match=r"code was [0-9a-f]{12} and is [0-9a-f]{12}\)"):
        versions = folds._versions()
        (changed / "one.py").write_text("")
        patched.setattr(engine, "__path__", [str(changed)])
        WorkRunner(tmp_path, versions, pickle.dumps(os.getpid))
    with pytest.raises(InputError, match=r"has no folder .*none; what is read and written must be in folders that all nodes"):
        runner(tmp_path / "none")


def test_a_node_that_does_not_see_the_data_takes_no_part(tmp_path: Path) -> None:
    """Its clips would be left out for want of their pictures."""
    given = tmp_path, folds._versions(), pickle.dumps(os.getpid), folds.CPU
    WorkRunner(*given, tmp_path)
    with pytest.raises(InputError, match=rf"does not see {tmp_path / 'data'}; what is read and written must be"):
        WorkRunner(*given, tmp_path / "data")


class ScriptedDispatch:
    """In place of the cluster: what a test says happens."""

    happenings: tuple[Happening, ...] = ()
    most: object = None

    def __init__(self, cluster: Cluster, items: Sequence[object], factory: object, shares: object, *, most: int | None) -> None:
        ScriptedDispatch.most = most

    def run(self) -> Iterator[Happening]:
        yield from self.happenings


def opened(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: tuple[int, ...], said: list[str]
) -> AbstractContextManager[Executor | None]:
    """A pool on a cluster of nodes with so many GPUs."""
    nodes = tuple(Node(f"n{number}", f"host{number}", 4, 64_000_000_000, count) for number, count in enumerate(gpus))
    monkeypatch.setattr(folds, "connected", lambda address: nullcontext(SimpleNamespace(nodes=nodes)))
    return pool_of("head:1", said.append, device)(1, 2, nothing)


def results(monkeypatch: pytest.MonkeyPatch, *happenings: Happening, jobs: int = 1) -> tuple[list[object], list[str]]:
    @contextmanager
    def connected(address: str) -> Iterator[Cluster]:
        yield cast(Cluster, address)

    monkeypatch.setattr(folds, "connected", connected)
    monkeypatch.setattr(folds, "Dispatch", ScriptedDispatch)
    monkeypatch.setattr(ScriptedDispatch, "happenings", happenings)
    said = list[str]()
    with pool_of("head:1", said.append)(jobs, 2, nothing) as pool:
        return list(each(pool, [os.getpid, os.getpid])), said


def test_results_come_as_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (Note("a node is gone"), Done(1, Returned("b")), Done(0, Returned("a")))
    assert results(monkeypatch, *script) == (["b", "a"], ["a node is gone"])
    assert ScriptedDispatch.most is None
    results(monkeypatch, jobs=3)
    assert ScriptedDispatch.most == 3


def test_errors_of_work_and_of_workers_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such clip"):
        results(monkeypatch, Done(0, Raised(InputError("no such clip"))))
    with pytest.raises(ApexError, match="it ended; the same command continues"):
        results(monkeypatch, Failed(0, "it ended"))


def test_no_work_needs_no_cluster() -> None:
    with pool_of("nowhere", pytest.fail)(1, 0, lambda: None) as pool:
        assert pool is None


def test_a_worker_per_core_without_gpu() -> None:
    found = core_shares(Node("k", "n", 3, 64_000_000_000, 1))
    assert [(share.cpus, share.gpus) for share in found] == [(1, 0.0)] * 3
    assert len(core_shares(Node("k", "n", 8, 2 * folds.MEMORY_BYTES, 0))) == 2


def test_a_worker_per_gpu_with_its_part_of_the_cores() -> None:
    found = gpu_shares(Node("k", "n", 5, 64_000_000_000, 2))
    assert [(share.cpus, share.gpus) for share in found] == [(3, 1.0), (2, 1.0)]
    assert len(gpu_shares(Node("k", "n", 8, folds.GPU_MEMORY_BYTES, 2))) == 1
    assert not gpu_shares(Node("k", "n", 8, 64_000_000_000, 0))


@pytest.mark.parametrize(
    ("device", "gpus", "found", "sentences"),
    [
        ("auto", (0, 2), (2, "cuda"), ["the cluster's GPUs do the work (2); nodes without one take no part"]),
        ("cuda", (1, 1), (2, "cuda"), []),
        ("auto", (0, 0), (0, "cpu"), []),
        ("cpu", (0, 2), (0, "cpu"), []),
    ],
)
def test_gpus_do_the_work_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: tuple[int, ...], found: tuple[int, str], sentences: list[str]
) -> None:
    said = list[str]()
    with opened(monkeypatch, device, gpus, said) as pool:
        assert isinstance(pool, ClusterPool) and (pool.gpus, pool.device) == found and said == sentences


def test_a_cluster_without_gpus_is_refused_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="no node of the cluster has a GPU"), opened(monkeypatch, "cuda", (0, 0), []):
        pass


def test_a_node_whose_gpu_cannot_be_used_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.device._refusal", lambda: "PyTorch sees no NVIDIA GPU")
    with pytest.raises(BackendError, match="no GPU can be used: PyTorch sees no NVIDIA GPU; --device cpu works"):
        WorkRunner(tmp_path, folds._versions(), pickle.dumps(os.getpid), folds.GPU)


def test_a_pool_is_given_all_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterPool, "each", lambda self, work: iter([len(work)]))
    assert list(each(ClusterPool(cast(Cluster, None), None, partial(runner, Path()), print), [os.getpid] * 3)) == [3]
