"""`apexstream events`: what the live service has stored, listed and exported."""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from apexstream.commands.options import one_of, valid_seq
from engine.text import json_line, plain
from stream.events.formats import FORMATS, Entry

if TYPE_CHECKING:
    from stream.events.query import Reader

PAGE = 1000
SHOWN = 200
"""The most rows of the table, the newest."""
PIPED_WIDTH = 140


class Kind(StrEnum):
    """What `--kind` takes."""

    micro = "micro"
    macro = "macro"


def _timestamp(text: str | None) -> float | None:
    """A date or a date and time, local unless it says otherwise, as seconds of the Unix epoch."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no date or time; examples are 2026-01-31 and 2026-01-31T09:00Z") from error


VIEWS = ("table", "json")
"""Forms of `--format` besides the exports' formats: for people, and all events as one JSON array."""


def events(
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="The live service's data folder.", show_default="the user's data folder"),
    ] = None,
    since: Annotated[
        int, typer.Option("--since", metavar="SEQ", min=0, callback=valid_seq, help="Only events after this number.")
    ] = 0,
    stream: Annotated[
        list[str] | None, typer.Option("--stream", metavar="NAME", help="Only of this stream; repeatable.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="LABEL", help="Only of this class; repeatable.")] = None,
    kind: Annotated[list[Kind] | None, typer.Option("--kind", metavar="micro|macro", help="Only these; repeatable.")] = None,
    begin: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Stored at or after this time.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Stored before this time.")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="|".join((*VIEWS, *FORMATS)), callback=one_of((*VIEWS, *FORMATS)), help="How to write them."
        ),
    ] = "table",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write here, not to the terminal.")] = None,
) -> None:
    """List, filter and export the events that the live service stored.

    Works while the service runs, too. The table shows the newest 200 events, the other formats all. Times are
    dates (2026-01-31) or dates with a time (2026-01-31T09:00), local unless they end with an offset or Z.
    """
    from stream.events.query import Reader
    from stream.settings import StoreSettings

    if out is None and form in FORMATS and FORMATS[form].binary and sys.stdout.isatty():
        raise typer.BadParameter(f"{form} is nothing for a terminal; give --out FILE")
    with Reader(StoreSettings(folder=data).place()) as reader:
        found = _pages(
            reader,
            since,
            streams=stream or None,
            labels=label or None,
            kinds=kind or None,
            begin=_timestamp(begin),
            end=_timestamp(end),
        )
        _write(_written(form, found), out)
        if skipped := len(reader.damaged):
            events_are = "event is" if skipped == 1 else "events are"
            print(f"apexstream: {skipped} stored {events_are} damaged and skipped", file=sys.stderr)


def _pages(reader: Reader, since: int, **bounds: Any) -> Iterator[dict[str, Any]]:
    """All events within bounds, read page by page."""
    while page := reader.since(since, limit=PAGE, **bounds):
        yield from page
        since = page[-1]["seq"]


def _write(pieces: Iterable[str | bytes], out: Path | None) -> None:
    """Write to the terminal, or to a file, completely or not at all. Raises OutputError."""
    if out is None:
        for piece in pieces:
            if isinstance(piece, str):
                sys.stdout.write(piece)
            else:
                sys.stdout.flush()
                sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return
    from stream.files import write_atomically

    write_atomically(out, pieces)


def _written(form: str, found: Iterable[dict[str, Any]]) -> Iterator[str] | Iterator[bytes]:
    if form in VIEWS:
        return _table(found) if form == "table" else _json(found)
    return FORMATS[form].export(map(Entry.stored, found), None)


def _json(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    before = "[\n"
    for event in found:
        yield before + json_line(event)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _table(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The newest events as a table, and the number of all."""
    count, newest = 0, deque[dict[str, Any]](maxlen=SHOWN)
    for event in found:
        count += 1
        newest.append(event)
    if newest:
        yield _rendered(newest)
    all_in = f"{', '.join(FORMATS)} or json"
    earlier = f", of which the newest {SHOWN} are shown; --format {all_in} gives all" if count > SHOWN else ""
    yield f"{count} event{'s' * (count != 1)}{earlier}\n"


def _rendered(shown: Iterable[dict[str, Any]]) -> str:
    from rich.console import Console

    from apexstream.display import shaped_table, table_width

    width = table_width(PIPED_WIDTH)
    table, short = shaped_table(), width < FULL_WIDTH
    for name, justify in COLUMNS.items():
        heading = SHORT_HEADINGS.get(name, name) if short else name
        table.add_column(heading, justify=justify, no_wrap=name not in WRAPPED, overflow="fold")
    for event in shown:
        table.add_row(*map(plain, cells(event, short=short)))
    text = io.StringIO()
    Console(file=text, width=width, highlight=False, markup=False).print(table)
    return text.getvalue()


COLUMNS: dict[str, Literal["left", "right"]] = {
    **{"seq": "right", "emitted": "left", "stream": "left", "face": "right", "kind": "left", "label": "left"},
    **{"confidence": "right", "onset s": "right", "length s": "right"},
}
WRAPPED = ("stream", "label")
"""Columns of words, which continue on the next line where the terminal is narrow."""
FULL_WIDTH = 110
"""On a narrower terminal, times of emission have no year and no seconds, and headings are short."""
SHORT_HEADINGS = {"confidence": "confi-\ndence", "length s": "length\ns"}


def cells(event: dict[str, Any], *, short: bool = False) -> list[str]:
    """A stored event in the order of COLUMNS; when it was emitted in local time, short without year and seconds."""
    emitted = datetime.fromisoformat(event["emitted_at"]).astimezone()
    onset, offset, confidence = event["onset"], event["offset"], event["confidence"]
    notes = (event.get("why"), "cut short" if event.get("truncated") else None)
    label = event["label"] + "".join(f" ({note})" for note in notes if note)
    length = "" if offset is None else f"{offset['t'] - onset['t']:.3f}"
    return [
        *(
            str(event["seq"]),
            emitted.strftime("%m-%d %H:%M" if short else "%Y-%m-%d %H:%M:%S"),
            event["stream"],
            str(event["face"]),
            event["kind"] or "",
            label,
        ),
        *("" if confidence is None else f"{confidence:.2f}", f"{onset['t']:.3f}", length),
    ]
