"""The process that is connected to Ray: orders come in by a pipe, answers and the state of the nodes go out.

A process of its own, as Ray writes to the output of the process that is connected, may wait a minute for an address, and ends
the process when the connection is lost. This is the only module that imports ray.
"""

from __future__ import annotations

import os
import pickle
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import InputError
from stream.shutdown import SHUTDOWN_SIGNALS

TICK_S = 1.0
"""How often the state of the nodes is reported, seconds."""
OBJECT_STORE_BYTES = 100_000_000
"""Ray's shared memory on a cluster that is started here: only orders and answers pass through it."""
AUTO, LOCAL = "auto", "local"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: what it offers in cores, bytes of memory and GPUs."""

    key: str
    name: str
    cpus: int
    memory: int
    gpus: int


@dataclass(frozen=True)
class Share:
    """What a worker takes of a node: whole cores, bytes of memory, and a GPU, several or a part of one."""

    node: Node
    cpus: int
    memory: int
    gpus: float = 0.0


@dataclass(frozen=True)
class Start:
    """Order: start a worker; factory is the pickled callable that makes the object whose methods are called."""

    worker: int
    share: Share
    factory: bytes


@dataclass(frozen=True)
class Call:
    """Order: call a method of a worker's object, with pickled arguments; a worker runs several calls at once."""

    number: int
    worker: int
    method: str
    arguments: bytes


@dataclass(frozen=True)
class Kill:
    """Order: end a worker at once."""

    worker: int


@dataclass(frozen=True)
class Imported:
    """Ray is loaded; connecting begins."""


@dataclass(frozen=True)
class Starting:
    """No cluster runs on this machine: one is being started."""


@dataclass(frozen=True)
class Connected:
    """Orders are taken from now on. started: the cluster was started here, and ends with the connection. alive: its nodes."""

    started: bool
    alive: tuple[Node, ...]


@dataclass(frozen=True)
class Refused:
    """There is no connection, for the reason in a sentence."""

    sentence: str


@dataclass(frozen=True)
class Nodes:
    """The nodes that are there now."""

    alive: tuple[Node, ...]


@dataclass(frozen=True)
class Answer:
    """What a call came to: a pickled `Returned` or `Raised`. The call of a start has the number of its worker, negated."""

    number: int
    content: bytes


@dataclass(frozen=True)
class Lost:
    """A call has no answer, as its worker's process ended or its node is gone."""

    number: int
    reason: str


@dataclass(frozen=True)
class Returned:
    """The value of a call."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """The error of a call."""

    error: Exception


Order = Start | Call | Kill
Message = Imported | Starting | Connected | Refused | Nodes | Answer | Lost


class Worker:
    """What runs on a node: makes an object and calls its methods."""

    def __init__(self) -> None:
        self._object: Any = None

    def begin(self, version: str, factory: bytes) -> bytes:
        """Make the object, where apexstream is of the version; InputError is answered where it is not."""

        def make() -> None:
            here = installed()
            if here != version:
                raise InputError(f"apexstream {here} is installed there and {version} here; all nodes need the same")
            try:
                made = pickle.loads(factory)
            except (AttributeError, ImportError) as error:
                raise InputError(f"other code is installed there ({error}); all nodes need the same") from None
            self._object = made()

        return _answered(make)

    def call(self, method: str, arguments: bytes) -> bytes:
        """Call a method of the object."""
        return _answered(lambda: getattr(self._object, method)(*pickle.loads(arguments)))


def installed() -> str:
    """The version of apexstream here."""
    try:
        return metadata.version("apexstream")
    except metadata.PackageNotFoundError:
        return "without a version"


def _answered(work: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps(Returned(work()))
    except Exception as error:  # noqa: BLE001 - raised again where the call came from
        try:
            content = pickle.dumps(Raised(error))
            pickle.loads(content)
            return content
        except Exception:  # noqa: BLE001 - an error that cannot be sent
            return pickle.dumps(Raised(RuntimeError(f"{type(error).__name__}: {error}")))


def run(pipe: Connection[Any, Any], address: str, cores: int, output: str) -> None:
    """The code of the process: connect to address, then take orders until the pipe closes.

    address is HOST:PORT of a cluster's head, LOCAL for a cluster that is started here with so many cores, or AUTO: that of this
    machine, else one that is started. What Ray prints goes to the file output.
    """
    _separate(output)
    with suppress(EOFError, OSError):  # the command has ended
        try:
            import ray

            pipe.send(Imported())
            started = _connect(ray, address, cores, pipe)
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds; the sentence goes to the user
            pipe.send(Refused(_refusal(error, address)))
            return
        try:
            orders = _Orders(ray, pipe)
            pipe.send(Connected(started, tuple(orders.nodes())))
            orders.take()
        finally:
            ray.shutdown()


def _separate(output: str) -> None:
    """Neither the terminal's signals nor its output are this process's and Ray's; the command decides when they end."""
    if hasattr(os, "setsid"):
        os.setsid()
        for number in SHUTDOWN_SIGNALS:  # blocked until now; what has come is dropped
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SHUTDOWN_SIGNALS)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def _connect(ray: Any, address: str, cores: int, pipe: Connection[Any, Any]) -> bool:
    """Whether a cluster was started."""
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address != LOCAL:
        try:
            ray.init(address=address, **quiet)
            return False
        except ConnectionError:
            if address != AUTO:
                raise
    pipe.send(Starting())
    ray.init(address=LOCAL, num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    return True


def _refusal(error: BaseException, address: str) -> str:
    """A sentence for an error of connecting and what caused it."""
    text = "\n".join(_texts(error))
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    if len(versions) == 2:
        (ray, python), (own_ray, own_python) = versions
        other = f"runs Ray {ray} on Python {python}, this machine Ray {own_ray} on Python {own_python}"
        return f"the cluster at {address} {other}; all machines need the same versions"
    if "uthenti" in text:
        return unauthorized(address)
    return f"there is no connection to a cluster at {address}: {' '.join(str(error).split())}"


def unauthorized(address: str) -> str:
    """A sentence for a cluster that wants a token."""
    token = "in ~/.ray/auth_token or RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token"
    return f"the cluster at {address} wants its token; have that of its head {token}"


def _texts(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str:
    """Ray's words in one line; of a traceback of a worker the last one, which names the error."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    return text.splitlines()[-1].strip() if "ray::" in text else " ".join(text.split())


class _Orders:
    """Takes orders and reports what comes of them: by a thread of its own, as the command may send without reading for long."""

    def __init__(self, ray: Any, pipe: Connection[Any, Any]) -> None:
        self._ray, self._pipe = ray, pipe
        self._workers: dict[int, Any] = {}
        self._reports: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def take(self) -> None:
        """Until the pipe closes. Raises EOFError or OSError then."""
        threading.Thread(target=self._send, name="send", daemon=True).start()
        due = time.monotonic()
        while True:
            if self._pipe.poll(max(0.0, due - time.monotonic())):
                self._do(self._pipe.recv())
            if time.monotonic() >= due:  # also while orders follow each other
                if self._reports.empty():  # else the command does not read
                    self._reports.put(Nodes(tuple(self.nodes())))
                due = time.monotonic() + TICK_S

    def _send(self) -> None:
        with suppress(OSError):  # the command has ended
            while True:
                self._pipe.send(self._reports.get())

    def _do(self, order: Order) -> None:
        if isinstance(order, Start):
            worker = self._workers[order.worker] = self._started(order.share)
            self._follow(-order.worker, worker.begin.remote(installed(), order.factory))
        elif isinstance(order, Call):
            self._follow(order.number, self._workers[order.worker].call.remote(order.method, order.arguments))
        else:
            self._ray.kill(self._workers.pop(order.worker))

    def _started(self, share: Share) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": share.cpus,
            "num_gpus": share.gpus,
            "memory": share.memory,
            "max_concurrency": 4,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(share.node.key, soft=False),
        }
        return self._ray.remote(Worker).options(**options).remote()

    def _follow(self, number: int, reference: Any) -> None:
        def answered(future: Any) -> None:
            error = future.exception()
            self._reports.put(Answer(number, future.result()) if error is None else Lost(number, _reason(error)))

        reference.future().add_done_callback(answered)

    def nodes(self) -> Iterator[Node]:
        """Those that are there now."""
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                sizes = int(has.get("CPU", 0)), int(has.get("memory", 0)), int(has.get("GPU", 0))
                yield Node(node["NodeID"], node["NodeManagerHostname"], *sizes)


def wants_token(output: Path) -> bool:
    """Whether what Ray printed says that a token is missing."""
    return "InvalidAuthToken" in printed(output)


def printed(output: Path) -> str:
    """What Ray printed; nothing where it did not begin to."""
    return output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
