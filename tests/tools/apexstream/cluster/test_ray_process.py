from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future
from itertools import islice
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from apexstream.cluster import ray_process
from apexstream.cluster.ray_process import (
    Answer,
    Call,
    Kill,
    Nodes,
    Raised,
    Returned,
    Starting,
    Worker,
    _connect,
    _Orders,
    _reason,
    _refusal,
    installed,
    wants_token,
)
from engine.errors import InputError

MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.1
This process on node 10.0.0.7 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


def failed(cause: Exception) -> Exception:
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (RuntimeError(MISMATCH), "runs Ray 2.59.0 on Python 3.12.1, this machine Ray 2.60.0 on Python 3.11.7"),
        (
            RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing"),
            "wants its token; .*AUTH_MODE=token",
        ),
        (RuntimeError("no local\n raylet"), "no connection to a cluster at head:1: Failed to connect to Ray cluster"),
    ],
)
def test_what_ray_says_becomes_a_sentence(cause: Exception, sentence: str) -> None:
    import re

    found = _refusal(failed(cause), "head:1")
    assert re.search(sentence, found) and "\n" not in found


def test_a_missing_token_is_seen_in_what_ray_printed(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("W gcs_client.cc:210: RPC error: InvalidAuthToken: Authentication token is missing or incorrect")
    assert wants_token(output)
    output.write_text("W gcs_client.cc:210: TimedOut")
    assert not wants_token(output)


TRACEBACK = """The actor died because of an error in its creation task, \x1b[36mray::Worker.__init__()\x1b[39m (pid=7)
           ^^^^^^^^^^^^^^^^^^^^
RuntimeError: The actor with name Worker failed to import: \x1b[36mray::Worker.__init__()\x1b[39m (pid=7)
           ^^^^^^^^^^^^^^^^^^^^
ModuleNotFoundError: No module named 'apexstream'
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TRACEBACK, "ModuleNotFoundError: No module named 'apexstream'"),
        (
            "The actor died unexpectedly.\n\tclass_name: Worker\n\tpid: 7\n",
            "The actor died unexpectedly. class_name: Worker pid: 7",
        ),
        ("", "RuntimeError"),
    ],
)
def test_why_a_worker_is_lost_is_one_line(text: str, reason: str) -> None:
    assert _reason(RuntimeError(text)) == reason


class Summing:
    def add(self, one: int, other: int) -> int:
        return one + other

    def fail(self) -> None:
        raise InputError("no such clip")

    def fail_badly(self) -> None:
        error: Any = OSError("no lock")
        error.held = threading.Lock()
        raise error


def test_a_worker_calls_methods_and_sends_values_and_errors() -> None:
    worker = Worker()
    assert pickle.loads(worker.begin(installed(), pickle.dumps(Summing))) == Returned(None)
    assert pickle.loads(worker.call("add", pickle.dumps((1, 2)))) == Returned(3)
    raised = pickle.loads(worker.call("fail", pickle.dumps(())))
    assert isinstance(raised, Raised) and isinstance(raised.error, InputError) and str(raised.error) == "no such clip"
    unsendable = pickle.loads(worker.call("fail_badly", pickle.dumps(())))
    assert isinstance(unsendable, Raised) and str(unsendable.error) == "OSError: no lock"


def test_a_factory_that_fails_is_answered() -> None:
    answer = pickle.loads(Worker().begin(installed(), b"no pickle"))
    assert isinstance(answer, Raised)


@pytest.mark.parametrize(
    ("version", "factory", "sentence"),
    [
        ("0.0.1", b"", f"apexstream {installed()} is installed there and 0.0.1 here; all nodes need the same"),
        (
            installed(),
            pickle.dumps(Summing).replace(b"Summing", b"Dividin"),
            "other code is installed there (Can't get attribute 'Dividin' on ",
        ),
        (
            installed(),
            b"cnowhere\nWorker\n.",
            "other code is installed there (No module named 'nowhere'); all nodes",
        ),
    ],
)
def test_a_node_with_another_version_or_other_code_says_so(version: str, factory: bytes, sentence: str) -> None:
    answer = pickle.loads(Worker().begin(version, factory))
    assert isinstance(answer, Raised) and isinstance(answer.error, InputError) and str(answer.error).startswith(sentence)


class BusyRay:
    """In place of Ray, for a command that gives an order after the other."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self.workers = pipe, {1: "worker"}

    def nodes(self) -> list[dict[str, Any]]:
        return []

    def kill(self, worker: str) -> None:
        self.workers[1] = worker
        self._pipe.send(Kill(1))


def test_nodes_are_reported_while_orders_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_process, "TICK_S", 0.05)
    command, pipe = Pipe()
    ray = BusyRay(command)
    orders = _Orders(ray, pipe)
    monkeypatch.setattr(orders, "_workers", ray.workers)
    ends = pytest.raises((EOFError, OSError))

    def take() -> None:
        with ends:
            orders.take()

    taking = threading.Thread(target=take)
    taking.start()
    command.send(Kill(1))
    reported = [command.recv() if command.poll(5) else None for _ in range(3)]
    command.close()
    taking.join()
    assert reported == [Nodes(())] * 3


LARGE = bytes(1_000_000)


class LargeAnswers:
    """In place of Ray and a worker of it: every call has a large answer at once."""

    def __init__(self) -> None:
        self.call, self.answer = self, Future[bytes]()
        self.answer.set_result(LARGE)

    def nodes(self) -> list[dict[str, Any]]:
        return []

    def remote(self, method: str, arguments: bytes) -> LargeAnswers:
        return self

    def future(self) -> Future[bytes]:
        return self.answer


def test_orders_are_taken_while_the_command_reads_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both may be larger than what a pipe holds."""
    command, pipe = Pipe()
    orders = _Orders(LargeAnswers(), pipe)
    monkeypatch.setattr(orders, "_workers", {1: LargeAnswers()})

    def take() -> None:
        with pytest.raises((EOFError, OSError)):
            orders.take()

    def order() -> None:
        for number in range(1, 4):
            command.send(Call(number, 1, "do", LARGE))

    taking, ordering = threading.Thread(target=take, daemon=True), threading.Thread(target=order, daemon=True)
    taking.start()
    ordering.start()
    ordering.join(20)
    assert not ordering.is_alive()
    answers = (message.number for message in iter(command.recv, None) if isinstance(message, Answer))
    answered = list(islice(answers, 3))
    command.close()
    taking.join()
    assert answered == [1, 2, 3]


class NoCluster:
    """In place of Ray on a machine that belongs to no cluster."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []

    def init(self, address: str, **options: Any) -> None:
        if address != "local":
            raise ConnectionError("none")
        self.started.append(options)


@pytest.mark.parametrize("address", ["auto", "local"])
def test_a_cluster_is_started_where_there_is_none_or_a_new_one_is_asked_for(address: str) -> None:
    (command, pipe), ray = Pipe(), NoCluster()
    assert _connect(ray, address, 3, pipe)
    assert command.recv() == Starting() and ray.started[0]["num_cpus"] == 3
    with pytest.raises(ConnectionError):
        _connect(ray, "head:1", 3, pipe)
