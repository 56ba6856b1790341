"""What hostile clients, cameras and hands do to a running service: the attacks that `tests.soak.attacks` draws from.

Each attack is a function of a `Target` that returns what it saw once it is over; all it opened is closed then. Attackers come
from an address of their own, so that brakes on them are no brakes on others.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import psutil
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from stream.analysis.heartbeat import REPLACED_S
from stream.events.database import FILE
from stream.protocol import SUBPROTOCOL
from stream.server.access import GUESSES_PER_S
from stream.server.listener import connection_limits
from tests.soak.cameras import MODES, Cameras

HERE, ATTACKER = "127.0.0.1", "127.0.0.66"
ANSWER_S = 20.0
HANDSHAKES = 2400
IDLE = 150
UNREAD, UNREAD_MIB = 60, 150
"""Answers, and the most memory they may take: a page each, and what a connection with TLS needs."""
CAMERA_MIB = 300
"""The most a hostile camera may take: what is read without a picture in it, twice while it grows, and a try after it."""
STALLED_WITHIN_S = 5.0
NOTICED_WITHIN_S = 15.0
LOADING_S = 60.0
LOOK_S = 0.1
BOMB_SCANS = 42_878
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
ODD_MESSAGES: tuple[str | bytes, ...] = (
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
ODD_PATHS = (
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


@dataclass(frozen=True)
class Target:
    """A service to be attacked: its port at this machine, TLS of who trusts it, its token, the folder of its store, the cameras
    it reads, the processes it has; events up to seq filler are made up; jpegs are pictures of a face.

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
    pids: Callable[[], list[int]]
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
        """How a source is doing; nothing where the service does not say."""
        code, body = self.ask("/api/streams")
        found = json.loads(body)["streams"] if code == 200 else []
        return next((dict(one) for one in found if one["stream"] == stream), {})

    def ready(self) -> bool:
        """Whether it says that all is well."""
        return self.ask("/readyz")[0] == 200

    def opened(self, path: str) -> ClientConnection:
        """A socket of the attacker's. Raises OSError, InvalidHandshake."""
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
class Seen:
    """What an attack saw: figures for the record, and what was not as it must be."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def must(self, sentence: str, well: object) -> None:
        """A problem where it is not well."""
        self.problems += [] if well else [sentence]


def handshakes(target: Target, chance: random.Random, count: int = HANDSHAKES) -> Seen:
    """So many connections that never finish TLS's handshake."""
    connection_limits(count)
    began, hello = time.monotonic(), b"\x16\x03\x01\x02\x00\x01"
    with ExitStack() as opened:
        ends = []
        refused = 0
        for _ in range(count):
            try:
                end = opened.enter_context(socket.create_connection((HERE, target.port), 5.0, (ATTACKER, 0)))
                if chance.random() < 0.5:
                    end.sendall(hello)
                ends.append(end)
            except OSError:
                refused += 1
        code, _ = target.ask("/healthz")
        target.over.wait(chance.uniform(1, 4))
        left = sum(not _ended(end) for end in ends)
    seen = Seen({"connections": count, "refused": refused, "kept": left, "took_s": _since(began)})
    seen.must(f"/healthz answered {code} beside unfinished handshakes", code == 200)
    return seen


def idle(target: Target, chance: random.Random, count: int = IDLE) -> Seen:
    """So many connections past TLS that say nothing."""
    with ExitStack() as opened:
        ends = []
        refused = 0
        for _ in range(count):
            try:
                plain = opened.enter_context(socket.create_connection((HERE, target.port), 5.0, (ATTACKER, 0)))
                ends.append(opened.enter_context(target.tls.wrap_socket(plain, server_hostname=HERE)))
            except OSError:
                refused += 1
        code, _ = target.ask("/healthz")
        target.over.wait(chance.uniform(1, 4))
    seen = Seen({"connections": count, "refused": refused})
    seen.must(f"/healthz answered {code} beside idle connections", code == 200)
    return seen


def bombs(target: Target, chance: random.Random) -> Seen:
    """Costly pictures through a browser's camera: endless scans, lossless, 16,000 x 16,000; six times, then gone."""
    sent, answers, turned_away = 0, Counter[str](), 0
    for turn in range(6):
        try:
            with target.opened("/camera") as camera:
                _offer(camera, f"bomb {turn}")
                for data in chance.sample(bombs_made(), 2):
                    camera.send(struct.pack(">d", time.monotonic()) + data)
                    sent += 1
                    answers[_until(camera, "error").get("message", "none")] += 1
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
            turned_away += 1
            answers[type(error).__name__] += 1
    seen = Seen({"sent": sent, "turned_away": turned_away, "answers": dict(answers)})
    seen.must("a costly picture was not refused", answers["none"] == 0)
    return seen


def open_close(target: Target, chance: random.Random, times: int = 12) -> Seen:
    """A browser's camera opened, a few pictures of a face shown, closed; again and again."""
    outcomes = Counter[str]()
    for turn in range(times):
        try:
            with target.opened("/camera") as camera:
                _offer(camera, f"come and go {turn}")
                for k in range(chance.randint(0, 5)):
                    camera.send(struct.pack(">d", k / 15) + target.jpegs[k])
            outcomes["shown"] += 1
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
            outcomes[type(error).__name__] += 1
    return Seen(dict(outcomes))


def unread(target: Target, chance: random.Random, count: int = UNREAD) -> Seen:
    """So many answers of /api/events that nobody reads."""
    request = f"GET /api/events?since=0&limit=10000 HTTP/1.1\r\nHost: {HERE}\r\nAuthorization: Bearer {target.token}\r\n\r\n"
    before = most = _memory(target)
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
            most = max(most, _memory(target))
            target.over.wait(0.5)
    seen = Seen({"answers": count, "mib": round(most - before)})
    seen.must(f"unread answers took {most - before:.0f} MiB", most - before <= UNREAD_MIB)
    return seen


def guesses(target: Target, chance: random.Random) -> Seen:
    """Wrong tokens, as fast as they are answered, from three threads."""
    seconds, answers = chance.uniform(3, 6), Counter[int]()
    until = time.monotonic() + seconds

    def guess() -> None:
        while time.monotonic() < until:
            answers[target.ask("/api/streams", token=f"guess-{time.monotonic_ns()}", source=ATTACKER)[0]] += 1

    threads = [threading.Thread(target=guess) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = Seen({"seconds": round(seconds, 1), "answers": {str(code): many for code, many in sorted(answers.items())}})
    allowed = GUESSES_PER_S * (2 + seconds + 1)
    seen.must(f"{answers[401]} guesses were looked at in {seconds:.1f} s", answers[401] <= allowed)
    seen.must("a wrong token was taken", not answers[200])
    return seen


def odd(target: Target, chance: random.Random) -> Seen:
    """Messages and requests that are none of ours, and more messages than anybody may send."""
    answers, seen = Counter[str](), Seen()
    for message in chance.sample(ODD_MESSAGES, len(ODD_MESSAGES)):
        with contextlib.suppress(OSError, InvalidHandshake, TimeoutError):
            try:
                with target.opened("/?type=status") as client:
                    client.send(message)
                    answers[_until(client, "error").get("code", "none")] += 1
            except ConnectionClosed as closed:
                answers[f"closed {closed.rcvd.code if closed.rcvd else None}"] += 1
    for path in ODD_PATHS:
        answers[f"HTTP {target.ask(path, source=ATTACKER)[0]}"] += 1
    with contextlib.suppress(OSError, InvalidHandshake, ConnectionClosed), target.opened("/?type=removed") as client:
        for _ in range(2000):
            client.send('{"type": "ping"}')
    seen.facts = dict(answers)
    seen.must("an odd request or message was an unforeseen error", not answers["HTTP 500"] and not answers["closed 1011"])
    return seen


def names(target: Target, chance: random.Random) -> Seen:
    """Names that are formulas, escapes, paths or markup, of browsers' cameras and in questions."""
    answers = Counter[str]()
    for name in HOSTILE_NAMES:
        with contextlib.suppress(OSError, InvalidHandshake, ConnectionClosed, TimeoutError), target.opened("/camera") as camera:
            camera.send(json.dumps({"type": "camera", "v": 1, "name": name, "consent": True}))
            answers[_until(camera, "error").get("code", "none")] += 1
        code, _ = target.ask(f"/api/events?format=csv&stream={quote(name[:1000])}", source=ATTACKER)
        answers[f"HTTP {code}"] += 1
    seen = Seen(dict(answers))
    seen.must("a hostile name was taken", not answers["none"])
    seen.must("a hostile name was an unforeseen error", not answers["HTTP 500"])
    return seen


def stopped(target: Target, chance: random.Random) -> Seen:
    """SIGSTOP for a process of sources; it goes on after a while, or is left until the service replaces it."""
    _, *members = target.pids()
    if not members:
        return Seen({"processes": 0})
    pid, began, before = chance.choice(members), time.monotonic(), {name: _analysed(target, name) for name in target.names}
    goes_on = chance.random() < 0.5
    seen = Seen({"goes_on": goes_on})
    os.kill(pid, signal.SIGSTOP)
    try:
        stalled = soon(
            target.over, lambda: any(target.status(name).get("state") == "stalled" for name in target.names), ANSWER_S
        )
        seen.facts["stalled_s"] = took = _since(began)
        seen.must(f"a stopped process was reported after {took} s", stalled and took <= STALLED_WITHIN_S + 0.5)
        if goes_on:
            target.over.wait(chance.uniform(1, 6))
        else:
            replaced = soon(target.over, lambda: pid not in target.pids(), 2 * REPLACED_S)
            seen.facts["replaced_s"] = took = _since(began)
            seen.must(f"a stopped process was replaced after {took} s", replaced and took <= REPLACED_S + 5.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    asked = time.monotonic()
    shown = soon(
        target.over, lambda: all(_analysed(target, name) > before[name] for name in target.names) and _live(target), LOADING_S
    )
    seen.facts["pictures_again_s"] = _since(asked)
    seen.must(f"no pictures came for {LOADING_S:g} s after a stopped process was gone or went on", shown)
    return seen


def moved(target: Target, chance: random.Random) -> Seen:
    """The store's files are moved away while the service runs."""
    inode = (target.folder / FILE).stat().st_ino
    place = _place(target, "moved")
    began = time.monotonic()
    for name in _files(target):
        with contextlib.suppress(FileNotFoundError):
            (target.folder / name).rename(place / name)
    return _went_on(target, Seen(), inode, began)


def overwritten(target: Target, chance: random.Random) -> Seen:
    """The store's file is overwritten, then moved away as the service asks for; what it held is kept first, for the count."""
    path, place = target.folder / FILE, _place(target, "overwritten")
    inode = path.stat().st_ino
    with closing(sqlite3.connect(path, isolation_level=None, timeout=ANSWER_S)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(place / FILE)) as copy:
            source.backup(copy)
        number = os.open(path, os.O_RDWR)
        os.pwrite(number, chance.randbytes(4096), 0)
        began = time.monotonic()
    os.close(number)
    noticed = soon(target.over, lambda: target.ask("/readyz")[0] == 503, NOTICED_WITHIN_S)
    seen = Seen({"noticed_s": _since(began)})
    seen.must(f"an overwritten store was not reported within {NOTICED_WITHIN_S:g} s", noticed)
    (gone := place / "garbage").mkdir()
    for name in _files(target):
        with contextlib.suppress(FileNotFoundError):
            (target.folder / name).rename(gone / name)
    return _went_on(target, seen, inode, time.monotonic())


def damaged(target: Target, chance: random.Random) -> Seen:
    """A row of the store is damaged, then asked for."""
    with closing(sqlite3.connect(target.folder / FILE, timeout=ANSWER_S)) as db, db:
        rows = db.execute("SELECT seq, body FROM events WHERE seq > ?", (target.filler,)).fetchall()
        rows = [(seq, body) for seq, body in rows if seq not in target.taken]
        if not rows:
            return Seen({"rows": 0})
        seq, body = chance.choice(rows)
        target.taken[seq] = str(json.loads(body)["id"])
        db.execute("UPDATE events SET body = ? WHERE seq = ?", (body[: len(body) // 2], seq))
    code, answer = target.ask(f"/api/events?since={seq - 1}&limit=5")
    seen = Seen({"seq": seq, "answer": code})
    seen.must(f"beside a damaged row /api/events answered {code}", code == 200 and f'"seq":{seq},' not in answer.decode())
    try:
        with target.opened(f"/?type=expression&since={seq - 1}") as client:
            _until(client, "heartbeat")
    except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
        seen.must(f"beside a damaged row a replay ended ({type(error).__name__}: {error})", well=False)
    return seen


def camera(target: Target, chance: random.Random) -> Seen:
    """The hostile network camera sends huge pictures, or what is no picture."""
    mode = chance.choice(MODES)
    try:
        before = _memory(target)
        sent = target.cameras.harm(mode, 45.0)  # a source that was refused is tried again after half a minute
        most, until = before, time.monotonic() + chance.uniform(2, 5)
        while time.monotonic() < until:
            most = max(most, _memory(target))
            target.over.wait(LOOK_S)
        seen = Seen({"mode": mode, "sent": sent, "detail": target.status("hostile").get("detail"), "mib": round(most - before)})
        seen.must(f"a hostile camera took {most - before:.0f} MiB", most - before <= CAMERA_MIB)
        return seen
    finally:
        target.cameras.refuse()


Attack = Callable[[Target, random.Random], Seen]
ATTACKS: dict[str, Attack] = {
    "handshakes": handshakes,
    "idle": idle,
    "bombs": bombs,
    "open-close": open_close,
    "unread": unread,
    "guesses": guesses,
    "odd": odd,
    "names": names,
    "stopped": stopped,
    "moved": moved,
    "overwritten": overwritten,
    "damaged": damaged,
    "camera": camera,
}
STORE = ("moved", "overwritten", "damaged")
"""Attacks on the store's file, of which one at a time makes sense."""


def bombs_made() -> list[bytes]:
    """Endless scans in half a megabyte, a lossless picture, and one whose header claims 16,000 x 16,000."""
    plain = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    whole = cv2.imencode(".jpg", np.zeros((SIDE, SIDE, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    endless = (whole[:-2] + scan * min(BOMB_SCANS, (500_000 - len(whole)) // len(scan))) + whole[-2:]
    lossless = plain.replace(b"\xff\xc0", b"\xff\xc3", 1)
    size = struct.pack(">HH", 48, 64)
    return [endless, lossless, plain.replace(size, struct.pack(">HH", 16_000, 16_000), 1)]


def _offer(camera: ClientConnection, name: str) -> None:
    """Offer a camera and wait until it is taken. Raises ConnectionClosed where it is not, TimeoutError."""
    camera.send(json.dumps({"type": "camera", "v": 1, "name": name, "consent": True}))
    _until(camera, "status")


def _until(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of that type; nothing where none comes in time. Raises ConnectionClosed."""
    until = time.monotonic() + ANSWER_S
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < until:
            message = client.recv(timeout=ANSWER_S)
            if isinstance(message, str) and (said := json.loads(message))["type"] == kind:
                return dict(said)
    return {}


def _ended(end: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    try:
        return not end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _analysed(target: Target, stream: str) -> int:
    return frames(target.ask("/metrics")[1].decode(errors="replace")).get(stream, 0)


def frames(metrics: str) -> dict[str, int]:
    """How many frames of each stream were analysed, by the service's figures."""
    head = 'apexstream_frame_seconds_count{stream="'
    lines = [line.removeprefix(head).partition('"} ') for line in metrics.splitlines() if line.startswith(head)]
    return {stream: int(float(value)) for stream, _, value in lines}


def _live(target: Target) -> bool:
    return all(target.status(name).get("state") == "live" for name in target.names)


def _memory(target: Target) -> float:
    """MiB of the service and its processes."""
    found = 0
    for pid in target.pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).memory_info().rss
    return found / 2**20


def _files(target: Target) -> Iterator[str]:
    return (f"{FILE}{end}" for end in ("", "-wal", "-shm"))


def _place(target: Target, name: str) -> Path:
    """A new folder for a store that is taken away."""
    place = target.beside / f"{name}-{len(list(target.beside.iterdir()))}"
    place.mkdir()
    return place


def _went_on(target: Target, seen: Seen, inode: int, began: float) -> Seen:
    """Wait until the service has a new store and is well, then fill that with the made-up events again."""
    path = target.folder / FILE
    new = soon(target.over, lambda: path.exists() and path.stat().st_ino != inode, NOTICED_WITHIN_S)
    seen.facts["new_file_s"] = _since(began)
    well = soon(target.over, target.ready, NOTICED_WITHIN_S)
    seen.facts["ready_s"] = _since(began)
    seen.must(f"there was no new store within {NOTICED_WITHIN_S:g} s", new)
    seen.must(f"the service was not well again within {NOTICED_WITHIN_S:g} s", well)
    if new and well:
        refill(target)
    return seen


def refill(target: Target) -> None:
    """Put the made-up events into a new store, some at a time so that the service never waits long."""
    first = target.beside.parent / "filler" / FILE
    with closing(sqlite3.connect(target.folder / FILE, isolation_level=None, timeout=ANSWER_S)) as db:
        db.execute("ATTACH ? AS old", (f"{first}",))
        for seq in range(0, target.filler, 500):
            db.execute("INSERT OR IGNORE INTO events SELECT * FROM old.events WHERE seq > ? AND seq <= ?", (seq, seq + 500))


def soon(over: threading.Event, true: Callable[[], bool], within_s: float) -> bool:
    """Whether it becomes true within so many seconds, and before the run is over."""
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        if over.wait(LOOK_S):
            return False
    return True


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)
