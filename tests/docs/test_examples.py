"""The examples of the documentation, run as they stand."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from stream.events.store import Store
from stream.protocol import read_client
from tests.browser import PATIENCE_MS, RunningService, chromium
from tests.events import decided, stored
from tests.live import PATIENCE_S
from tests.schema import FROM_CLIENT, FROM_SERVER, problems

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
PROTOCOL = EXAMPLES.parent / "protocol.md"
TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize("name", ["watch.py", "watch.html"])
def test_examples_are_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 30


def blocks(language: str) -> list[str]:
    """The code in docs/protocol.md."""
    return re.findall(rf"```{language}\n(.*?)```", PROTOCOL.read_text(encoding="utf-8"), re.DOTALL)


def test_what_the_protocol_shows_is_what_is_sent_and_understood() -> None:
    *sent, said = blocks("json")
    assert [problems(json.loads(message)) for message in sent] == [[], []]
    for line in said.splitlines():
        assert read_client(line).type == json.loads(line)["type"]


def test_the_protocol_tells_every_error_code_and_type() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (EXAMPLES.parents[1] / "stream").rglob("*.py"))
    codes = set(re.findall(r'wire\.error\(\s*"(\w+)"', sources))
    assert len(codes) >= 4
    told = PROTOCOL.read_text(encoding="utf-8")
    assert [
        name for name in codes | set(FROM_SERVER) | set(FROM_CLIENT) if f"`{name}`" not in told and f'"{name}"' not in told
    ] == []


@contextmanager
def printing(*args: object) -> Iterator[subprocess.Popen[str]]:
    """The Python example in a process of its own, ended after the test or when it takes too long."""
    example = subprocess.Popen(
        [sys.executable, EXAMPLES / "watch.py", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "APEXSTREAM_TOKEN": TOKEN},
    )
    timer = threading.Timer(PATIENCE_S, example.kill)
    timer.start()
    try:
        yield example
    finally:
        timer.cancel()
        example.kill()
        rest, news = example.communicate()
    assert rest == ""
    assert "Traceback" not in news


def test_the_python_example_sees_each_event_once_over_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append([stored(1), stored(2)])
    with ExitStack() as stack:
        with RunningService(tmp_path, token=TOKEN) as service:
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


@contextmanager
def page_server() -> Iterator[str]:
    """The folder of the examples as a web server somewhere else has it; its origin."""

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
        with RunningService(tmp_path, **server) as service:
            port = service.settled_port
            page.goto(f"{origin}/watch.html?service=ws://127.0.0.1:{port}#{TOKEN}")
            expect(page.locator("#state")).to_have_text("connected", timeout=PATIENCE_MS)
            service.tell(decided(2, stream="door"))
            expect(items).to_have_count(2, timeout=PATIENCE_MS)
        expect(page.locator("#state")).to_have_text("no connection, trying again", timeout=PATIENCE_MS)
        with RunningService(tmp_path, port=port, **server) as again:
            again.tell(decided(3, label="positive"))
            expect(items).to_have_count(3, timeout=PATIENCE_MS)
        assert shown(page) == [("1", "lobby: surprise"), ("2", "door: surprise"), ("3", "lobby: positive")]
        assert errors == []
