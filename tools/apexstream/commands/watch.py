"""`apexstream watch`: a live service's events on the terminal, as they come."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexstream.commands.events import possible
from engine.errors import InputError, OutputError
from engine.text import json_line, plain
from stream.events.schema import LAST_SEQ

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
            callback=possible,
            help="Begin with stored events after this number; 0: with the first.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="FILE", help="Note in FILE how far it came, and go on from there the next time."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="A file that holds the token; else APEXSTREAM_TOKEN is used."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Whom to trust for wss://, besides the system's (PEM).")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option("--stream", metavar="NAME", help="Only of this; repeatable.")] = None,
    provisional: Annotated[bool, typer.Option("--provisional", help="Show events as soon as their apex is sure, too.")] = False,
    count: Annotated[int | None, typer.Option("--count", metavar="N", min=1, help="End after N final events.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as received.")] = False,
) -> None:
    """Print a live service's events as they come.

    When the connection breaks it is made again, for ever, and goes on after the last event: none is left out and none comes
    twice. Events go to standard output; what becomes of sources and connection is told beside them. Ctrl-C ends it. With
    --resume, an end between printing an event and noting it may print that one event again the next time.
    """
    from stream.client import Place, Remote, socket_url
    from stream.protocol import Subscribe

    socket_url(url)
    place = _noted(resume) or Place()
    if since is not None:
        place = Place(since)
    remote = Remote(url, _token(token_file), _trusting(ca) if socket_url(url).startswith("wss:") else None)
    wish = Subscribe(types=("expression", "status"), streams=tuple(stream) if stream else None)
    show = _Show(as_json, provisional, count)
    asyncio.run(_until_stopped(_watch(remote, place, wish, show, resume)))


class _Show:
    """Prints messages; `over` once it printed as many final events as were wanted."""

    def __init__(self, as_json: bool, provisional: bool, count: int | None) -> None:
        self._as_json, self._provisional, self._left = as_json, provisional, count
        self._states: dict[str, tuple[str, str]] = {}

    @property
    def over(self) -> bool:
        return self._left == 0

    def __call__(self, message: dict[str, Any]) -> bool:
        """Print a message where it is to be; whether it was a final event."""
        kind = message["type"]
        if kind == "status":
            self._tell_state(message["stream"], message["state"], message["detail"])
        elif kind == "error":
            self.tell(message["message"])
        if kind != "expression":
            return False
        final = message["state"] == "final"
        if final or self._provisional:
            print(json_line(message) if self._as_json else plain(line(message)), flush=True)
        if final and self._left is not None:
            self._left -= 1
        return bool(final)

    def _tell_state(self, stream: str, state: str, detail: str) -> None:
        """A source's state, where it is another than before: its figures come every second."""
        if self._states.get(stream) != (state, detail):
            self._states[stream] = state, detail
            self.tell(f"{stream} is {state}: {detail}" if detail else f"{stream} is {state}")

    @staticmethod
    def tell(sentence: str) -> None:
        """News that are no events."""
        print(f"apexstream: {plain(sentence)}", file=sys.stderr, flush=True)


def line(event: dict[str, Any]) -> str:
    """An event for people: number, local time, where, what, how sure, and when in the source."""
    emitted = datetime.fromisoformat(event["emitted_at"]).astimezone()
    number = f"#{event['seq']}" if event["state"] == "final" else "..."
    sure = "" if event["confidence"] is None else f" {event['confidence']:.0%}"
    length = "" if event["offset"] is None else f", {event['offset']['t'] - event['onset']['t']:.2f} s long"
    return (
        f"{number:<6} {emitted:%H:%M:%S}  {event['stream']}, face {event['face']}: {event['kind'] or 'still going on'}, "
        f"{event['label']}{sure}, from {event['onset']['t']:.2f} s{length}{' (cut short)' if event.get('truncated') else ''}"
    )


async def _watch(remote: Remote, place: Place, wish: Subscribe, show: _Show, resume: Path | None) -> None:
    from stream.client import follow

    async with aclosing(follow(remote, place, wish=wish, told=show.tell)) as messages:
        async for message in messages:
            if (show(message) or message["type"] == "hello") and resume is not None:
                _note(resume, place)
            if show.over:
                return


async def _until_stopped(work: Any) -> None:
    """Do work until it ends or a signal ends it."""
    from stream.shutdown import GracefulShutdown

    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    with GracefulShutdown() as shutdown:
        shutdown.on_signal(partial(loop.call_soon_threadsafe, task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            return


def _noted(path: Path | None) -> Place | None:
    """The place in a file of `--resume`; None where there is none yet. Raises InputError."""
    from stream.client import Place

    if path is None or not path.exists():
        return None
    try:
        place = Place(**json.loads(path.read_text(encoding="utf-8")))
        if not (isinstance(place.seq, int) and 0 <= place.seq <= LAST_SEQ and isinstance(place.store, str)):
            raise ValueError("seq is a number from 0 and store a name")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no note of --resume ({error}); remove it to begin anew") from error
    return place


def _note(path: Path, place: Place) -> None:
    """Replace the note in one step."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(asdict(place)) + "\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error


def _token(path: Path | None) -> str | None:
    from stream.settings import ServerSettings

    return ServerSettings(token_file=path).access_token()


def _trusting(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{ca} holds no certificates to trust ({error}); a PEM file is expected") from error
    return context
