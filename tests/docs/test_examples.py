"""The examples of the documentation, run unchanged."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from redis import Redis

from stream.events.store import Store
from stream.protocol import read_client
from tests.broker import free_port
from tests.browser import PATIENCE_MS, RunningService, chromium
from tests.events import decided, stored
from tests.live import PATIENCE_S
from tests.proxy import Proxy, proxied
from tests.redis_server import redis_server
from tests.schema import FROM_CLIENT, FROM_SERVER, problems

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
PROTOCOL = EXAMPLES.parent / "protocol.md"
TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(("name", "lines"), [("watch.py", 30), ("watch.html", 30), ("consume.py", 30)])
def test_examples_are_short(name: str, lines: int) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= lines


def blocks(language: str) -> list[str]:
    """The code in docs/protocol.md."""
    return re.findall(rf"```{language}\n(.*?)```", PROTOCOL.read_text(encoding="utf-8"), re.DOTALL)


def test_the_messages_in_the_protocol_are_valid() -> None:
    *from_server, from_client = blocks("json")
    assert [problems(json.loads(message)) for message in from_server] == [[], [], []]
    for line in from_client.splitlines():
        assert read_client(line).type == json.loads(line)["type"]


def test_the_protocol_documents_every_error_code_and_type() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (EXAMPLES.parents[1] / "stream").rglob("*.py"))
    codes = set(re.findall(r'\w\.error\(\s*"(\w+)"', sources))
    assert len(codes) >= 4
    text = PROTOCOL.read_text(encoding="utf-8")
    names = codes | set(FROM_SERVER) | set(FROM_CLIENT)
    assert [name for name in names if f"`{name}`" not in text and f'"{name}"' not in text] == []


@contextmanager
def printing(*args: object, name: str = "watch.py", **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A Python example as a subprocess, killed after the test or after a timeout."""
    example = subprocess.Popen(
        [sys.executable, EXAMPLES / name, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "APEXSTREAM_TOKEN": TOKEN, **variables},
    )
    timer = threading.Timer(PATIENCE_S, example.kill)
    timer.start()
    try:
        yield example
    finally:
        timer.cancel()
        example.kill()
        output, errors = example.communicate()
        assert "Traceback" not in errors, errors
    assert output == ""


def test_the_python_example_sees_each_event_once_over_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1), stored(2)])
    with ExitStack() as stack:
        with RunningService(tmp_path, token=TOKEN, port=free_port()) as service:
            port = service.settled_port
            example = stack.enter_context(printing(f"ws://127.0.0.1:{port}", 1))
            assert example.stdout is not None
            assert example.stdout.readline() == "2 lobby micro surprise\n"
            service.tell(decided(3, stream="door"))
            assert example.stdout.readline() == "3 door micro surprise\n"
        with Store(tmp_path) as between:
            between.append([stored(4)])
        with RunningService(tmp_path, token=TOKEN, port=port) as again:
            assert example.stdout.readline() == "4 lobby micro surprise\n"
            again.tell(decided(5, label="positive"))
            assert example.stdout.readline() == "5 lobby micro positive\n"


def numbered(number: int) -> dict[str, Any]:
    return {**stored(number), "seq": number}


def line(number: int) -> str:
    """What is printed of an event."""
    return f"desk {json.dumps(numbered(number))}\n"


def published(redis: Redis, *numbers: int) -> None:
    """Entries as a node writes them, which is listed."""
    redis.hset("apexstream:nodes", "desk:5a", "{}")
    for number in numbers:
        entry: Any = {"event": json.dumps(numbered(number))}
        redis.xadd("apexstream:events:desk:5a", entry, id=f"{number}-0")


def waiting(redis: Redis) -> None:
    """Returns once a client waits for entries, which it is when nothing happens."""
    deadline = time.monotonic() + PATIENCE_S
    while not redis.info("clients")["blocked_clients"]:
        assert time.monotonic() < deadline, "no client waits"
        time.sleep(0.01)


def test_a_member_of_a_group_has_credentials_and_outlives_the_group(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "fleet.md").read_text(encoding="utf-8")
    rights = re.findall(r"^ACL SETUSER hub +(.*)$", text, re.MULTILINE)[0].split()
    (more,) = re.findall(r"its user also needs `(.*?)`", text, re.DOTALL)
    variables = {"APEXSTREAM_REDIS_USERNAME": "reader", "APEXSTREAM_REDIS_PASSWORD": "PASSWORD"}
    with redis_server(tmp_path) as server:
        redis = server.client()
        redis.execute_command("ACL", "SETUSER", "reader", *rights, *more.split())
        published(redis, 1)
        with printing(server.url, "mailer", "first", name="consume.py", **variables) as example:
            assert example.stdout is not None
            assert example.stdout.readline() == line(1)
            waiting(redis)
            redis.xgroup_destroy("apexstream:events:desk:5a", "mailer")
            assert example.stdout.readline() == line(1), "the new group begins at the first"
            waiting(redis)
            redis.flushall()
            published(redis, 1, 2)
            lines = [example.stdout.readline() for _ in range(2)]
            assert lines == [line(1), line(2)]


def test_a_member_of_a_group_outlives_redis_and_what_is_no_event(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        published(server.client(), 1)
        with printing(server.url, "mailer", "first", name="consume.py") as example:
            assert example.stdout is not None and example.stderr is not None
            assert example.stdout.readline() == line(1)
            waiting(server.client())
            server.kill()
            server.forget()
            server.start()
            assert "trying again" in example.stderr.readline()
            damaged: list[Any] = [{"event": b"\xff"}, {"other": "field"}]
            for number, entry in enumerate(damaged, start=1):
                server.client().xadd("apexstream:events:desk:5a", entry, id=f"{number}-0")
            published(server.client(), 3)
            printed = [example.stdout.readline() for _ in range(3)]
            assert printed == ["desk \N{REPLACEMENT CHARACTER}\n", "desk None\n", line(3)]


def test_a_redis_that_is_emptied_before_a_group_is_made_ends_no_member(tmp_path: Path) -> None:
    async def main() -> list[str]:
        def emptied(first: bytes) -> bool:
            if b"XGROUP" in first and not done:
                done.append(redis.flushall())
                published(redis, 2)
                redis.rename("apexstream:events:desk:5a", "elsewhere")
            return True

        done: list[Any] = []
        async with proxied(Proxy(server.port, emptied)) as network:
            url = f"redis://127.0.0.1:{network.port}"
            with printing(url, "mailer", "first", name="consume.py") as example:
                assert example.stdout is not None
                while not done:
                    await asyncio.sleep(0.01)
                redis.rename("elsewhere", "apexstream:events:desk:5a")
                return [await asyncio.to_thread(example.stdout.readline)]

    with redis_server(tmp_path) as server:
        redis = server.client()
        published(redis, 1)
        assert asyncio.run(main()) == [line(2)]


def test_two_members_of_a_group_share_the_events_and_one_takes_over_those_of_the_other(tmp_path: Path) -> None:
    key = "apexstream:events:desk:5a"
    with redis_server(tmp_path) as server:
        redis = server.client()

        def add(*numbers: int) -> None:
            published(redis, *numbers)

        add(1, 2)
        redis.xgroup_create(key, "mailer", id="0")
        redis.xreadgroup("mailer", "killed", {key: ">"}, count=1)  # read, and not confirmed
        arguments = (server.url, "mailer", "first", "0.1")
        with printing(*arguments, name="consume.py") as example:
            assert example.stdout is not None
            lines = {example.stdout.readline() for _ in range(2)}
            assert lines == {line(1), line(2)}
            add(3)
            assert example.stdout.readline() == line(3)
            while (pending := redis.xpending(key, "mailer")) and pending["pending"]:
                time.sleep(0.01)
        with printing(*arguments, name="consume.py") as again:
            assert again.stdout is not None
            add(4)
            assert again.stdout.readline() == line(4)


@contextmanager
def page_server() -> Iterator[str]:
    """A web server of another origin with the folder of the examples; yields its origin."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=EXAMPLES))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shown(page: Page) -> list[tuple[str | None, str]]:
    return [(item.get_attribute("value"), item.inner_text()) for item in page.locator("#events li").all()]


def test_the_browser_example_sees_each_event_once_over_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1)])
    with page_server() as origin, sync_playwright() as playwright, chromium(playwright) as browser:
        server = {"token": TOKEN, "origins": (origin,)}
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        items = page.locator("#events li")
        with RunningService(tmp_path, port=free_port(), **server) as service:
            port = service.settled_port
            page.goto(f"{origin}/watch.html?service=ws://127.0.0.1:{port}#{TOKEN}")
            expect(page.locator("#state")).to_have_text("connected", timeout=PATIENCE_MS)
            service.tell(decided(2, stream="door"))
            expect(items).to_have_count(2, timeout=PATIENCE_MS)
        expect(page.locator("#state")).to_have_text("no connection, retrying", timeout=PATIENCE_MS)
        with RunningService(tmp_path, port=port, **server) as again:
            again.tell(decided(3, label="positive"))
            expect(items).to_have_count(3, timeout=PATIENCE_MS)
        assert shown(page) == [("1", "lobby: surprise"), ("2", "door: surprise"), ("3", "lobby: positive")]
        assert errors == []
