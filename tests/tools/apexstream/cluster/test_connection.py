"""The connection with a real cluster on this machine, and what folds and clips come to by it; what needs no cluster."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import Pipe
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from apexstream.cluster import connection, folds
from apexstream.cluster.connection import Cluster, connected
from apexstream.cluster.dispatch import Dispatch, Done, Note, Progressed, Started, divided
from apexstream.cluster.folds import pool_of
from apexstream.cluster.ray_process import Connected, Node, Returned, Share
from engine.errors import ApexError, BackendError, InputError
from tests.databases import write_casme3
from tests.flowmaps import write_dataset
from tests.ray_nodes import ENVIRONMENT, LocalNodes
from tests.soak.cluster import differences
from tests.training.test_loso import TINY, StoppedError
from training.datasets import FlowMaps, htnet_3db
from training.datasets.databases import DATABASES
from training.datasets.prepare import prepare
from training.device import CPU
from training.loso import evaluate
from training.pool import GivenPool, each, nothing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))


def stop() -> NoReturn:
    raise StoppedError


def recorded(path: Path) -> list[str]:
    """The lines of a record without the time that each fold took, in one order."""
    return sorted(re.sub('"seconds": [0-9.]+', "", line) for line in path.read_text().splitlines())


class Held:
    """Names the process that does an item; what is done for the first time waits until the test opens the gate."""

    def __init__(self, gate: Path) -> None:
        self._gate = gate

    def do(self, item: int, again: bool) -> tuple[int, bool]:
        if not again:
            (self._gate.parent / f"item{item}").write_text(str(os.getpid()))
            with self._gate.open():
                pass
        return item, again

    def progress(self) -> int:
        return os.getpid()

    def stop(self) -> None:
        raise AssertionError("nobody asks for it")


def one_each(node: Node) -> list[Share]:
    return divided(node, 1, 1_000_000)


@dataclass
class Running:
    """A head and a second node with a core each; the second declares a GPU, and finds packages in the folder packages first."""

    nodes: LocalNodes
    second: subprocess.Popen[bytes]
    packages: Path

    @property
    def address(self) -> str:
        return self.nodes.address


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One cluster for all tests here: those that do not kill its second node come first."""
    packages = tmp_path_factory.mktemp("packages")
    paths = os.pathsep.join([str(packages), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    with pytest.MonkeyPatch.context() as patch, LocalNodes() as nodes:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        nodes.start(1)
        yield Running(nodes, nodes.start(1, gpus=1, PYTHONPATH=paths), packages)


def test_a_worker_with_a_gpu_sees_that_alone(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "GPU", "cpu")
    said, seen = list[str](), partial(os.getenv, "CUDA_VISIBLE_DEVICES")
    with pool_of(running.address, said.append, "auto")(1, 2, nothing) as pool:
        assert isinstance(pool, GivenPool) and pool.gpus == 1
        assert list(each(pool, [seen, seen])) == ["0", "0"]
    assert said == ["the cluster's GPUs do the work (1); nodes without one take no part"]


@pytest.fixture(scope="module")
def cluster(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One connection for all tests from here on."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setattr("tempfile.tempdir", str(folder))
        with connected(running.address) as cluster:
            assert not cluster.started
            assert not list(folder.iterdir()), "as nothing removes it where the command is ended at once"
            yield cluster


@pytest.fixture
def head(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address at which that connection is."""
    monkeypatch.setattr(folds, "connected", {"head": nullcontext(cluster)}.__getitem__)
    return "head"


def test_folds_on_a_node_with_a_gpu_are_those_of_stacks(
    head: str, data: FlowMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "GPU", "cpu")
    one, other, said = tmp_path / "gpu" / "folds.jsonl", tmp_path / "alone" / "folds.jsonl", list[str]()
    evaluate(TINY, data, one, open_pool=pool_of(head, said.append, "cuda"))
    evaluate(TINY, data, other, stacked_on=CPU)
    assert recorded(one) == recorded(other) and len(said) == 1


def test_a_node_of_another_version_is_refused(running: Running, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only one that can do the work, as it has a GPU."""
    monkeypatch.setattr(folds, "GPU", "cpu")
    other, said = running.packages / "apexstream-9.9.9.dist-info", list[str]()
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: apexstream\nVersion: 9.9.9\n")
    differs = f": apexstream 9.9.9 is installed there and {version('apexstream')} here; all nodes need the same"
    with pool_of(head, said.append, "cuda")(1, 2, nothing) as pool, pytest.raises(ApexError, match=differs):
        list(each(pool, [os.getpid]))
    shutil.rmtree(other)
    assert said[1].endswith(f"{differs}; the node takes no part")


def test_clips_of_a_stopped_run_are_those_of_one_machine(head: str, tmp_path: Path) -> None:
    source, said = write_casme3(tmp_path / "source"), list[str]()
    make = partial(prepare, DATABASES["casme3"], source)
    on_cluster = partial(make, tmp_path / "cluster", open_pool=pool_of(head, said.append))
    with pytest.raises(StoppedError):
        on_cluster(progress=lambda done, total, newest: stop() if done == 1 else None)
    counts = list[int]()
    on_cluster(progress=lambda done, total, newest: counts.append(done))
    make(tmp_path / "alone")
    assert counts == [1, 2, 3] and not said
    assert not differences(tmp_path / "alone", tmp_path / "cluster")


def test_folds_of_a_killed_node_are_those_of_one_machine(running: Running, head: str, data: FlowMaps, tmp_path: Path) -> None:
    one, other = tmp_path / "cluster" / "folds.jsonl", tmp_path / "alone" / "folds.jsonl"

    def kill(what: str, done: int, total: int) -> None:
        if done == 1:
            running.nodes.kill(running.second)

    evaluate(TINY, data, one, open_pool=pool_of(head, print), progress=kill)
    evaluate(TINY, data, other)
    assert recorded(one) == recorded(other)


def test_a_node_that_is_killed_has_its_item_done_by_another(running: Running, cluster: Cluster, tmp_path: Path) -> None:
    gate, happened, busy = tmp_path / "gate", [], dict[int, psutil.Process]()
    os.mkfifo(gate)
    if running.second.poll() is not None:  # killed by the test before
        running.second = running.nodes.start(1)
    opened = threading.Thread(target=gate.write_text, args=("",))
    for happening in Dispatch(cluster, [10, 20], partial(Held, gate), one_each).run():
        happened.append(happening)
        if isinstance(happening, Progressed) and happening.item not in busy:
            busy[happening.item] = psutil.Process(happening.value)
            if len(busy) == 2:
                running.nodes.kill(running.second)
                opened.start()
    opened.join()
    assert not psutil.wait_procs(busy.values(), timeout=20)[1]
    found = [one.result.value for one in happened if isinstance(one, Done) and isinstance(one.result, Returned)]
    assert sorted(again for _, again in found) == [False, True] and {item for item, _ in found} == {10, 20}
    assert any(isinstance(one, Note) and "the node is gone" in one.sentence for one in happened)
    assert len([one for one in happened if isinstance(one, Started)]) == 3


RAYS = {
    "raise ImportError('libray.so is missing')": "there is no connection to a cluster at local: libray.so is missing",
    "import os; os.write(2, b'one\\nCheck failed: a\\n'); os._exit(1)": "to the cluster at local ended: Check failed: a$",
    "import os; os._exit(1)": "to the cluster at local ended$",
    "import os; os.write(1, b'RPC error: InvalidAuthToken'); os._exit(1)": "the cluster at local wants its token",
    "import signal as s; raise ImportError(f'{s.pthread_sigmask(s.SIG_BLOCK, [])} {s.getsignal(s.SIGTERM)!r}')": (
        r"set\(\) <Handlers.SIG_DFL"
    ),
}
"""What may be installed as Ray, and what is said then."""


@pytest.mark.parametrize("code", RAYS)
def test_why_the_process_that_connects_ended_is_said(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ApexError, match=RAYS[code]), connected("local"):
        pass


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("auto", "the cluster to which this machine belongs does not answer; start its head again, or .* .ray stop"),
        ("local", "Ray does not start on this machine within 0 s"),
    ],
)
def test_a_cluster_that_is_waited_for_in_vain_is_said(
    address: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a head that was killed, which Ray goes on to look for."""
    (tmp_path / "ray.py").write_text("import threading\ndef init(**options): threading.Event().wait()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for limit in ("CONNECT_S", "START_S"):
        monkeypatch.setattr(connection, limit, 0.1)
    with pytest.raises(ApexError, match=sentence), connected(address):
        pass


def test_a_ctrl_c_does_not_end_the_process_that_connects_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: SpawnProcess) -> NoReturn:
        raise ApexError(str(signal.pthread_sigmask(signal.SIG_BLOCK, [])))

    monkeypatch.setattr(SpawnProcess, "start", start)
    with pytest.raises(ApexError, match="SIGINT"), connected("local"):
        pass


@pytest.mark.parametrize("address", ["host", "host:", "ray://host:1", "host:70000", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"auto or HOST:PORT of its head is expected"), connected(address):
        pass


def test_a_port_at_which_nothing_listens_is_not_waited_for() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ApexError, match=rf"no cluster answers at {address} \(connection refused\)"), connected(address):
            pass


def test_what_can_be_no_name_of_a_host_is_refused_at_once() -> None:
    with pytest.raises(ApexError, match=r"no cluster answers at a..b:1 \(no name of a host\)"), connected("a..b:1"):
        pass


def test_a_name_that_is_searched_for_long_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(connection, "LOOK_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [ended.wait()][1:])
    monkeypatch.setenv("RAY_ADDRESS", "head.example:6379")
    with pytest.raises(ApexError, match=r"no cluster answers at head.example:6379 \(timed out\)"), connected("auto"):
        pass
    ended.set()


def test_ending_workers_of_a_connection_that_has_ended_is_no_error() -> None:
    """As a generator may do it that is closed late."""
    pipe, other = Pipe()
    cluster = Cluster(pipe, Connected(False, ()))
    pipe.close()
    cluster.kill(1)
    with pytest.raises(ApexError, match="the connection to the cluster was lost"):
        cluster.call(1, "do")
    other.close()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'apexstream\[ray\]'"), connected("auto"):
        pass
