from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ApexError
from tests.events import decided
from tests.live import PATIENCE_S
from tests.running_server import run, running_server, until
from tests.soak.crowd import Crowd


def test_every_reader_has_every_event_once_with_its_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            crowd = await asyncio.to_thread(Crowd, service.port, readers=3, stuck=1, events=40)
            await until(lambda: service.hub.subscribers == 4, "all to have joined")
            end = time.monotonic() + PATIENCE_S
            watching = asyncio.create_task(asyncio.to_thread(crowd.watch, lambda: crowd.complete(40) or time.monotonic() > end))
            started = time.monotonic()
            for number in range(40):
                service.hub.post(decided(number, model="m" * (100 << number % 12)))
            await watching
            assert crowd.complete(40)
            assert crowd.twice == crowd.gone == 0
            assert np.all((crowd.came > started) & (crowd.came < time.monotonic()))
            assert np.all(np.diff(crowd.came, axis=1) >= 0)
            crowd.close()

    run(test)


def test_who_is_cut_off_is_noticed(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path) as service:
            crowd = await asyncio.to_thread(Crowd, service.port, readers=2, stuck=2, events=1)
            await until(lambda: service.hub.subscribers == 4, "all to have joined")
            for client in list(service.server.state.open):
                client.disconnect("behind")
            end = time.monotonic() + PATIENCE_S
            gone = lambda: (crowd.gone == 2 and len(crowd.dropped_at) == 2) or time.monotonic() > end  # noqa: E731
            await asyncio.to_thread(crowd.watch, gone)
            assert (crowd.gone, len(crowd.dropped_at)) == (2, 2)
            crowd.close()

    run(test)


def test_a_refusal_is_reported(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_server(tmp_path, max_connections=1) as service:
            with pytest.raises(ApexError, match="503"):
                await asyncio.to_thread(Crowd, service.port, readers=3, stuck=0, events=1)

    run(test)
