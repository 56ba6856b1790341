from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from apexstream.cluster import folds
from apexstream.cluster.connection import Cluster
from apexstream.cluster.dispatch import Done, Failed, Happening, Note
from apexstream.cluster.folds import ClusterPool, WorkRunner, core_shares, pool_of
from apexstream.cluster.ray_process import Node, Raised, Returned
from engine.errors import ApexError, InputError
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
    with pytest.raises(InputError, match=r"has no folder .*none; what is read and written must be in folders that all nodes"):
        runner(tmp_path / "none")


class ScriptedDispatch:
    """In place of the cluster: what a test says happens."""

    happenings: tuple[Happening, ...] = ()
    most: object = None

    def __init__(self, cluster: Cluster, items: Sequence[object], factory: object, shares: object, *, most: int | None) -> None:
        ScriptedDispatch.most = most

    def run(self) -> Iterator[Happening]:
        yield from self.happenings


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
    with pytest.raises(ApexError, match=r"it ended .short of memory"):
        results(monkeypatch, Failed(0, "it ended"))


def test_no_work_needs_no_cluster() -> None:
    with pool_of("nowhere", pytest.fail)(1, 0, lambda: None) as pool:
        assert pool is None


def test_a_worker_per_core_without_gpu() -> None:
    found = core_shares(Node("k", "n", 3, 64_000_000_000, 1))
    assert [(share.cpus, share.gpus) for share in found] == [(1, 0.0)] * 3
    assert len(core_shares(Node("k", "n", 8, 2 * folds.MEMORY_BYTES, 0))) == 2


def test_a_pool_is_given_all_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterPool, "each", lambda self, work: iter([len(work)]))
    assert list(each(ClusterPool(cast(Cluster, None), None, lambda: None, print), [os.getpid] * 3)) == [3]
