"""Results in a store that fsspec knows by a URL, such as s3://bucket/prefix, in place of a folder.

A video is analysed into a local folder, whose files are then uploaded, the record last: an upload that is cut off leaves
results without a record, which are made again. The store's access is that of its own package (s3fs: the environment, ~/.aws);
a URL with a password is refused, as it would be printed. A store has no locks: only one run at a time may use a prefix.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.errors import BackendError, InputError, OutputError
from engine.text import plain
from stream.events.formats import FORMATS, file_name
from stream.recorded.folders.records import EARLIER, PART, RECORD

if TYPE_CHECKING:
    from stream.recorded.folders.outcome import Outcome
    from stream.recorded.folders.tasks import Task

SUMMARY = "summary.json"
EVENTS = (*map(file_name, FORMATS), "activity.jsonl")
"""Files that tell what came of a task, or on which somebody may have worked."""

S3 = "pip install 'apexstream[s3]'"
OBJECT_STORES = {"s3", "gs", "abfs", "az", "oss", "memory"}
"""Stores without folders: names may hold /, and nothing is made before."""


def is_url(out: str) -> bool:
    """Whether results are to go to a store."""
    return "://" in out


@dataclass(frozen=True)
class Store:
    """The files below a URL, by names with / between folders. Can be sent to another process.

    Methods raise OutputError with the URL and the reason.
    """

    url: str

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)  # each process opens it by itself

    def check(self) -> None:
        """Raise InputError for a URL with a password, BackendError where its package is missing, OutputError for no access."""
        try:
            password = urlsplit(self.url).password
        except ValueError:
            raise InputError("the address of the store is none: its host cannot be read") from None
        if password is not None:
            raise InputError("the address of the store has a password; give it by the environment of its package instead")
        with self._errors(""):
            self.names()

    def names(self, folder: str = "") -> list[str]:
        """All files, those in a folder by their names in it; without those whose names would lead out of a local folder."""
        root = self._path(folder)
        with self._errors(folder):
            found = (path.removeprefix(root).lstrip("/") for path in self._files.find(root))
            return sorted(name for name in found if name and ".." not in name.split("/"))  # some list the folder itself

    def get(self, name: str, path: Path) -> None:
        """Download a file."""
        with self._errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(self._path(name), str(path))

    def put(self, path: Path, name: str) -> None:
        """Upload a file; what has the name before is replaced in one step, where the store replaces files so."""
        with self._errors(name):
            if not OBJECT_STORES & set(_names(self._files.protocol)):
                self._files.makedirs(self._files._parent(self._path(name)), exist_ok=True)
            self._files.put_file(str(path), self._path(name))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, whether they exist or not."""
        for name in names:
            with self._errors(name):
                if self._files.exists(self._path(name)):
                    self._files.rm_file(self._path(name))

    @contextmanager
    def mirror(self) -> Iterator[Path]:
        """A local folder while the block runs: the records and summaries of all results, and other files without content."""
        with tempfile.TemporaryDirectory(prefix="apexstream-") as folder:
            out = Path(folder, self._path("").rstrip("/").rsplit("/", 1)[-1] or "results")
            out.mkdir()
            self._fetch("", out, {RECORD, SUMMARY})
            yield out

    def refresh(self, name: str, folder: Path) -> None:
        """Bring the record and the summary of a folder of results up to date in a mirror of it."""
        there = set(self.names(name))
        for file in (RECORD, SUMMARY):
            if file in there:
                self.get(f"{name}/{file}", folder / file)
            else:
                (folder / file).unlink(missing_ok=True)

    def run(self, task: Task, run: Callable[[Task, Path], Outcome]) -> Outcome:
        """Do a task in a local folder and upload what changed; run gets the task with its folder there, and the folder over
        all."""
        with self.results(task) as local:
            before = _states(local.folder)
            outcome = run(local, local.folder.parent)
            self._upload(task.name, local.folder, before)
        return replace(outcome, task=task)

    @contextmanager
    def results(self, task: Task) -> Iterator[Task]:
        """The task with a local folder while the block runs, in which the record, summary and events are that it has."""
        with tempfile.TemporaryDirectory(prefix="apexstream-") as scratch:
            local = replace(task, folder=Path(scratch, task.folder.name))
            self._fetch(task.name, local.folder, {RECORD, SUMMARY, *EVENTS})
            yield local

    def _upload(self, folder: str, local: Path, before: Mapping[str, tuple[int, int]]) -> None:
        """The record goes last, and is missing meanwhile; parts of the video stay until then."""
        now = _states(local)
        changed = sorted(name for name in now if before.get(name) != now[name])
        removed = before.keys() - now.keys()
        parts = {name for name in removed if name.startswith(PART)}
        if changed or removed:
            self.remove([f"{folder}/{RECORD}", *(f"{folder}/{name}" for name in sorted(removed - parts))])
            for name in sorted({*changed, *({RECORD} & now.keys())}, key=lambda name: name == RECORD):
                self.put(local / name, f"{folder}/{name}")
            self.remove(f"{folder}/{name}" for name in sorted(parts))

    def _fetch(self, folder: str, local: Path, wanted: Collection[str]) -> None:
        """Files with wanted names, and empty ones for the others; summaries last, as what is newer than they was edited."""
        for name in sorted(self.names(folder), key=lambda name: name.endswith(SUMMARY)):
            path = local / name
            if path.name.startswith(EARLIER):  # of a folder that was copied there
                continue
            if path.name in wanted:
                self.get(f"{folder}/{name}".lstrip("/"), path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        return files, root.rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    def _path(self, name: str) -> str:
        return f"{self._opened[1]}/{name}" if name else str(self._opened[1])

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        where = f"{self.url.rstrip('/')}/{name}".rstrip("/")
        try:
            yield
        except OutputError:
            raise
        except ImportError as error:
            s3 = self.url.startswith("s3") or getattr(error, "name", None) == "fsspec"
            raise BackendError(f"{self.url} needs a package: {S3 if s3 else error}") from error
        except Exception as error:  # each store's package has errors of its own
            reason = plain(" ".join(str(error).split())) or type(error).__name__
            raise OutputError(f"{where} cannot be read or written: {reason}") from error


def _names(protocol: str | tuple[str, ...]) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else protocol


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes with each file of a folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            found[path.relative_to(folder).as_posix()] = facts.st_ino, facts.st_mtime_ns
    return found
