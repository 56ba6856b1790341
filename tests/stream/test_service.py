from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from apexstream.clips import preset, write_clip
from engine import Pipeline
from engine.config import PipelineSettings, RecognizerSettings
from engine.errors import ConfigError, OutputError, WeightsError
from stream.analysis.worker import MakePipeline
from stream.events.query import Reader
from stream.events.store import Store
from stream.hub_service import CLOSE_S, END_S, RESET_S, STORE_S
from stream.messages import WantedPreview
from stream.service import Service, model_of, stop_event
from stream.settings import LiveSettings, ServerSettings, StoreSettings
from stream.sources.settings import SourceSettings
from tests.broker import free_port
from tests.events import decided, preview_parts, stored
from tests.live import PATIENCE_S
from tests.serving import fetched

PATTERN = "lavfi:testsrc=size=160x120:rate=25"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds with one expression, long enough to be announced before it ends."""
    path = tmp_path_factory.mktemp("service") / "clip.mp4"
    face: dict[str, Any] = {"size": (360, 300), "eye_px": 80.0, "noise_sigma": 2.0, "n_events": 1, "macro_fraction": 1.0}
    write_clip(preset("clean", "hopper", 30, seed=1, duration_s=6, **face), path)
    return path


@asynccontextmanager
async def serving(
    folder: Path, *sources: SourceSettings, make: MakePipeline | None = None, **changes: Any
) -> AsyncIterator[Service]:
    live = LiveSettings(sources=sources, server=ServerSettings(port=0), store=StoreSettings(folder=folder), **changes)
    async with Service(live, make=make) as service:
        async with asyncio.timeout(PATIENCE_S):
            await service.ready()
        yield service


@asynccontextmanager
async def joined(service: Service, query: str = "") -> AsyncIterator[ClientConnection]:
    async with connect(service.events_url + query, subprotocols=[Subprotocol("apexstream.v1")]) as socket_:
        yield socket_


async def received(socket_: ClientConnection, **wanted: Any) -> dict[str, Any]:
    """The next message with these values."""
    async with asyncio.timeout(PATIENCE_S):
        async for text in socket_:
            message = {} if isinstance(text, bytes) else json.loads(text)
            if all(message.get(key) == value for key, value in wanted.items()):
                return dict(message)
    raise AssertionError("the socket was closed")


def test_a_source_becomes_events_signals_pictures_and_evidence(video: Path, tmp_path: Path) -> None:
    async def main() -> None:
        source = SourceSettings(url=str(video), name="desk", loop=True)
        async with serving(tmp_path, source) as service, joined(service) as client:
            hello = await received(client, type="hello")
            assert hello["model"] == service.model and hello["streams"][0]["name"] == "desk"
            announced = await received(client, type="expression", state="provisional")
            signal_ = await received(client, type="signal")
            assert signal_["stream"] == "desk" and signal_["faces"]
            final = await received(client, type="expression", state="final")
            assert final["id"] == announced["id"] and final["seq"] == 1 and final["evidence"] is True
            assert 0 < final["latency_ms"] < PATIENCE_S * 1000
            for picture in ("onset", "apex", "flow"):
                png = await fetched(f"{service.url}evidence/{final['id']}/{picture}.png")
                assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED).shape[:2] == (128, 128)
            with Reader(tmp_path) as stored:
                assert stored.since(0)[0]["id"] == final["id"]
            figures = (await fetched(f"{service.url}metrics")).decode()
            assert 'apexstream_source_frames_total{stream="desk"}' in figures
            assert 'apexstream_frame_seconds_count{stream="desk"}' in figures

    asyncio.run(main())


def test_previews_are_sent_while_they_are_asked_for(video: Path, tmp_path: Path) -> None:
    async def main() -> None:
        source = SourceSettings(url=str(video), name="desk", loop=True)
        async with serving(tmp_path, source) as service, joined(service) as client:
            await received(client, type="status", state="live")
            await client.send(json.dumps({"type": "preview", "v": 1, "stream": "desk", "on": True, "fps": 10, "width": 160}))
            pictures: list[dict[str, Any]] = []
            async with asyncio.timeout(PATIENCE_S):
                async for message in client:
                    if isinstance(message, bytes):
                        pictures.append(preview_parts(message)[0])
                    if len(pictures) == 20:
                        break
            assert service.server.wanted_preview("desk") == WantedPreview(width=160, fps=10)
            assert pictures[-1]["width"] == 160 and pictures[-1]["faces"]
            assert all(a["t"] < b["t"] for a, b in pairwise(pictures))
            await client.send(json.dumps({"type": "preview", "v": 1, "stream": "desk", "on": False}))
            async with asyncio.timeout(PATIENCE_S):
                while service.server.wanted_preview("desk") is not None:
                    await client.recv()

    asyncio.run(main())


def test_readiness_waits_for_the_networks(tmp_path: Path) -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        loop = asyncio.get_running_loop()

        def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(PATIENCE_S)
            return Pipeline(settings, stream=stream, session=session)

        live = LiveSettings(
            sources=(SourceSettings(url=PATTERN),), server=ServerSettings(port=0), store=StoreSettings(folder=tmp_path)
        )
        async with Service(live, make=make) as service:
            assert (await fetched(f"{service.url}healthz")).strip() == b"alive"
            with pytest.raises(urllib.error.HTTPError) as caught:
                await fetched(f"{service.url}readyz")
            assert caught.value.code == 503
            go_on.set()
            await service.ready()
            assert (await fetched(f"{service.url}readyz")).strip() == b"ready"

    asyncio.run(main())


def test_shutdown_while_the_networks_are_being_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        enough = threading.Event()

        def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
            enough.wait(PATIENCE_S)
            raise WeightsError("too late")

        live = LiveSettings(
            sources=(SourceSettings(url=PATTERN),), server=ServerSettings(port=0), store=StoreSettings(folder=tmp_path)
        )
        async with Service(live, make=make):
            asyncio.get_running_loop().call_later(0.5, enough.set)

    asyncio.run(main())
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def test_a_network_that_does_not_load_ends_the_service(tmp_path: Path) -> None:
    def make(settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        raise WeightsError("no network here")

    async def main() -> None:
        async with serving(tmp_path, SourceSettings(url=PATTERN), make=make):
            raise AssertionError("it is not ready")

    with pytest.raises(WeightsError, match="no network here"):
        asyncio.run(main())


def test_a_port_or_store_in_use_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "a") as service:
            port = service.server.port
            taken = LiveSettings(server=ServerSettings(port=port), store=StoreSettings(folder=tmp_path / "b"))
            with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port}"):
                async with Service(taken):
                    pass
            locked = LiveSettings(server=ServerSettings(port=0), store=StoreSettings(folder=tmp_path / "a"))
            with pytest.raises(OutputError, match="in use by another service"):
                async with Service(locked):
                    pass
        async with Service(taken):
            pass  # what failed before left nothing behind: neither lock nor port

    asyncio.run(main())


def test_shutdown_flushes_stores_sends_and_closes_with_1001(video: Path, tmp_path: Path) -> None:
    async def main() -> tuple[dict[str, Any], int | None, float]:
        last: dict[str, Any] = {}
        async with serving(tmp_path, SourceSettings(url=str(video), name="desk")) as service:
            client = await connect(service.events_url)
            announced = await received(client, type="expression", state="provisional")
            began = time.monotonic()
        took = time.monotonic() - began
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    message = json.loads(await client.recv())
                    last = message if message["type"] == "expression" else last
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
        assert last["id"] == announced["id"]
        return last, code, took

    final, code, took = asyncio.run(main())
    assert final["state"] == "final" and final["truncated"] and code == 1001
    with Reader(tmp_path) as stored:
        assert [event["id"] for event in stored.since(0)] == [final["id"]]
    assert took < 10, "three seconds at the most where the machine has nothing else to do"


def test_shutdown_waits_neither_for_a_locked_store_nor_for_a_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> float:
        async with serving(tmp_path) as service:
            with closing(sqlite3.connect(service.store.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                _, stays = await asyncio.open_connection("127.0.0.1", service.server.port)
                stays.write(b"GET / HTTP/1.1\r\n")
                for number in range(100):
                    service.hub.post(decided(number))
                began = time.monotonic()
                await service.__aexit__(None, None, None)
                took = time.monotonic() - began
                stays.close()
        return took

    took = asyncio.run(main())
    assert "held by another program" in caplog.text or "did not answer in time" in caplog.text
    assert "lost" in caplog.text
    assert took < 10, "three seconds at the most where the machine has nothing else to do"
    assert END_S + RESET_S < 3 and STORE_S + CLOSE_S < END_S
    with Store(tmp_path) as again:
        assert again.append([stored(1)]) == [again.last], "the store is unlocked"


def test_a_missing_store_is_reported_alike_at_every_address(tmp_path: Path) -> None:
    async def asked(url: str) -> tuple[int, str]:
        try:
            return 200, (await fetched(url)).decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    async def main() -> None:
        async with serving(tmp_path) as service, joined(service) as client:
            service.hub.post(decided(1))
            await received(client, type="expression")
            for path in tmp_path.glob("events.sqlite3*"):
                path.unlink()
            problem = (await received(client, type="error", code="store"))["message"]
            assert "was removed or replaced" in problem
            assert await asked(f"{service.url}readyz") == (503, problem + "\n")
            assert json.loads((await asked(f"{service.url}api/streams"))[1])["problem"] == problem
            code, figures = await asked(f"{service.url}metrics")
            assert code == 200 and "apexstream_store_problem 1.0" in figures and "apexstream_store_bytes 0.0" in figures
            code, body = await asked(f"{service.url}api/events")
            assert code == 503 and "was removed or replaced" in body

    asyncio.run(main())


def test_each_stage_of_the_shutdown_has_the_time_that_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as service:
            flush = service._left(STORE_S + CLOSE_S)
            assert flush == pytest.approx(END_S - STORE_S - CLOSE_S)
            assert service._end_by is not None
            service._end_by -= 2 * END_S
            assert service._left(CLOSE_S) == service._left(0.0) == 0.0

    asyncio.run(main())


def test_a_browsers_camera_is_a_source_like_any_other(tmp_path: Path) -> None:
    async def main() -> None:
        picture = cv2.imencode(".jpg", np.full((120, 160, 3), 90, np.uint8))[1].tobytes()
        async with serving(tmp_path) as service, joined(service) as client:
            camera_url = service.events_url + "camera"
            origin: Any = service.url.rstrip("/")
            async with connect(camera_url, origin=origin, subprotocols=[Subprotocol("apexstream.v1")]) as camera:
                await camera.send(json.dumps({"type": "camera", "v": 1, "name": "phone", "consent": True}))
                await received(camera, type="status", stream="phone")
                for number in range(2):
                    await camera.send(struct.pack(">d", number / 10) + picture)
                seen: dict[str, dict[str, Any]] = {}
                while not {"signal", "live"} <= seen.keys():  # in either order, and the state once on a busy machine
                    message = await received(client, stream="phone")
                    seen[message.get("state", message["type"])] = message
                live = seen["live"]
                assert seen["signal"]["faces"] == []
                assert live["kind"] == "browser" and (live["width"], live["height"]) == (160, 120)
            assert (await received(client, type="removed"))["stream"] == "phone"
            assert "phone" not in (await fetched(f"{service.url}metrics")).decode()
            assert not service.session._streams

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_shuts_the_process_down_gracefully(number: int, video: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "apexstream", "live", str(video), "--loop"]
    process = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    async def follow() -> int | None:
        await asyncio.to_thread(first_line)
        async with connect(f"ws://127.0.0.1:{port}/") as client:
            await received(client, type="expression", state="provisional")
            process.send_signal(number)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        await client.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else None

    def first_line() -> str:
        assert process.stdout is not None
        return next(line for line in process.stdout if line.strip().startswith("stored"))

    try:
        assert asyncio.run(follow()) == 1001
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert "Traceback" not in log and "ended in" in log
        with Reader(tmp_path) as stored:
            assert stored.since(0)[-1].get("truncated"), "what was open was flushed and stored"
    finally:
        process.kill()
        process.communicate()


def test_the_model_is_known_before_anything_is_loaded() -> None:
    assert model_of(RecognizerSettings()).startswith("ahmsa-3db@sha256:")
    with pytest.raises(WeightsError):
        model_of(RecognizerSettings(weights=Path("none.onnx")))


def test_a_first_signal_after_the_loop_is_closed_is_no_error() -> None:
    async def enter() -> AbstractContextManager[asyncio.Event]:
        block = stop_event()
        block.__enter__()
        return block

    block = asyncio.run(enter())
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        block.__exit__(None, None, None)
