"""Attacks of clients: connections, pictures, requests, messages and names that a service must survive.

Each attack is a function of a `Target` that returns what it saw once it is over; all it opened is closed then.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import quote

import cv2
import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection

from stream.server.access import GUESSES_PER_S
from stream.server.listener import connection_limits
from tests.soak.attack_target import ATTACKER, CONNECTION_ERRORS, HERE, Outcome, Target, next_message, seconds_since

HANDSHAKES = 2400
IDLE = 150
UNREAD, UNREAD_MIB = 60, 150
"""Answers, and the most memory they may take: a page each, and what a connection with TLS needs."""
COSTLY_SCANS = 42_878
SIDE = 1280
HOSTILE_NAMES = (
    "=HYPERLINK(1)",
    "\x1b[2Jgone",
    "../../etc/passwd",
    "a\x00b",
    "<script>alert(1)</script>",
    "x" * 100_000,
    "",
    "\u202ename",
)
MALFORMED_MESSAGES: tuple[str | bytes, ...] = (
    "{",
    "[" * 100_000,
    "null",
    b"\x00\xff" * 500,
    '{"type": "subscribe", "streams": "all"}',
    '{"type": "preview", "stream": "\\u0000", "on": true, "fps": 1e308, "width": -1}',
    '{"type": "preview", "stream": "../x", "on": true}',
    '{"type": "ping", "ping": ' + "9" * 5000 + "}",
    '{"type": ["ping"]}',
    '{"type": "camera", "v": 1, "name": "me", "consent": true}',
)
MALFORMED_PATHS = (
    "/../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/api/events?since=-1",
    "/api/events?limit=1e9",
    "/api/events?since=" + "9" * 400,
    "/api/events?format=xml",
    "/api/events?stream=%1b%5b2J&format=csv",
    "/evidence/..%2f..%2fx/onset.png",
    "/metrics?x=" + "a" * 4000,
    "/" + "a" * 20_000,
)


def handshakes(target: Target, chance: random.Random, count: int = HANDSHAKES) -> Outcome:
    """So many connections that never finish TLS's handshake."""
    connection_limits(count)
    began, hello = time.monotonic(), b"\x16\x03\x01\x02\x00\x01"

    def hesitate(end: socket.socket) -> socket.socket:
        if chance.random() < 0.5:
            end.sendall(hello)
        return end

    with ExitStack() as opened:
        ends = _connections(target, count, opened, hesitate)
        code, _ = target.ask("/healthz")
        target.over.wait(chance.uniform(1, 4))
        left = sum(not _ended(end) for end in ends)
    refused = count - len(ends)
    outcome = Outcome({"connections": count, "refused": refused, "kept": left, "took_s": seconds_since(began)})
    outcome.require(f"/healthz answered {code} beside unfinished handshakes", code == 200)
    return outcome


def idle(target: Target, chance: random.Random, count: int = IDLE) -> Outcome:
    """So many connections past TLS that say nothing."""

    def secured(plain: socket.socket) -> socket.socket:
        return opened.enter_context(target.tls.wrap_socket(plain, server_hostname=HERE))

    with ExitStack() as opened:
        ends = _connections(target, count, opened, secured)
        code, _ = target.ask("/healthz")
        target.over.wait(chance.uniform(1, 4))
    outcome = Outcome({"connections": count, "refused": count - len(ends)})
    outcome.require(f"/healthz answered {code} beside idle connections", code == 200)
    return outcome


def costly_uploads(target: Target, chance: random.Random) -> Outcome:
    """Costly pictures through a browser's camera: endless scans, lossless, 16,000 x 16,000; six times, then gone."""
    sent, answers, turned_away = 0, Counter[str](), 0
    for turn in range(6):
        try:
            with target.opened("/camera") as camera:
                _offer(camera, f"costly {turn}")
                for data in chance.sample(costly_pictures(), 2):
                    camera.send(struct.pack(">d", time.monotonic()) + data)
                    sent += 1
                    answers[next_message(camera, "error").get("message", "none")] += 1
        except CONNECTION_ERRORS as error:
            turned_away += 1
            answers[type(error).__name__] += 1
    outcome = Outcome({"sent": sent, "turned_away": turned_away, "answers": dict(answers)})
    outcome.require("a costly picture was not refused", answers["none"] == 0)
    return outcome


def open_close(target: Target, chance: random.Random, times: int = 12) -> Outcome:
    """A browser's camera opened, a few pictures of a face shown, closed; repeatedly."""
    outcomes = Counter[str]()
    for turn in range(times):
        try:
            with target.opened("/camera") as camera:
                _offer(camera, f"come and go {turn}")
                for k in range(chance.randint(0, 5)):
                    camera.send(struct.pack(">d", k / 15) + target.jpegs[k])
            outcomes["shown"] += 1
        except CONNECTION_ERRORS as error:
            outcomes[type(error).__name__] += 1
    return Outcome(dict(outcomes))


def unread(target: Target, chance: random.Random, count: int = UNREAD) -> Outcome:
    """So many answers of /api/events that are not read."""
    request = f"GET /api/events?since=0&limit=10000 HTTP/1.1\r\nHost: {HERE}\r\nAuthorization: Bearer {target.token}\r\n\r\n"
    before = most = target.service.usage().memory_mib
    with ExitStack() as opened:
        for _ in range(count):
            with contextlib.suppress(OSError):
                plain = opened.enter_context(socket.socket())
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.settimeout(5.0)
                plain.bind((ATTACKER, 0))
                plain.connect((HERE, target.port))
                end = opened.enter_context(target.tls.wrap_socket(plain, server_hostname=HERE))
                end.sendall(request.encode())
        until = time.monotonic() + chance.uniform(4, 8)
        while time.monotonic() < until:
            most = max(most, target.service.usage().memory_mib)
            target.over.wait(0.5)
    outcome = Outcome({"answers": count, "mib": round(most - before)})
    outcome.require(f"unread answers took {most - before:.0f} MiB", most - before <= UNREAD_MIB)
    return outcome


def guesses(target: Target, chance: random.Random) -> Outcome:
    """Wrong tokens, as fast as they are answered, from three threads."""
    seconds, answers = chance.uniform(3, 6), Counter[int]()
    until = time.monotonic() + seconds

    def guess() -> None:
        while time.monotonic() < until:
            answers[target.ask("/api/streams", token=f"guess-{time.monotonic_ns()}", source=ATTACKER)[0]] += 1

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(guess)
    outcome = Outcome({"seconds": round(seconds, 1), "answers": {str(code): many for code, many in sorted(answers.items())}})
    allowed = GUESSES_PER_S * (2 + seconds + 1)
    outcome.require(f"{answers[401]} guesses were checked in {seconds:.1f} s", answers[401] <= allowed)
    outcome.require("a wrong token was accepted", not answers[200])
    return outcome


def malformed(target: Target, chance: random.Random) -> Outcome:
    """Malformed messages and requests, and more messages than a client may send."""
    answers, outcome = Counter[str](), Outcome()
    for message in chance.sample(MALFORMED_MESSAGES, len(MALFORMED_MESSAGES)):
        with contextlib.suppress(OSError, InvalidHandshake):
            try:
                with target.opened("/?type=status") as client:
                    client.send(message)
                    answers[next_message(client, "error").get("code", "none")] += 1
            except ConnectionClosed as closed:
                answers[f"closed {closed.rcvd.code if closed.rcvd else None}"] += 1
    for path in MALFORMED_PATHS:
        answers[f"HTTP {target.ask(path, source=ATTACKER)[0]}"] += 1
    with contextlib.suppress(*CONNECTION_ERRORS), target.opened("/?type=removed") as client:
        for _ in range(2000):
            client.send('{"type": "ping"}')
    outcome.facts = dict(answers)
    outcome.require(
        "a malformed request or message was an unexpected error", not answers["HTTP 500"] and not answers["closed 1011"]
    )
    return outcome


def names(target: Target, chance: random.Random) -> Outcome:
    """Names that are formulas, escapes, paths or markup, of browsers' cameras and in questions."""
    answers = Counter[str]()
    for name in HOSTILE_NAMES:
        with contextlib.suppress(*CONNECTION_ERRORS), target.opened("/camera") as camera:
            camera.send(json.dumps({"type": "camera", "v": 1, "name": name, "consent": True}))
            answers[next_message(camera, "error").get("code", "none")] += 1
        code, _ = target.ask(f"/api/events?format=csv&stream={quote(name[:1000])}", source=ATTACKER)
        answers[f"HTTP {code}"] += 1
    outcome = Outcome(dict(answers))
    outcome.require("a hostile name was accepted", not answers["none"])
    outcome.require("a hostile name was an unexpected error", not answers["HTTP 500"])
    return outcome


def costly_pictures() -> list[bytes]:
    """Endless scans in half a megabyte, a lossless picture, and one whose header claims 16,000 x 16,000."""
    plain = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    whole = cv2.imencode(".jpg", np.zeros((SIDE, SIDE, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    endless = (whole[:-2] + scan * min(COSTLY_SCANS, (500_000 - len(whole)) // len(scan))) + whole[-2:]
    lossless = plain.replace(b"\xff\xc0", b"\xff\xc3", 1)
    size = struct.pack(">HH", 48, 64)
    return [endless, lossless, plain.replace(size, struct.pack(">HH", 16_000, 16_000), 1)]


def _connections(
    target: Target, count: int, opened: ExitStack, prepare: Callable[[socket.socket], socket.socket]
) -> list[socket.socket]:
    """So many connections from the attacker's address, prepared; those that are refused are left out."""
    ends = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            plain = opened.enter_context(socket.create_connection((HERE, target.port), 5.0, (ATTACKER, 0)))
            ends.append(prepare(plain))
    return ends


def _offer(camera: ClientConnection, name: str) -> None:
    """Offer a camera and wait until it is accepted. Raises ConnectionClosed where it is not, TimeoutError."""
    camera.send(json.dumps({"type": "camera", "v": 1, "name": name, "consent": True}))
    next_message(camera, "status")


def _ended(end: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    try:
        return not end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
