"""A real Redis server for tests: one that is stopped, killed, filled or frozen, and whose data outlives it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import trustme

from tests.broker import free_port


@dataclass
class RedisServer:
    """A server at a port that stays the same when it is started again, in a folder where it keeps its data. options are those
    of its command line; with tls it serves nothing but TLS there, by a certificate for localhost and 127.0.0.1 from ca.pem."""

    folder: Path
    options: tuple[str, ...] = ()
    tls: bool = False
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "these tests need Debian's redis-server; bash tools/test installs it"
        command = [program, "--dir", str(self.folder), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        command += [*self._listening(), *self.options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if "Ready to accept connections" in line:
                return
        raise AssertionError("the Redis server does not start: " + "".join(lines))

    def _listening(self) -> list[str]:
        if not self.tls:
            return ["--port", str(self.port)]
        files = {"cert": self.folder / "cert.pem", "key": self.folder / "key.pem", "ca-cert": self.ca}
        if not self.ca.exists():
            authority = trustme.CA()
            issued = authority.issue_cert("localhost", "127.0.0.1")
            authority.cert_pem.write_to_path(files["ca-cert"])
            issued.cert_chain_pems[0].write_to_path(files["cert"])
            issued.private_key_pem.write_to_path(files["key"])
        given = [part for name, path in files.items() for part in (f"--tls-{name}-file", str(path))]
        return ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *given]

    def kill(self) -> None:
        """End it at once: what it has not written to its disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self, frozen: bool) -> None:
        """Let it answer nothing any more, as behind a broken network; or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def forget(self) -> None:
        """Remove its data, while it does not run."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)

    def client(self, **options: Any) -> redis.Redis:
        """A client of a test's own."""
        return redis.Redis(host="127.0.0.1", port=self.port, decode_responses=True, **options)


@contextlib.contextmanager
def redis_server(folder: Path, *options: str, tls: bool = False) -> Iterator[RedisServer]:
    """A server that runs."""
    made = RedisServer(folder, options, tls)
    made.start()
    try:
        yield made
    finally:
        made.kill()
