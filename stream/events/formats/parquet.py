"""Parquet: the columns of CSV with their types, for data frames. Needs pyarrow, the extra `parquet`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from engine.errors import BackendError
from stream.events.formats.csv import REVIEW, columns, values
from stream.events.formats.entry import Entry, Recording
from stream.events.formats.format import Format

if TYPE_CHECKING:
    import pyarrow

ROWS = 5_000
"""Events of a row group, which are in memory together."""
INTEGERS = ("seq", "face", "onset_frame", "apex_frame", "offset_frame")
MOMENTS = ("emitted_at", "onset_at")
FLAGS = ("truncated", "speaking")
TEXTS = ("id", "stream", "kind", "label", "model", "why", *REVIEW)


class ParquetFormat(Format):
    """A table written a row group at a time; times are in seconds, emitted_at and onset_at are time stamps in UTC."""

    def check(self) -> None:
        """Raise BackendError where pyarrow is missing."""
        _pyarrow()

    def export(self, entries: Iterable[Entry], recording: Recording | None) -> Iterator[bytes]:
        """The file, a piece for each row group."""
        arrow = _pyarrow()
        from pyarrow.parquet import ParquetWriter

        schema = arrow.schema([(name, _type(arrow, name)) for name in columns(recording)])
        written, left = _Pieces(), iter(entries)
        with ParquetWriter(written, schema) as writer:
            while rows := [_row(schema.names, entry) for entry in islice(left, ROWS)]:
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                yield written.taken()
        yield written.taken()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise BackendError("the format parquet needs the package pyarrow: pip install 'apexstream[parquet]'") from error
    return pyarrow


def _row(names: list[str], entry: Entry) -> dict[str, object]:
    row = dict(zip(names, values(entry), strict=True))
    for name in MOMENTS:
        if row.get(name) is not None:
            row[name] = datetime.fromisoformat(str(row[name]))
    return {name: _text(value) if name in TEXTS else value for name, value in row.items()}


def _text(value: object) -> str | None:
    """Text without what UTF-8 cannot hold."""
    return None if value is None else str(value).encode(errors="backslashreplace").decode()


def _type(arrow: Any, name: str) -> pyarrow.DataType:
    if name in MOMENTS:
        return arrow.timestamp("ms", tz="UTC")
    kinds = ((INTEGERS, arrow.int64()), (FLAGS, arrow.bool_()), (TEXTS, arrow.string()))
    return next((kind for found, kind in kinds if name in found), arrow.float64())


class _Pieces(io.RawIOBase):
    """A file of which what was written is taken piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting, self._end = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._waiting += piece
        self._end += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._end

    def taken(self) -> bytes:
        """What was written since the last call."""
        piece = bytes(self._waiting)
        self._waiting.clear()
        return piece


PARQUET = ParquetFormat("application/vnd.apache.parquet", binary=True)
