from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OutputError
from stream.events import hub as hub_module
from stream.events import store as store_module
from stream.events import store_threads as threads_module
from stream.events.hub import Hub
from stream.events.query import Reader
from stream.events.store import Store
from tests.events import decided
from tests.subscribing import DEADLINE_S, Client, on_a_loop, running


class Hanging(Store):
    """A store on a disk that does not answer for a while."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.called, self.answers, self.closed = threading.Event(), threading.Event(), threading.Event()

    def append(self, events: Sequence[dict[str, Any]]) -> list[int]:
        self.called.set()
        assert self.answers.wait(DEADLINE_S)
        return super().append(events)

    def close(self) -> None:
        super().close()
        self.closed.set()


def test_shutdown_does_not_wait_for_the_disk_and_the_store_is_closed_afterwards(tmp_path: Path) -> None:
    store = Hanging(tmp_path)

    async def body() -> None:
        hub = Hub(store)
        task = asyncio.create_task(hub.run())
        hub.post(decided(1))
        await asyncio.to_thread(store.called.wait, DEADLINE_S)
        hub.close()
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.cancelled()
        assert hub.backlog == 1
        hub.threads.when_released(store.close)
        assert not store.closed.is_set(), "its thread still uses it"
        store.answers.set()
        assert await asyncio.to_thread(store.closed.wait, DEADLINE_S)

    on_a_loop(body)
    with Reader(tmp_path) as reader:
        assert [event["seq"] for event in reader.since(0)] == [1]


def test_a_store_that_no_thread_uses_is_closed_at_once(tmp_path: Path) -> None:
    store = Hanging(tmp_path)

    async def body() -> None:
        async with running(store) as hub:
            pass
        hub.threads.when_released(store.close)
        assert store.closed.is_set()

    on_a_loop(body)


@pytest.fixture
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RETRY_S", (0.005, 0.02))
    monkeypatch.setattr(threads_module, "CHECK_S", 0.02)
    monkeypatch.setattr(threads_module, "LEAST_S", 0.01)


@asynccontextmanager
async def followed(store: Store) -> AsyncIterator[tuple[Hub, Client]]:
    """A hub that has stored one event, and a client that has it."""
    async with running(store, heartbeat_s=1000) as hub:
        client = Client()
        hub.join(client)
        hub.post(decided(1))
        await client.until(lambda: client.seqs == [1])
        yield hub, client


@pytest.mark.usefixtures("frequent_checks")
def test_a_removed_store_is_reported_everywhere_and_nothing_is_stored(tmp_path: Path) -> None:
    folder, away = tmp_path / "events", tmp_path / "away"
    with Store(folder) as store:

        async def body() -> None:
            async with followed(store) as (hub, client):
                folder.rename(away)
                await client.until(lambda: hub.problem is not None)
                assert "was removed or replaced" in str(hub.problem)
                assert client.of("error")[0]["code"] == "store" and client.of("heartbeat")[-1]["problem"] == hub.problem
                with pytest.raises(OutputError, match="was removed or replaced"):
                    await hub.stored(0)
                hub.post(decided(2))
                await client.until(lambda: hub.backlog == 1 and "1 wait in memory" in str(hub.problem))
                assert client.seqs == [1]
                away.rename(folder)
                await client.until(lambda: client.seqs == [1, 2])
                assert hub.problem is None
                assert [event["seq"] for event in await hub.stored(0)] == [1, 2]

        on_a_loop(body)


@pytest.mark.usefixtures("frequent_checks")
def test_a_new_file_is_created_where_allowed_and_clients_are_served(tmp_path: Path) -> None:
    with Store(tmp_path, recreate=True) as store:

        async def body() -> None:
            async with followed(store) as (hub, client):
                for path in tmp_path.glob("events.sqlite3*"):
                    path.unlink()
                hub.post(decided(2))
                await client.until(lambda: client.seqs == [1, 2])
                await client.until(lambda: hub.problem is None)
                assert [event["seq"] for event in await hub.stored(0)] == [2]

        on_a_loop(body)
    with Reader(tmp_path) as kept:
        assert [event["id"] for event in kept.since(0)] == ["lobby-2"]


@pytest.mark.usefixtures("frequent_checks")
def test_an_overwritten_file_is_found_without_any_event(tmp_path: Path) -> None:
    with Store(tmp_path) as store:

        async def body() -> None:
            async with running(store, heartbeat_s=1000) as hub:
                with store.path.open("r+b") as file:
                    file.write(bytes(4096))
                await Client().until(lambda: "is damaged" in str(hub.problem))
                with pytest.raises(OutputError, match="is damaged"):
                    await hub.stored(0)

        on_a_loop(body)


@pytest.mark.usefixtures("frequent_checks")
def test_no_event_is_lost_while_the_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Store(tmp_path) as store:

        async def body() -> None:
            async with running(store, heartbeat_s=1000) as hub:
                client = Client()
                hub.join(client)
                with monkeypatch.context() as broken:
                    broken.setattr(os, "pread", refuse)
                    await client.until(lambda: "nput/output error" in str(hub.problem))
                    hub.post(decided(1))
                    await client.until(lambda: hub.backlog == 1)
                await client.until(lambda: client.seqs == [1] and hub.problem is None)

        on_a_loop(body)


@pytest.mark.usefixtures("frequent_checks")
def test_events_are_stored_and_shutdown_completes_during_an_examination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> bool:
        started.set()
        return go_on.wait(4 * DEADLINE_S)

    monkeypatch.setattr(store_module, "examine", slow)
    monkeypatch.setattr(threads_module, "EXAMINE_S", 0.0)
    with Store(tmp_path) as store:

        async def body() -> None:
            async with running(store, heartbeat_s=1000) as hub:
                client = Client()
                hub.join(client)
                await client.until(started.is_set)
                hub.post(decided(1))
                await client.until(lambda: client.seqs == [1])

        try:
            on_a_loop(body)
        finally:
            go_on.set()


@pytest.mark.usefixtures("frequent_checks")
def test_a_hanging_disk_is_reported_until_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "HUNG_S", 0.02)
    with Store(tmp_path) as store:

        async def body() -> None:
            async with running(store, heartbeat_s=1000) as hub:
                answers = threading.Event()
                hub.threads._write.submit(answers.wait)
                await Client().until(lambda: "the disk has not answered" in str(hub.problem))
                answers.set()
                await Client().until(lambda: hub.problem is None)

        on_a_loop(body)
