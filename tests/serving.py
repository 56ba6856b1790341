"""The live service for tests of its clients: everything real but the sources, whose events a test posts."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from tests.live import PATIENCE_S


@asynccontextmanager
async def serving(folder: Path, *, port: int = 0, **server: Any) -> AsyncIterator[Service]:
    """A service without sources on a free port; `service.hub.post` takes what sources would send."""
    settings = LiveSettings(server=ServerSettings(port=port, **server), store=StoreSettings(folder=folder))
    async with Service(settings) as service:
        yield service


async def fetched(url: str) -> bytes:
    """What a service answers."""

    def get() -> bytes:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return bytes(answer.read())

    return await asyncio.to_thread(get)
