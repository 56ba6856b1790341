"""The service that is attacked, and what every attack needs of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from apexstream.bench.live_process import LiveProcess
from stream.protocol import SUBPROTOCOL
from tests.soak.cameras import Cameras

HERE, ATTACKER = "127.0.0.1", "127.0.0.66"
"""Attackers have an address of their own, so that limits on them do not limit other clients."""
CONNECTION_ERRORS = (OSError, InvalidHandshake, ConnectionClosed)
ANSWER_S = 20.0
POLL_S = 0.1


@dataclass(frozen=True)
class Target:
    """A service to be attacked: its port at this machine, TLS of who trusts it, its token, the folder of its store, the cameras
    it reads, its processes; events up to seq filler are made up; jpegs are pictures of a face.

    taken holds, by seq, the ids of the events whose rows were damaged; beside is a folder for stores that are taken away. over
    is set when the run ends, which cuts short whatever an attack waits for.
    """

    port: int
    tls: ssl.SSLContext
    token: str
    folder: Path
    beside: Path
    cameras: Cameras
    names: Sequence[str]
    service: LiveProcess
    filler: int
    jpegs: Sequence[bytes]
    taken: dict[int, str] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, path: str, *, token: str | None = None, source: str = HERE) -> tuple[int, bytes]:
        """Status and body of an answer; status 0 where there is none. token: another than the right one."""
        asking = http.client.HTTPSConnection(HERE, self.port, timeout=ANSWER_S, context=self.tls, source_address=(source, 0))
        try:
            asking.request("GET", path, headers={"Authorization": f"Bearer {token or self.token}"})
            answer = asking.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode()
        finally:
            asking.close()

    def status(self, stream: str) -> dict[str, Any]:
        """The status of a source; empty where the service does not answer."""
        code, body = self.ask("/api/streams")
        found = json.loads(body)["streams"] if code == 200 else []
        return next((dict(one) for one in found if one["stream"] == stream), {})

    def opened(self, path: str) -> ClientConnection:
        """A websocket from the attacker's address. Raises OSError, InvalidHandshake."""
        return connect(
            f"wss://{HERE}:{self.port}{path}",
            ssl=self.tls,
            origin=Origin(f"https://{HERE}:{self.port}"),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {self.token}"},
            source_address=(ATTACKER, 0),
            compression=None,
            open_timeout=ANSWER_S,
            close_timeout=1.0,
        )


@dataclass
class Outcome:
    """What an attack saw: figures for the record, and what violated a limit."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def require(self, sentence: str, ok: object) -> None:
        """Record a problem where ok is false."""
        self.problems += [] if ok else [sentence]


def next_message(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of that type; nothing where none comes in time. Raises ConnectionClosed."""
    until = time.monotonic() + ANSWER_S
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < until:
            message = client.recv(timeout=ANSWER_S)
            if isinstance(message, str) and (parsed := json.loads(message))["type"] == kind:
                return dict(parsed)
    return {}


def becomes_true(over: threading.Event, true: Callable[[], bool], within_s: float) -> bool:
    """Whether it becomes true within so many seconds, and before the run is over."""
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until or over.wait(POLL_S):
            return False
    return True


def seconds_since(began: float) -> float:
    """Seconds since a `time.monotonic()`, rounded for the record."""
    return round(time.monotonic() - began, 1)


def analysed_frames(metrics: str) -> dict[str, int]:
    """How many frames of each stream were analysed, by the service's figures."""
    head = 'apexstream_frame_seconds_count{stream="'
    lines = [line.removeprefix(head).partition('"} ') for line in metrics.splitlines() if line.startswith(head)]
    return {stream: int(float(value)) for stream, _, value in lines}
