"""Attacks on a service's processes, its store's files and its cameras.

Each attack is a function of a `Target` that returns what it saw once it is over; all it opened is closed then.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from stream.analysis.heartbeat import REPLACED_S
from stream.events.database import FILE
from tests.soak.attack_target import (
    ANSWER_S,
    CONNECTION_ERRORS,
    POLL_S,
    Outcome,
    Target,
    analysed_frames,
    becomes_true,
    next_message,
    seconds_since,
)
from tests.soak.cameras import MODES

CAMERA_MIB = 300
"""The most a hostile camera may take: what is read without a picture in it, twice while it grows, and a try after it."""
STALLED_WITHIN_S = 5.0
NOTICED_WITHIN_S = 15.0
LOADING_S = 60.0


def stop_process(target: Target, chance: random.Random) -> Outcome:
    """SIGSTOP for a process of sources; it goes on after a while, or is left until the service replaces it."""
    _, *members = target.service.pids
    if not members:
        return Outcome({"processes": 0})
    pid, began, before = chance.choice(members), time.monotonic(), {name: _analysed(target, name) for name in target.names}
    goes_on = chance.random() < 0.5
    outcome = Outcome({"goes_on": goes_on})
    os.kill(pid, signal.SIGSTOP)
    try:
        stalled = becomes_true(
            target.over, lambda: any(target.status(name).get("state") == "stalled" for name in target.names), ANSWER_S
        )
        outcome.facts["stalled_s"] = took = seconds_since(began)
        outcome.require(f"a stopped process was reported after {took} s", stalled and took <= STALLED_WITHIN_S + 0.5)
        if goes_on:
            target.over.wait(chance.uniform(1, 6))
        else:
            replaced = becomes_true(target.over, lambda: pid not in target.service.pids, 2 * REPLACED_S)
            outcome.facts["replaced_s"] = took = seconds_since(began)
            outcome.require(f"a stopped process was replaced after {took} s", replaced and took <= REPLACED_S + 5.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    asked = time.monotonic()
    shown = becomes_true(
        target.over, lambda: all(_analysed(target, name) > before[name] for name in target.names) and _live(target), LOADING_S
    )
    outcome.facts["pictures_again_s"] = seconds_since(asked)
    outcome.require(f"no pictures came for {LOADING_S:g} s after a stopped process was gone or went on", shown)
    return outcome


def move_store(target: Target, chance: random.Random) -> Outcome:
    """The store's files are moved away while the service runs."""
    inode = (target.folder / FILE).stat().st_ino
    place = _new_folder(target, "moved")
    began = time.monotonic()
    _move_files(target, place)
    return _recovered(target, Outcome(), inode, began)


def overwrite_store(target: Target, chance: random.Random) -> Outcome:
    """The store's file is overwritten, then moved away as the service asks for; what it held is kept first, for the count."""
    path, place = target.folder / FILE, _new_folder(target, "overwritten")
    inode = path.stat().st_ino
    with closing(sqlite3.connect(path, isolation_level=None, timeout=ANSWER_S)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(place / FILE)) as copy:
            source.backup(copy)
        number = os.open(path, os.O_RDWR)
        os.pwrite(number, chance.randbytes(4096), 0)
        began = time.monotonic()
    os.close(number)
    noticed = becomes_true(target.over, lambda: target.ask("/readyz")[0] == 503, NOTICED_WITHIN_S)
    outcome = Outcome({"noticed_s": seconds_since(began)})
    outcome.require(f"an overwritten store was not reported within {NOTICED_WITHIN_S:g} s", noticed)
    (gone := place / "garbage").mkdir()
    _move_files(target, gone)
    return _recovered(target, outcome, inode, time.monotonic())


def damage_row(target: Target, chance: random.Random) -> Outcome:
    """A row of the store is damaged, then asked for."""
    with closing(sqlite3.connect(target.folder / FILE, timeout=ANSWER_S)) as db, db:
        rows = db.execute("SELECT seq, body FROM events WHERE seq > ?", (target.filler,)).fetchall()
        rows = [(seq, body) for seq, body in rows if seq not in target.taken]
        if not rows:
            return Outcome({"rows": 0})
        seq, body = chance.choice(rows)
        target.taken[seq] = str(json.loads(body)["id"])
        db.execute("UPDATE events SET body = ? WHERE seq = ?", (body[: len(body) // 2], seq))
    code, answer = target.ask(f"/api/events?since={seq - 1}&limit=5")
    outcome = Outcome({"seq": seq, "answer": code})
    outcome.require(f"beside a damaged row /api/events answered {code}", code == 200 and f'"seq":{seq},' not in answer.decode())
    try:
        with target.opened(f"/?type=expression&since={seq - 1}") as client:
            next_message(client, "heartbeat")
    except CONNECTION_ERRORS as error:
        outcome.require(f"beside a damaged row a replay ended ({type(error).__name__}: {error})", ok=False)
    return outcome


def attack_by_camera(target: Target, chance: random.Random) -> Outcome:
    """The hostile network camera sends huge pictures, or what is no picture."""
    mode = chance.choice(MODES)
    try:
        before = target.service.usage().memory_mib
        sent = target.cameras.attack_with(mode, 45.0)  # a source that was refused is tried again after half a minute
        most, until = before, time.monotonic() + chance.uniform(2, 5)
        while time.monotonic() < until:
            most = max(most, target.service.usage().memory_mib)
            target.over.wait(POLL_S)
        outcome = Outcome(
            {"mode": mode, "sent": sent, "detail": target.status("hostile").get("detail"), "mib": round(most - before)}
        )
        outcome.require(f"a hostile camera took {most - before:.0f} MiB", most - before <= CAMERA_MIB)
        return outcome
    finally:
        target.cameras.refuse()


def _analysed(target: Target, stream: str) -> int:
    return analysed_frames(target.ask("/metrics")[1].decode(errors="replace")).get(stream, 0)


def _live(target: Target) -> bool:
    return all(target.status(name).get("state") == "live" for name in target.names)


def _move_files(target: Target, place: Path) -> None:
    for name in (f"{FILE}{end}" for end in ("", "-wal", "-shm")):
        with contextlib.suppress(FileNotFoundError):
            (target.folder / name).rename(place / name)


def _new_folder(target: Target, name: str) -> Path:
    """A new folder for a store that is taken away."""
    place = target.beside / f"{name}-{len(list(target.beside.iterdir()))}"
    place.mkdir()
    return place


def _recovered(target: Target, outcome: Outcome, inode: int, began: float) -> Outcome:
    """Wait until the service has a new store and is ready, then fill that with the made-up events again."""
    path = target.folder / FILE
    new = becomes_true(target.over, lambda: path.exists() and path.stat().st_ino != inode, NOTICED_WITHIN_S)
    outcome.facts["new_file_s"] = seconds_since(began)
    well = becomes_true(target.over, lambda: target.ask("/readyz")[0] == 200, NOTICED_WITHIN_S)
    outcome.facts["ready_s"] = seconds_since(began)
    outcome.require(f"there was no new store within {NOTICED_WITHIN_S:g} s", new)
    outcome.require(f"the service was not ready again within {NOTICED_WITHIN_S:g} s", well)
    if new and well:
        refill(target)
    return outcome


def refill(target: Target) -> None:
    """Put the made-up events into a new store, some at a time so that the service never waits long."""
    first = target.beside.parent / "filler" / FILE
    with closing(sqlite3.connect(target.folder / FILE, isolation_level=None, timeout=ANSWER_S)) as db:
        db.execute("ATTACH ? AS old", (f"{first}",))
        for seq in range(0, target.filler, 500):
            db.execute("INSERT OR IGNORE INTO events SELECT * FROM old.events WHERE seq > ? AND seq <= ?", (seq, seq + 500))
