"""Reviews events by key presses in Chromium, kills the server at random moments, and checks that nothing is lost or doubled.

    python -m tests.soak.review [--events 1000] [--kills 10] [--seed 0] [--json FILE]

The server is `apexstream review` in a process of its own, killed by SIGKILL and started again while keys are being pressed. The
page is also reloaded now and then, at once after a decision. At the end the log of actions on disk must hold what the keys did,
in order, each once, and the codes must be those decisions.
"""

from __future__ import annotations

import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from apexstream.bench.live_process import import_environment
from engine.errors import OutputError
from stream.review.codes import Decision
from stream.review.database import FILE, ReviewDatabase
from tests.browser import PATIENCE_MS, chromium
from tests.review import results_of, write_plain
from tests.soak import ROOT
from tests.soak.command import Record, command_line, finish
from tests.soak.kill import free_port

CODER = "anna"
SPACING = 10
"""Frames from one event to the next."""
LABELS = ("negative", "positive", "surprise", "uncertain")
DOWN_S, KILL_WITHIN_S = 1.0, 0.4
"""The longest that the server is away after a kill; the longest from the event of a kill to the kill."""
RELOAD_EVERY = 150
LOOK_EVERY = 25
"""Events after which the page is reloaded, and after which the script waits for the picture, as a person would."""


class KilledServer:
    """`apexstream review` of a folder, killed and started again whenever `reached` comes to the number of a kill."""

    def __init__(self, results: Path, kills: list[int], chance: random.Random) -> None:
        self.results, self.port, self.killed = results, free_port(), 0
        self._kills, self._chance = kills, chance
        self._reached, self._changed, self._ending = 0, threading.Condition(), False
        self._server = self._started()
        self._thread = threading.Thread(target=self._kill_at_times, name="kills")

    def __enter__(self) -> KilledServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.until_all_kills()
        self._server.terminate()
        self._server.wait()

    @property
    def url(self) -> str:
        """The page's address."""
        with ReviewDatabase.open(self.results) as database:
            return f"http://127.0.0.1:{self.port}/#token={database.token}"

    def reached(self, event: int) -> None:
        """So many events are decided."""
        with self._changed:
            self._reached = event
            self._changed.notify()

    def until_all_kills(self) -> None:
        """Return once every kill is over and the server runs."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "apexstream", "review", str(self.results), "--coder", CODER]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=import_environment())
        assert server.stdout is not None
        if not any("Ctrl-C" in line or "SIGTERM" in line for line in server.stdout):
            raise OutputError(f"the server did not start; it ended with {server.wait()}")
        return server

    def _kill_at_times(self) -> None:
        for number in self._kills:
            with self._changed:
                while not self._ending and self._reached < number:
                    self._changed.wait()
                if self._reached < number:
                    return
            time.sleep(self._chance.uniform(0, KILL_WITHIN_S))
            self._server.kill()
            self._server.wait()
            self.killed += 1
            time.sleep(self._chance.uniform(0, DOWN_S))
            self._server = self._started()


@dataclass
class Script:
    """What the keys did: every action in order as (event, decision, class), an undo as (event, None, None), and what must be
    left of each event."""

    actions: list[tuple[str, Decision | None, str | None]] = field(default_factory=list)
    left: dict[str, tuple[Decision, str]] = field(default_factory=dict)
    keys: int = 0

    def decide(self, page: Page, event: str, machine: str, chance: random.Random) -> None:
        """Decide about the event that the page shows, in one of the ways that there are."""
        way = chance.choice(("accept", "reject", "label", "undo"))
        if way == "label":
            label = chance.choice(LABELS)
            self._press(page, str(1 + LABELS.index(label)), "j")
            self._note(event, "accepted" if label == machine else "relabelled", label)
            return
        if way == "undo":
            before = page.locator("#position").inner_text()
            self._press(page, "r", "z")
            page.wait_for_function("(text) => document.getElementById('position').textContent === text", arg=before)
            self.actions += [(event, "rejected", machine), (event, None, None)]
        self._press(page, "r" if way == "reject" else "a")
        self._note(event, "rejected" if way == "reject" else "accepted", machine)

    def _press(self, page: Page, *keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)
            self.keys += 1

    def _note(self, event: str, decision: Decision, label: str) -> None:
        self.actions.append((event, decision, label))
        self.left[event] = decision, label


def review_all(
    server: KilledServer, events: list[tuple[str, str]], chance: random.Random, console: Console
) -> tuple[Script, int]:
    """Review every event, given as id and class; returns what the keys did, and the most actions that ever waited."""
    script, waiting = Script(), 0
    with sync_playwright() as driver, chromium(driver) as browser:
        page = browser.new_page()
        page.set_default_timeout(4 * PATIENCE_MS)
        open_page(page, server.url)
        for number, (event, machine) in enumerate(events):
            if number % LOOK_EVERY == 0:
                page.wait_for_selector("#picture[data-frame]")
            script.decide(page, event, machine, chance)
            waiting = max(waiting, int("".join(filter(str.isdigit, page.locator("#link-text").inner_text())) or 0))
            server.reached(number + 1)
            if number % RELOAD_EVERY == RELOAD_EVERY - 1:
                reload_until_there(page, server.url)
                console.print(f"{number + 1} events, {server.killed} kills")
        server.until_all_kills()
        page.wait_for_selector("#link[data-state=saved]")
    return script, waiting


def open_page(page: Page, url: str) -> None:
    """Open the page and wait until it is connected."""
    page.goto(url)
    page.wait_for_selector("#link[data-state=saved]")


def reload_until_there(page: Page, url: str) -> None:
    """Leave the page, with what it has not stored, and open it again as soon as a server is there."""
    page.goto("about:blank")
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not reachable(url):
        if time.monotonic() > deadline:
            raise OutputError("the server did not come back")
        page.wait_for_timeout(50)
    open_page(page, url)


def reachable(url: str) -> bool:
    """Whether somebody listens at the address."""
    port = int(url.split(":")[2].split("/", maxsplit=1)[0])
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def problems_of(results: Path, script: Script, kills: int, killed: int) -> Iterator[str]:
    """What on disk differs from what the keys did."""
    with ReviewDatabase.open(results) as database:
        codes = {code.id: (code.decision, code.label) for code in database.codes(CODER)}
    with closing(sqlite3.connect(results / FILE)) as db:
        query = """SELECT code, undoes IS NOT NULL, json_extract(body, '$.decision'), json_extract(body, '$.label')
            FROM actions WHERE coder = ? ORDER BY number"""
        rows = db.execute(query, (CODER,)).fetchall()
        found = db.execute("PRAGMA integrity_check").fetchone()[0]
    stored = [(code, None, None) if undo else (code, decision, label) for code, undo, decision, label in rows]
    if found != "ok":
        yield f"the database is damaged: {found}"
    if stored != script.actions:
        differing = sum(one != other for one, other in zip(stored, script.actions, strict=False))
        yield f"{len(stored)} actions are stored and {len(script.actions)} were made; {differing} differ in place"
    if codes != script.left:
        yield f"{sum(codes.get(event) != left for event, left in script.left.items())} events have other codes than were given"
    if killed != kills:
        yield f"the server was killed {killed} times, not {kills}"


@contextmanager
def made_results(count: int) -> Iterator[Path]:
    """A folder of results with so many events of a video."""
    with tempfile.TemporaryDirectory() as folder:
        video = write_plain(Path(folder, "clip.mp4"), SPACING * count + 60)
        yield results_of(video, Path(folder, "results"), [10 + SPACING * number for number in range(count)])


def main(
    *,
    events: Annotated[int, typer.Option(min=1, help="How many events are reviewed.")] = 1000,
    kills: Annotated[int, typer.Option(min=0, help="How often the server is killed.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the decisions and of the moments of the kills.")] = 0,
    json: Record = None,
) -> None:
    """Review events by keys while the server is killed, and compare what is on disk with the keys."""
    console, started, chance = Console(stderr=True), time.monotonic(), random.Random(seed)
    with made_results(events) as results:
        labels = [(f"event-{number}", LABELS[number % 3]) for number in range(events)]
        moments = sorted(chance.sample(range(1, max(2, events - 5)), kills)) if kills else []
        with KilledServer(results, moments, random.Random(seed + 1)) as server:
            script, waiting = review_all(server, labels, chance, console)
        problems = list(problems_of(results, script, kills, server.killed))
    figures = {
        "events": events,
        "kills": server.killed,
        "keys_pressed": script.keys,
        "actions": len(script.actions),
        "most_actions_waiting_for_a_server": waiting,
        "problems": len(problems),
    }
    console.print(figures)
    command = f"python -m tests.soak.review --events {events} --kills {kills} --seed {seed}"
    finish({"command": command, "minutes": round((time.monotonic() - started) / 60, 1), **figures}, problems, json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
