from __future__ import annotations

import os
import socket
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from apexstream.cluster import connection
from apexstream.cluster.connection import connected
from apexstream.cluster.dispatch import Dispatch, Done, Note, Progressed, Started, divided
from apexstream.cluster.ray_process import Node, Returned, Share
from engine.errors import ApexError, BackendError, InputError
from tests.ray_nodes import ENVIRONMENT, LocalNodes


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


def test_a_node_that_is_killed_has_its_item_done_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    gate, happened, busy = tmp_path / "gate", [], {}
    os.mkfifo(gate)
    with LocalNodes() as nodes:
        nodes.start(1)
        second = nodes.start(1)
        with connected(nodes.address) as cluster:
            assert not cluster.started
            opened = threading.Thread(target=gate.write_text, args=("",))
            for happening in Dispatch(cluster, [10, 20], partial(Held, gate), one_each).run():
                happened.append(happening)
                if isinstance(happening, Progressed) and happening.item not in busy:
                    busy[happening.item] = happening.value
                    if len(busy) == 2:
                        nodes.kill(second)
                        opened.start()
            opened.join()
    assert not psutil.pid_exists(busy[0]) and not psutil.pid_exists(busy[1])
    found = [one.result.value for one in happened if isinstance(one, Done) and isinstance(one.result, Returned)]
    assert sorted(again for _, again in found) == [False, True] and {item for item, _ in found} == {10, 20}
    assert any(isinstance(one, Note) and "the node is gone" in one.sentence for one in happened)
    assert len([one for one in happened if isinstance(one, Started)]) == 3


@pytest.mark.parametrize("address", ["host", "host:", "ray://host:1", "host:70000", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"auto or HOST:PORT of its head is expected"), connected(address):
        pass


def test_a_port_at_which_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ApexError, match=rf"no cluster answers at {address} \(connection refused\)"), connected(address):
            pass
        assert time.monotonic() - started < 2


def test_a_name_that_is_searched_for_long_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(connection, "LOOK_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [ended.wait()][1:])
    monkeypatch.setenv("RAY_ADDRESS", "head.example:6379")
    with pytest.raises(ApexError, match=r"no cluster answers at head.example:6379 \(timed out\)"), connected("auto"):
        pass
    ended.set()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'apexstream\[ray\]'"), connected("auto"):
        pass
