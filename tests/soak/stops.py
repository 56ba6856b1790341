"""Ends the live service again and again, each time in the middle of something, and checks how it ends.

    python -m tests.soak.stops [--times 100] [--state NAME ...] [--seed 0] [--json FILE]

    hang-up        a pattern is watched, and the terminal is closed (SIGHUP)
    silent-rtsp    a network camera accepts and does not answer, answers nonsense, or stops in the middle of its answers
    huge-picture   a network camera sends pictures of 16,000 x 16,000, another one the largest that are taken
    ctrl-c-twice   SIGINT, and again up to .3 s later
    term-int-int   SIGTERM and two SIGINT, together
    starting       SIGTERM while the networks are being loaded
    processes      four sources in processes of their own, SIGTERM

Signals come up to a second after the service is in that state: its log says so, or the camera was asked for pictures. Each end
must come within 5 s, with exit code 0, or 130 where Ctrl-C came twice, and without a traceback. Anything else is a problem, and
makes the exit code 1.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from apexstream.bench.live_process import import_environment
from stream.shutdown import EXIT_INTERRUPTED
from tests.soak import ROOT
from tests.soak.cameras import HEAD, Server, jpeg_of, part
from tests.soak.command import Record, command_line, finish, write_record

LIMIT_S = 5.0
GIVE_UP_S = 30.0
PATTERN = "lavfi:testsrc=size=320x240:rate=30"
LIVE = "live (320 x 240)"
SIZES = ((16_000, 16_000), (8192, 4352))
"""Width and height of huge pictures."""
ANSWERS = (
    b"",
    b"\x00\xff" * 500,
    b"HTTP/1.0 200 OK\r\n\r\n<html>",
    b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n",
    b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n",
)


@dataclass(frozen=True)
class State:
    """What the service is at when it is ended, and by which signals, with the longest wait between them in seconds.

    It is in that state once its log has `live` lines of sources that are live, and asked has counted another request.
    """

    sources: tuple[str, ...]
    signals: tuple[int, ...]
    between_s: float = 0.0
    options: tuple[str, ...] = ()
    settled_s: float = 1.0
    codes: tuple[int, ...] = (0,)
    live: int = 1
    asked: Callable[[], int] | None = None


Stop = tuple[float, int, str]
"""Seconds from the first signal to the end, exit code, and what is wrong with it, if anything."""


class _BrokenCamera(socketserver.BaseRequestHandler):
    """A network camera that answers each connection with the next of ANSWERS, then nothing more."""

    turn = 0

    def handle(self) -> None:
        type(self).turn += 1
        with contextlib.suppress(OSError):
            self.request.recv(4096)
            self.request.sendall(ANSWERS[type(self).turn % len(ANSWERS)])
            while self.request.recv(4096):
                pass


class _HugePictures(socketserver.BaseRequestHandler):
    """A network camera (MJPEG over HTTP) whose pictures are huge, in each connection of the next of the sizes."""

    pictures: tuple[bytes, ...] = ()
    turn = 0

    def handle(self) -> None:
        type(self).turn += 1
        picture = self.pictures[type(self).turn % len(self.pictures)]
        with contextlib.suppress(OSError):
            self.request.recv(4096)
            self.request.sendall(HEAD)
            while True:
                self.request.sendall(part(picture))


@contextlib.contextmanager
def served(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """The port at which a handler answers on this machine."""
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def states(sizes: Sequence[tuple[int, int]] = SIZES) -> Iterator[dict[str, State]]:
    """All states by name, what they need being served."""
    _HugePictures.pictures = tuple(jpeg_of(np.full((height, width, 3), 90, np.uint8)) for width, height in sizes)
    with served(_BrokenCamera) as bad, served(_HugePictures) as huge:
        term, interrupt = signal.SIGTERM, signal.SIGINT
        yield {
            "hang-up": State((PATTERN,), (signal.SIGHUP,)),
            "silent-rtsp": State(
                (f"rtsp://127.0.0.1:{bad}/a", f"rtsp://127.0.0.1:{bad}/b"), (term,), live=0, asked=lambda: _BrokenCamera.turn
            ),
            "huge-picture": State((f"http://127.0.0.1:{huge}/", PATTERN), (term,), asked=lambda: _HugePictures.turn),
            "ctrl-c-twice": State((PATTERN,), (interrupt, interrupt), 0.3, codes=(0, EXIT_INTERRUPTED)),
            "term-int-int": State((PATTERN,), (term, interrupt, interrupt), codes=(0, EXIT_INTERRUPTED)),
            "starting": State((PATTERN,), (term,), live=0),
            "processes": State((PATTERN,) * 4, (term,), options=("--processes", "2"), live=4),
        }


def stopped(state: State, chance: random.Random) -> Stop:
    """Start a service and end it."""
    with tempfile.TemporaryDirectory(prefix="apexstream-stops-") as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "apexstream", "live", *state.sources, *state.options]
        command += ["--listen", "127.0.0.1:0", "--data", folder]
        asked = state.asked() if state.asked is not None else 0
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=import_environment()
            )
        assert process.stdout is not None
        try:
            answers = any(line.strip().startswith("stored") for line in process.stdout)
            reached = answers and _reached(state, log, asked)
            time.sleep(chance.uniform(0, state.settled_s))
            began = time.monotonic()
            for index, number in enumerate(state.signals):
                if index and state.between_s:
                    time.sleep(chance.uniform(0, state.between_s))
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GIVE_UP_S)
            took = time.monotonic() - began
        finally:
            process.kill()
            process.communicate()
        return took, process.returncode, _problem(state, reached, took, process.returncode, log.read_text(errors="replace"))


def _reached(state: State, log: Path, asked: int) -> bool:
    """Wait until the service is in the state; False where that takes too long."""
    end = time.monotonic() + 4 * GIVE_UP_S  # kernels that were never compiled are, then
    while time.monotonic() < end:
        live = log.read_text(errors="replace").count(LIVE) >= state.live
        if live and (state.asked is None or state.asked() > asked):
            return True
        time.sleep(0.02)
    return False


def _problem(state: State, reached: bool, took: float, code: int, log: str) -> str:
    if not reached:
        return f"it did not come to that state: {log.strip()[-300:]}"
    if took > LIMIT_S:
        return f"it took {took:.1f} s"
    if code not in state.codes:
        return f"exit code {code}: {log.strip()[-300:]}"
    return f"a traceback: {log.strip()[-600:]}" if "Traceback" in log or "Fatal Python" in log else ""


def soak(
    named: dict[str, State],
    times: int,
    seed: int = 0,
    progress: Callable[[str, dict[str, list[Stop]]], None] = lambda name, found: None,
) -> dict[str, list[Stop]]:
    """End the service so many times in each of the states; to be called on the main thread."""
    chance, found = random.Random(seed), dict[str, list[Stop]]()
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)  # nohup's "ignored" would be the service's, too
    try:
        for name, state in named.items():
            found[name] = []
            for _ in range(times):
                found[name].append(stopped(state, chance))
                progress(name, found)
    finally:
        signal.signal(signal.SIGHUP, before)
    return found


def states_record(found: dict[str, list[Stop]]) -> dict[str, dict[str, Any]]:
    """What was found, by state."""
    record = {}
    for name, stops in found.items():
        seconds, codes, problems = zip(*stops, strict=True)
        record[name] = {
            "stops": len(stops),
            "exit_codes": {str(code): count for code, count in sorted(Counter(codes).items())},
            "seconds_median": round(median(seconds), 2),
            "seconds_longest": round(max(seconds), 2),
            "problems": [problem for problem in problems if problem],
        }
    return record


def _table(record: dict[str, dict[str, Any]]) -> Table:
    table = Table("state", "stops", "exit codes", "median s", "longest s", "problems", title="The service ended")
    for name, row in record.items():
        codes = ", ".join(f"{code}: {count}" for code, count in row["exit_codes"].items())
        seconds = (f"{row['seconds_median']:.2f}", f"{row['seconds_longest']:.2f}")
        table.add_row(name, str(row["stops"]), codes, *seconds, str(len(row["problems"])))
    return table


def main(
    *,
    times: Annotated[int, typer.Option(min=1, help="How often in each state.")] = 100,
    state: Annotated[list[str] | None, typer.Option(help="This state only; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of the moments of the signals.")] = 0,
    json: Record = None,
) -> None:
    """End the service in each state and check how it ended."""
    console, started = Console(stderr=True), time.monotonic()
    with states() as known:
        unknown = sorted(set(state or ()) - set(known))
        if unknown:
            raise typer.BadParameter(f"there is no state {unknown[0]}; there are {', '.join(known)}", param_hint="--state")
        chosen = "".join(f" --state {name}" for name in state or ())
        record: dict[str, Any] = {"command": f"python -m tests.soak.stops --times {times} --seed {seed}{chosen}"}

        def progress(name: str, found: dict[str, list[Stop]]) -> None:
            record.update(minutes=round((time.monotonic() - started) / 60, 1), states=states_record(found))
            if len(found[name]) == times:
                console.print(f"{name}: {times} stops, {len(record['states'][name]['problems'])} problems")
            if json is not None:  # at every stop: the run takes hours
                write_record(record, json)

        soak({name: known[name] for name in state or known}, times, seed, progress)
    console.print(_table(record["states"]))
    finish(record, [f"{name}: {problem}" for name, row in record["states"].items() for problem in row["problems"]], json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
