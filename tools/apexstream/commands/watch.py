"""`apexstream watch`: a live service's events on the terminal, as they come."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexstream.commands.options import valid_seq
from engine.errors import InputError
from engine.text import json_line, plain
from stream.schema import LAST_SEQ

if TYPE_CHECKING:
    from stream.client import Place, Remote
    from stream.protocol import Subscribe


def watch(
    url: Annotated[str, typer.Argument(metavar="URL", help="The service, as ws://127.0.0.1:8765 or wss://HOST:PORT.")],
    *,
    since: Annotated[
        int | None,
        typer.Option(
            "--since",
            metavar="SEQ",
            min=0,
            callback=valid_seq,
            help="Start with stored events after this number; 0: with the first.",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="FILE", help="Save the position in FILE, and resume there the next time.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="A file with the token; else APEXSTREAM_TOKEN is used.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Certificates to trust for wss://, besides the system's (PEM).")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option("--stream", metavar="NAME", help="Only this stream; repeatable.")] = None,
    provisional: Annotated[
        bool, typer.Option("--provisional", help="Also show events before they have ended, as soon as their apex is sure.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="End after N final events.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as received.")] = False,
) -> None:
    """Print a live service's events as they come.

    When the connection is lost it connects again, without end, and resumes after the last event: none is missing or repeated.
    Events go to standard output, the states of sources and connection to standard error. Ctrl-C ends it. With --resume, a kill
    between printing an event and saving the position may print that one event again the next time.
    """
    from stream.client import Place, Remote, socket_url
    from stream.protocol import Subscribe
    from stream.settings import ServerSettings

    socket_url(url)
    place = _saved_place(resume) or Place()
    if since is not None:
        place = Place(since)
    remote = Remote(
        url,
        ServerSettings(token_file=token_file).access_token(),
        _tls_context(ca) if socket_url(url).startswith("wss:") else None,
    )
    subscription = Subscribe(types=("expression", "status"), streams=tuple(stream) if stream else None)
    show = _Printer(as_json, provisional, count)
    asyncio.run(_until_stopped(_watch(remote, place, subscription, show, resume)))


class _Printer:
    """Prints messages; left says how many of count final events are still to come, None where there is no count."""

    def __init__(self, as_json: bool, provisional: bool, count: int | None) -> None:
        self._as_json, self._provisional, self.left = as_json, provisional, count
        self._states: dict[str, tuple[str, str]] = {}

    def __call__(self, message: dict[str, Any]) -> bool:
        """Print a message, if it is one to print; returns whether it was a final event."""
        kind = message["type"]
        if kind == "status":
            self._report_state(message["stream"], message["state"], message["detail"])
        elif kind == "node":
            self._report_state(f"node {message['name']}", message["state"], message["detail"])
        elif kind == "error":
            _report(message["message"])
        if kind != "expression":
            return False
        final = message["state"] == "final"
        if final or self._provisional:
            print(json_line(message) if self._as_json else plain(line(message)), flush=True)
        if final and self.left is not None:
            self.left -= 1
        return bool(final)

    def _report_state(self, stream: str, state: str, detail: str) -> None:
        """A source's state, where it changed; statuses are sent every second."""
        if self._states.get(stream) != (state, detail):
            self._states[stream] = state, detail
            _report(f"{stream} is {state}: {detail}" if detail else f"{stream} is {state}")


def _report(sentence: str) -> None:
    """Print what is no event to standard error."""
    print(f"apexstream: {plain(sentence)}", file=sys.stderr, flush=True)


def line(event: dict[str, Any]) -> str:
    """An event for people: number, local time, stream, label, confidence, and its time in the source."""
    emitted = datetime.fromisoformat(event["emitted_at"]).astimezone()
    number = f"#{event['seq']}" if event["state"] == "final" else "..."
    sure = "" if event["confidence"] is None else f" {event['confidence']:.0%}"
    length = "" if event["offset"] is None else f", {event['offset']['t'] - event['onset']['t']:.2f} s long"
    return (
        f"{number:<6} {emitted:%H:%M:%S}  {event['stream']}, face {event['face']}: {event['kind'] or 'not ended yet'}, "
        f"{event['label']}{sure}, from {event['onset']['t']:.2f} s{length}{' (cut short)' if event.get('truncated') else ''}"
    )


async def _watch(remote: Remote, place: Place, subscription: Subscribe, show: _Printer, resume: Path | None) -> None:
    from stream.client import follow
    from stream.files import write_atomically

    async with aclosing(follow(remote, place, subscription=subscription, report=_report)) as messages:
        async for message in messages:
            if (show(message) or message["type"] == "hello") and resume is not None:
                write_atomically(resume, [json.dumps(asdict(place)), "\n"])
            if show.left == 0:
                return


async def _until_stopped(work: Any) -> None:
    """Run work until it ends or a signal stops it."""
    from stream.shutdown import GracefulShutdown

    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    with GracefulShutdown() as shutdown:
        shutdown.on_signal(partial(loop.call_soon_threadsafe, task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            return


def _saved_place(path: Path | None) -> Place | None:
    """The position in a file of `--resume`; None where there is none yet. Raises InputError."""
    from stream.client import Place

    if path is None or not path.exists():
        return None
    try:
        place = Place(**json.loads(path.read_text(encoding="utf-8")))
        if not (isinstance(place.seq, int) and 0 <= place.seq <= LAST_SEQ and isinstance(place.store, str)):
            raise ValueError("seq must be a number from 0 and store a name")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} was not written by --resume ({error}); remove it to start without a position") from error
    return place


def _tls_context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{ca} holds no certificates ({error}); a PEM file is expected") from error
    return context
