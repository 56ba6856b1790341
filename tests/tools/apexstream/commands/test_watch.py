from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

import pytest

from apexstream.cli import main
from apexstream.commands.watch import line
from stream.events.store import Store
from stream.messages import NodeStatus, SourceStatus
from stream.service import Service
from tests.events import decided, stored
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[4]
DEADLINE_S = 30
TOKEN = "a-token-of-some-length"


class Watching:
    """The real command in a process of its own."""

    def __init__(self, url: str, *args: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apexstream", "watch", url, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )

    async def line(self, *, err: bool = False) -> str:
        """The next line it prints."""
        stream: IO[str] | None = self.process.stderr if err else self.process.stdout
        assert stream is not None
        return await asyncio.wait_for(asyncio.to_thread(stream.readline), DEADLINE_S)

    async def ended(self) -> tuple[int, str, str]:
        """Exit code and what else it printed."""
        out, err = await asyncio.wait_for(asyncio.to_thread(self.process.communicate), DEADLINE_S)
        return self.process.returncode, out, err


@asynccontextmanager
async def watching(url: str, *args: object, **environment: str) -> AsyncIterator[Watching]:
    started = Watching(url, *args, **environment)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.communicate()


@contextmanager
def service_of(folder: Path, **server: object) -> Iterator[Service]:
    """A service on a thread of its own, for the command run in this very process."""
    ready, over = threading.Event(), threading.Event()
    running: list[Service] = []

    async def serve() -> None:
        async with serving(folder, **server) as service:
            running.append(service)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        yield running[0]
    finally:
        over.set()
        thread.join(DEADLINE_S)


def run(*args: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["watch", *map(str, args)])
    return ended.value.code


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Store(tmp_path / "data") as store:
        store.append([stored(1), stored(2, stream="door"), stored(3, label="uncertain", confidence=0.4, truncated=True)])
    return tmp_path / "data"


def test_stored_events_are_printed_from_since_on(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service_of(data) as service:
        assert run(service.events_url, "--since", 1, "--count", 2) == 0
    second, third = capsys.readouterr().out.splitlines()
    assert second.startswith("#2 ")
    assert "door, face 0: micro, surprise 92%, from 2.00 s, 0.40 s long" in second
    assert third.endswith("(cut short)")


def test_json_lines_are_what_was_received(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service_of(data) as service:
        assert run(service.url, "--since", 0, "--count", 3, "--json") == 0
    assert [json.loads(text) for text in capsys.readouterr().out.splitlines()] == [
        {**stored(1), "seq": 1},
        {**stored(2, stream="door"), "seq": 2},
        {**stored(3, label="uncertain", confidence=0.4, truncated=True), "seq": 3},
    ]


def test_only_the_streams_asked_for(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service_of(data) as service:
        assert run(service.events_url, "--since", 0, "--stream", "door", "--count", 1) == 0
    assert "door" in capsys.readouterr().out


def test_it_resumes_where_it_ended_the_last_time(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = tmp_path / "note.json"
    seen = []
    with service_of(data) as service:
        assert run(service.events_url, "--since", 0, "--count", 1, "--resume", note, "--json") == 0
        for _ in range(2):
            assert run(service.events_url, "--count", 1, "--resume", note, "--json") == 0
        assert json.loads(note.read_text()) == {"seq": 3, "store": service.store.identity}
    seen = [json.loads(text)["seq"] for text in capsys.readouterr().out.splitlines()]
    assert seen == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["note.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"seq": "3", "store": "x"}',
        '{"seq": 3}',
        '{"seq": -1, "store": "x"}',
        '{"seq": 3, "store": "x", "more": 1}',
        "[" * 100_000,
    ],
)
def test_an_invalid_resume_file_is_reported(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note").write_text(content)
    assert run("ws://127.0.0.1:9", "--resume", tmp_path / "note") == 1
    assert "was not written by --resume" in capsys.readouterr().err


def test_events_and_states_as_they_come_until_ctrl_c(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as service:
            service.hub.post(SourceStatus("lobby", "rtsp", "live"))
            async with watching(service.events_url, "--provisional", "--since", 0) as watch:
                assert await watch.line(err=True) == "apexstream: lobby is live\n"
                service.hub.post(decided(1, state="provisional"))
                service.hub.post(decided(1))
                assert (await watch.line()).startswith("... ")
                assert (await watch.line()).startswith("#1 ")
                service.hub.post(SourceStatus("lobby", "rtsp", "live", fps=29.9))  # the same state
                service.hub.post(NodeStatus("desk", "lost", "nothing was heard of it"))
                assert await watch.line(err=True) == "apexstream: node desk is lost: nothing was heard of it\n"
                service.hub.post(SourceStatus("lobby", "rtsp", "reconnecting", "no picture for 5 s"))
                assert await watch.line(err=True) == "apexstream: lobby is reconnecting: no picture for 5 s\n"
                watch.process.send_signal(signal.SIGINT)
                assert await watch.ended() == (0, "", "")

    asyncio.run(body())


def test_a_restart_of_the_service_loses_no_event(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as service:
            port = service.server.port
            async with watching(f"ws://127.0.0.1:{port}", "--since", 0, "--count", 3, "--json") as watch:
                service.hub.post(decided(1))
                assert json.loads(await watch.line())["seq"] == 1
                await service.__aexit__(None, None, None)
                assert "trying again" in await watch.line(err=True)
                with Store(tmp_path) as between:
                    between.append([stored(2)])
                async with serving(tmp_path, port=port) as again:
                    assert json.loads(await watch.line())["seq"] == 2
                    again.hub.post(decided(3))
                    code, out, _ = await watch.ended()
                assert (code, json.loads(out)["seq"]) == (0, 3)

    asyncio.run(body())


def test_a_token_comes_from_a_file_or_the_environment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.delenv("APEXSTREAM_TOKEN", raising=False)
    with service_of(data, token=TOKEN) as service:
        assert run(service.events_url, "--since", 0, "--count", 1) == 1
        assert "a token is required" in capsys.readouterr().err
        assert run(service.events_url, "--since", 0, "--count", 1, "--token-file", tmp_path / "token") == 0
        monkeypatch.setenv("APEXSTREAM_TOKEN", TOKEN)
        assert run(service.events_url, "--since", 0, "--count", 1) == 0
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err


@pytest.mark.parametrize(
    "args", [("127.0.0.1:8765",), ("ws://x/?since=0",), ("ws://x", "--token-file", "none"), ("wss://x", "--ca", "none")]
)
def test_what_cannot_work_is_reported(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 1
    assert capsys.readouterr().err.startswith("apexstream: error: ")


@pytest.mark.parametrize(
    "args", [(), ("ws://x", "--since", "-1"), ("ws://x", "--since", "99999999999999999999"), ("ws://x", "--count", "0")]
)
def test_wrong_usage_exits_2(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 2
    assert "Usage:" in capsys.readouterr().err


def test_a_line_without_usable_numbers() -> None:
    assert "surprise, from" in line({**stored(1), "seq": 1, "confidence": None})
