"""The connection of a command to a cluster: orders to workers on its nodes, and what comes of them."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from apexstream.cluster.ray_process import (
    AUTO,
    LOCAL,
    Call,
    Connected,
    Kill,
    Message,
    Order,
    Refused,
    Share,
    Start,
    Starting,
    printed,
    run,
    unauthorized,
    wants_token,
)
from engine.errors import ApexError, BackendError, InputError
from stream.process import core_count
from stream.shutdown import signals_blocked

REACH_S, LOAD_S, CONNECT_S, START_S, END_S = 3.0, 60.0, 6.0, 90.0, 30.0
"""Seconds for a port to answer, Ray to be loaded, connected to, started and ended."""
LOOK_S = 2 * REACH_S
"""Seconds for a host to be found by its name and to answer at one of its addresses."""


class Cluster:
    """Workers on the nodes of a cluster. started: it was started for this connection; nodes were there at the beginning."""

    def __init__(self, pipe: Connection[Any, Any], state: Connected) -> None:
        self._pipe, self.started, self.nodes = pipe, state.started, state.alive
        self._workers = self._calls = 0

    def start(self, share: Share, factory: bytes) -> int:
        """Start a worker that calls the pickled factory, which makes its object; the worker's number. The answer to call number
        -worker says that it can be used."""
        self._workers += 1
        self._send(Start(self._workers, share, factory))
        return self._workers

    def call(self, worker: int, method: str, *arguments: Any) -> int:
        """Call a method of the worker's object; the number of the call, whose `Answer` or `Lost` comes later."""
        self._calls += 1
        self._send(Call(self._calls, worker, method, pickle.dumps(arguments)))
        return self._calls

    def kill(self, worker: int) -> None:
        """End a worker at once, whatever it does; workers of a connection that has ended end with it."""
        with suppress(OSError):
            self._pipe.send(Kill(worker))

    def receive(self, *others: Any) -> Message | None:
        """The next message; None where one of other pipes has something to be read before.

        Raises ApexError where the connection is lost.
        """
        if self._pipe not in wait([self._pipe, *others]):
            return None
        try:
            message: Message = self._pipe.recv()
            return message
        except (EOFError, OSError):
            raise _lost() from None

    def _send(self, order: Order) -> None:
        try:
            self._pipe.send(order)
        except OSError:
            raise _lost() from None


def _lost() -> ApexError:
    return ApexError(
        "the connection to the cluster was lost; what is finished is kept, and the same command goes on from there"
    )


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster whose head is at address, HOST:PORT; "auto" is that which RAY_ADDRESS names or this machine belongs to, else
    one that is started on this machine and ends with the block.

    Raises InputError for a wrong address, BackendError where Ray is not installed, ApexError where no cluster answers or one of
    other versions does.
    """
    if importlib.util.find_spec("ray") is None:
        raise BackendError("--cluster needs the package ray: pip install 'apexstream[ray]'")
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address not in (AUTO, LOCAL):
        _check_reachable(address)
    context = multiprocessing.get_context("spawn")
    pipe, child = context.Pipe()
    with ExitStack() as opened:
        with tempfile.TemporaryDirectory(prefix="apexstream-ray-", ignore_cleanup_errors=True) as folder:
            output = Path(folder, "output")
            process = context.Process(target=run, args=(child, address, core_count(), str(output)), daemon=False)
            resource_tracker.ensure_running()  # with the first process it would be started, which unblocks signals
            with signals_blocked(), child:
                process.start()
            opened.callback(_end, process, pipe)
            try:
                state = _connect(pipe, address, output)
            except BaseException:
                process.kill()  # Ray may wait for an address for a minute
                raise
        yield Cluster(pipe, state)


def _end(process: BaseProcess, pipe: Connection[Any, Any]) -> None:
    pipe.close()
    process.join(END_S)
    if process.is_alive():
        process.kill()
        process.join()


def _connect(pipe: Connection[Any, Any], address: str, output: Path) -> Connected:
    """Wait until orders are taken."""
    until, starting = time.monotonic() + LOAD_S, False
    while pipe.poll(max(0.0, until - time.monotonic())):
        try:
            message = pipe.recv()
        except EOFError:
            raise ApexError(_ending(address, output)) from None
        if isinstance(message, Connected):
            return message
        if isinstance(message, Refused):
            raise ApexError(message.sentence)
        starting = isinstance(message, Starting)
        until = time.monotonic() + (START_S if starting else CONNECT_S)
    if wants_token(output):
        raise ApexError(unauthorized(address))
    if starting:
        raise ApexError(f"Ray does not start on this machine within {START_S:.0f} s; ray start --head may say why")
    if address == AUTO:
        hint = "start its head again, or take the machine out of it (ray stop)"
        raise ApexError(f"the cluster to which this machine belongs does not answer; {hint}")
    hint = "see that its head runs there and this machine belongs to it (ray start --address=...)"
    raise ApexError(f"no cluster answers at {address}; {hint}")


def _ending(address: str, output: Path) -> str:
    """Why the process that connects has ended, from what it and Ray printed."""
    if wants_token(output):
        return unauthorized(address)
    last = next((line.strip() for line in reversed(printed(output).split("\n")) if line.strip()), "")
    return f"the process that connects to the cluster at {address} ended" + (f": {last}" if last else "")


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"{address!r} is no address of a cluster; auto or HOST:PORT of its head is expected")
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def reach() -> None:
        try:
            socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
            found.put("")
        except OSError as error:
            found.put((error.strerror or str(error)).lower())
        except UnicodeError:
            found.put("no name of a host")

    threading.Thread(target=reach, daemon=True).start()  # as the search for a name may take half a minute
    try:
        reason = found.get(timeout=LOOK_S)
    except queue.Empty:
        reason = "timed out"
    if reason:
        raise ApexError(f"no cluster answers at {address} ({reason}); see that its head runs there (ray start --head)")
