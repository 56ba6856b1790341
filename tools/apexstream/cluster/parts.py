"""Parts of long videos on a cluster: what is found in each waits in a file until all are there and are joined.

The files are beside the results, or in the store, under names that tell for which video, program and settings they were made:
after an interruption those that are there are used.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ApexError, InputError
from stream.files import write_errors
from stream.recorded.folders.records import PART
from stream.recorded.summary import package_versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream.recorded.folders.records import Wanted
    from stream.recorded.folders.store import Store
    from stream.recorded.folders.tasks import Task
    from stream.recorded.parts.plan import Part
    from stream.recorded.passage import Step
    from stream.sources.facts import Reading


@dataclass(frozen=True)
class PartFiles:
    """The files of a video's parts, in the store or, where that is None, in the folder of the task's results."""

    task: Task
    parts: Sequence[Part]
    wanted: Wanted
    store: Store | None

    def exists(self, number: int) -> bool:
        """Whether what is found in a part is there. Raises OutputError."""
        if self.store is None:
            from stream.recorded.parts.trace import is_trace

            return is_trace(self.task.folder / self._name(number))
        return self._name(number) in self.store.names(self.task.name)

    def write(self, number: int, steps: Iterable[Step]) -> None:
        """Write what is found in a part, under its name once it is complete. Raises OutputError, and what the steps raise."""
        from stream.recorded.parts.trace import write_trace

        name = self._name(number)
        if self.store is None:
            with write_errors(self.task.folder):
                self.task.folder.mkdir(parents=True, exist_ok=True)
            write_trace(self.task.folder / name, steps)
            return
        with tempfile.TemporaryDirectory(prefix="apexstream-") as folder:
            path = Path(folder, name)
            write_trace(path, steps)
            self.store.put(path, f"{self.task.name}/{name}")

    @contextmanager
    def joined(self) -> Iterator[Iterator[Step]]:
        """What was found in all parts, as of the whole, in the block. The steps raise InputError for a part that is missing or
        damaged, which is removed, so that it is done again the next time."""
        from stream.recorded.parts.join import joined

        with tempfile.TemporaryDirectory(prefix="apexstream-") as folder:
            steps = (self._read(number, Path(folder)) for number in range(len(self.parts)))
            with closing(joined([part.start for part in self.parts[1:]], steps, stream=self.task.name)) as whole:
                yield whole

    def remove(self) -> None:
        """Remove the files of all parts, as far as that is possible: the results are there."""
        with suppress(ApexError, OSError):
            if self.store is None:
                for path in self.task.folder.glob(f"{PART}*"):
                    path.unlink()
            else:
                names = (name for name in self.store.names(self.task.name) if name.startswith(PART))
                self.store.remove(f"{self.task.name}/{name}" for name in names)

    def _read(self, number: int, folder: Path) -> Iterator[Step]:
        """The steps of a part; its file is fetched into a folder while they are read, if it is in the store."""
        from stream.recorded.parts.trace import read_trace

        name = self._name(number)
        if not self.exists(number):
            raise InputError(f"{self.task.video}: part {number + 1} is missing, or the video has changed")
        path = self.task.folder / name if self.store is None else folder / name
        if self.store is not None:
            self.store.get(f"{self.task.name}/{name}", path)
        try:
            yield from read_trace(path)
        except InputError:
            path.unlink(missing_ok=True)
            if self.store is not None:
                self.store.remove([f"{self.task.name}/{name}"])
            raise
        finally:
            if self.store is not None:
                path.unlink(missing_ok=True)

    def _name(self, number: int) -> str:
        facts = self.task.video.stat()
        made_for = [
            facts.st_size,
            facts.st_mtime_ns,
            [astuple(part) for part in self.parts],
            dict(self.wanted.deciding),
            package_versions(),
            sorted(self.wanted.extras),
        ]
        digest = hashlib.sha256(json.dumps(made_for, default=str, sort_keys=True).encode()).hexdigest()
        return f"{PART}{digest[:16]}-{number + 1}-of-{len(self.parts)}"


def watched(steps: Iterable[Step], part: Part, note: Callable[[int, int | None, int], None]) -> Iterator[Step]:
    """The steps of a part; note gets the frames that are done, those expected, None where the file does not say, and 0."""
    from stream.recorded.passage import Seen

    done = 0
    for step in steps:
        if isinstance(step, Seen):
            done += 1
            note(done, _expected_frames(part, step.reading), 0)
        yield step


def _expected_frames(part: Part, reading: Reading) -> int | None:
    declared, begin = reading.declared, reading.start or 0.0  # in a part, of its first frame
    if not declared.fps or not (declared.seconds or math.isfinite(part.last)):
        return None
    last = min(part.last, part.last if declared.seconds is None else max(begin, declared.seconds))
    return max(1, round((last - begin) * declared.fps))
