"""A network between a client and a server for tests: one that forgets connections, or that is slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

PIECE = 16 * 1024


@dataclass
class Proxy:
    """Passes everything on to a port of this machine, each way so many bytes a second. passes is asked before each piece, with
    the first bytes that the client of the connection has sent."""

    target: int
    passes: Callable[[bytes], bool] = lambda first: True
    bytes_per_s: float = float("inf")
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there = await asyncio.open_connection("127.0.0.1", self.target)
        first = bytearray()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._pass(reader, there[1], first, up=True), self._pass(there[0], writer, first, up=False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytearray, *, up: bool) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(PIECE):
                if up:
                    first.extend(data[: PIECE - len(first)])
                await asyncio.sleep(len(data) / self.bytes_per_s)
                if self.passes(bytes(first)):
                    writer.write(data)
                    await writer.drain()


@contextlib.asynccontextmanager
async def proxied(proxy: Proxy) -> AsyncIterator[Proxy]:
    """The proxy while it serves, at its port."""
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=PIECE)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in proxy._tasks:
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
