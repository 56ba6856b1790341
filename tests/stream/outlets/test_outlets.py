"""The outlets within the whole service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from engine.errors import ConfigError
from stream.outlets import OUTLETS
from stream.outlets.settings import LslSettings, MqttSettings
from stream.service import Service
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from stream.sources.settings import SourceSettings
from tests.broker import Broker, Receiver, broker, free_port, receiver
from tests.events import decided
from tests.live import PATIENCE_S
from tests.serving import fetched

SOURCE = SourceSettings(url="lavfi:testsrc=size=160x120:rate=25", name="lobby")
EVENT = "apexstream/lobby/event"


@asynccontextmanager
async def serving(folder: Path, *sources: SourceSettings, **outlets: Any) -> AsyncIterator[Service]:
    live = LiveSettings(sources=sources, server=ServerSettings(port=0), store=StoreSettings(folder=folder), **outlets)
    async with Service(live) as service:
        await asyncio.wait_for(service.ready(), PATIENCE_S)
        yield service


async def states(service: Service) -> list[tuple[str, str, str]]:
    outlets = json.loads(await fetched(f"{service.url}api/outlets"))["outlets"]
    return [(one["name"], one["state"], one["detail"]) for one in outlets]


def test_every_outlet_has_a_table_in_the_settings() -> None:
    assert OUTLETS.keys() == {"lsl", "mqtt", "redis"} <= LiveSettings.model_fields.keys()


def test_they_get_the_last_events_and_end_with_the_service(tmp_path: Path) -> None:
    async def main(port: int, got: Receiver) -> None:
        async with serving(tmp_path, SOURCE, mqtt=MqttSettings(host="127.0.0.1", port=port), lsl=LslSettings()) as service:
            await asyncio.to_thread(got.until, lambda: got.last("apexstream/lobby/state") == "live", "the source")
            assert await states(service) == [
                ("lsl", "working", ""),
                ("mqtt", "working", f"connected to mqtt://127.0.0.1:{port}"),
            ]
            service.hub.post(decided(1))
        await asyncio.to_thread(got.until, lambda: got.last("apexstream/status") == "offline", "the end")
        assert [json.loads(event)["seq"] for event in got.of(EVENT)] == [1]

    with broker(tmp_path) as server, receiver(server.port) as got:
        asyncio.run(main(server.port, got))


def test_one_that_fails_disturbs_nothing_and_follows_after_the_next_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, mqtt=MqttSettings(host="127.0.0.1", port=free_port())) as service,
            connect(service.events_url, subprotocols=[Subprotocol("apexstream.v1")]) as client,
        ):
            for number in range(3):
                service.hub.post(decided(number))
            got: list[dict[str, Any]] = []
            async with asyncio.timeout(PATIENCE_S):
                while len(got) < 3:
                    message = json.loads(await client.recv())
                    got += [message] if message["type"] == "expression" else []
            assert [message["seq"] for message in got] == [1, 2, 3]
            ((name, state, detail),) = await states(service)
            assert (name, state) == ("mqtt", "failing") and "cannot be reached" in detail
            began = time.monotonic()
        assert time.monotonic() - began < 10, "three seconds at the most where the machine has nothing else to do"

    async def again(port: int, got: Receiver) -> None:
        async with serving(tmp_path, mqtt=MqttSettings(host="127.0.0.1", port=port)):
            await asyncio.to_thread(got.until, lambda: len(got.of(EVENT)) == 3, "the events")

    asyncio.run(main())
    with broker(tmp_path) as server, receiver(server.port) as got:
        asyncio.run(again(server.port, got))
        assert [json.loads(payload)["seq"] for payload in got.of(EVENT)] == [1, 2, 3]


def test_a_broker_that_hangs_is_not_waited_for_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(server: Broker, got: Receiver) -> float:
        async with serving(tmp_path, mqtt=MqttSettings(host="127.0.0.1", port=server.port)) as service:
            service.hub.post(decided(1))
            await asyncio.to_thread(got.until, lambda: len(got.of(EVENT)) == 1, "the first")
            server.freeze(True)
            service.hub.post(decided(2))
            began = time.monotonic()
        return time.monotonic() - began

    async def again(server: Broker, got: Receiver) -> None:
        async with serving(tmp_path, mqtt=MqttSettings(host="127.0.0.1", port=server.port)):
            await asyncio.to_thread(got.until, lambda: len(got.of(EVENT)) >= 2, "the second")

    with broker(tmp_path) as server, receiver(server.port) as got:
        assert asyncio.run(main(server, got)) < 10, "three seconds at the most where the machine has nothing else to do"
        late = ("not every outlet has ended", "the service is ending")  # the second where it came to read the event too late
        assert any(sentence in caplog.text for sentence in late)
        server.freeze(False)
        asyncio.run(again(server, got))
        assert {json.loads(payload)["seq"] for payload in got.of(EVENT)} == {1, 2}


def test_a_source_that_is_not_possible_ends_the_start_with_its_own_error(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="NOT_SET_HERE with its password is not set"):
            source = SourceSettings(url="rtsp://a/b", username="me", password_env="NOT_SET_HERE")
            async with serving(tmp_path, source, mqtt=MqttSettings(host="127.0.0.1", port=1), lsl=LslSettings()):
                pass

    asyncio.run(main())


def test_a_password_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=r"mqtt\.password_env: the environment variable NOT_SET_HERE is not set"):
            async with serving(tmp_path, mqtt=MqttSettings(host="a", username="b", password_env="NOT_SET_HERE")):
                pass
        async with serving(tmp_path):
            pass  # what failed before left nothing behind

    asyncio.run(main())
