"""A live service in a process of its own, as a user starts it, for measurements from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

END_S = 30.0


def import_environment() -> dict[str, str]:
    """The environment of a process that is to import the very packages of this one, not those of another installation or of the
    folder that it starts in."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


@dataclass(frozen=True)
class Usage:
    """What a service and the processes of its sources use: CPU seconds since their start, resident memory (what they share
    counted in each), threads and open handles."""

    cpu_s: float = 0.0
    memory_mib: float = 0.0
    threads: int = 0
    handles: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


class LiveProcess:
    """`apexstream live SOURCE...` on a free port; store and log are in the folder data, or in one that goes when it goes.

    Raises RuntimeError where it does not start.
    """

    def __init__(self, sources: Sequence[str], *options: str, data: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="apexstream-soak-")
        self._log = (data or Path(self._folder.name)) / "log"
        command = [sys.executable, "-m", "apexstream", "live", *sources, *options]
        command += ["--listen", "127.0.0.1:0", "--data", str(data or self._folder.name)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=import_environment())
        self.url = self._address()
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> float:
        """End it as SIGTERM does; the seconds that took. Ending twice is no error."""
        began = time.monotonic()
        if self._process.returncode is not None:
            return 0.0
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()
        return time.monotonic() - began

    @property
    def pids(self) -> list[int]:
        """The service's own process and those of its sources."""
        return [process.pid for process in (self._seen, *self._seen.children(recursive=True))]

    def usage(self) -> Usage:
        """What it uses now. Raises psutil.NoSuchProcess once it has ended."""
        total = _usage(self._seen)
        for process in self._seen.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has died meanwhile, and another will take its place
                total += _usage(process)
        return total

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    async def messages(self, *previews: str) -> AsyncGenerator[dict[str, Any], None]:
        """What it sends a client, with received (Unix time) added; of the streams named, pictures are asked for too."""
        async with connect(
            self.url, subprotocols=[Subprotocol("apexstream.v1")], compression=None, max_size=16 << 20
        ) as connection:
            for stream in previews:
                wanted = {"type": "preview", "v": 1, "stream": stream, "on": True, "fps": 10, "width": 480}
                await connection.send(json.dumps(wanted))
            async for raw in connection:
                received = time.time()
                message = {"type": "preview"} if isinstance(raw, bytes) else json.loads(raw)
                yield {**message, "received": received}

    def _address(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            name, _, value = line.strip().partition(" ")
            if name == "events":
                return value.split()[0]
        self._process.wait(END_S)
        raise RuntimeError(f"the service did not start: {self.log().strip()}")


def _usage(process: psutil.Process) -> Usage:
    with process.oneshot():
        used = process.cpu_times()
        return Usage(used.user + used.system, process.memory_info().rss / 2**20, process.num_threads(), process.num_fds())
