from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.exceptions import RedisError

from engine.errors import ConfigError, OutputError
from stream.outlets import redis_connection
from stream.outlets.redis_connection import async_client, client, explained, redis_errors
from stream.outlets.settings import RedisSettings
from tests.broker import free_port
from tests.redis_server import redis_server

SECRET = "s3cret-word"


def ask(url: str, **settings: Any) -> None:
    """One command that writes."""
    given = RedisSettings(url=url, **settings)
    with redis_errors(given), client(given, "test") as redis, redis.pipeline(transaction=True) as commands:
        commands.set("apexstream:test", "1", px=1000)
        commands.execute()


def refusal(url: str, **settings: Any) -> str:
    with pytest.raises(OutputError) as refused:
        ask(url, **settings)
    sentence = str(refused.value)
    assert SECRET not in sentence and "\n" not in sentence
    return sentence


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """The port of a server that answers whatever it is sent with the same bytes; with b"" it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    if answer:
                        connection.sendall(answer)
                    else:
                        connection.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("CONNECT_S", "ANSWER_S", "PROBE_S"):
        monkeypatch.setattr(redis_connection, limit, 0.5)


def test_a_wrong_address() -> None:
    port = free_port()
    assert refusal(f"redis://127.0.0.1:{port}") == f"redis://127.0.0.1:{port}/0 cannot be reached: connection refused"
    assert "redis://no.such.host.invalid:6379/0 cannot be reached: " in refusal("redis://no.such.host.invalid")


def test_what_is_no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert refusal(f"redis://127.0.0.1:{port}") == f"redis://127.0.0.1:{port}/0 does not speak Redis"
    with answering(b"") as port:
        assert refusal(f"redis://127.0.0.1:{port}") == f"redis://127.0.0.1:{port}/0 does not answer"


def test_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    acl = ("--user", "reader", "on", f">{SECRET}", "~apexstream:*", "+@read", "+@connection", "+multi", "+exec")
    with caplog.at_level(logging.DEBUG), redis_server(tmp_path, "--requirepass", SECRET, *acl) as server:
        shown = server.url
        demanded = f"{shown} demands a password; put it into the environment variable APEXSTREAM_REDIS_PASSWORD"
        assert refusal(shown) == demanded
        refused = f"{shown} refuses the user name or password; check APEXSTREAM_REDIS_USERNAME and APEXSTREAM_REDIS_PASSWORD"
        assert refusal(shown, password="another") == refused
        assert refusal(shown, username="nobody", password=SECRET) == refused
        forbidden = f"{shown} refuses a command: the user's rights (ACL) do not allow it"
        assert refusal(shown, username="reader", password=SECRET) == forbidden
        ask(shown, password=SECRET)
        monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD", SECRET)
        ask(shown)
        monkeypatch.setenv("APEXSTREAM_REDIS_USERNAME", "reader")
        assert refusal(shown) == forbidden
    assert SECRET not in caplog.text


def test_a_server_that_repeats_the_password_does_not_get_it_printed(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--rename-command", "AUTH", "") as server:
        assert refusal(server.url, password=SECRET) == f"{server.url} refuses a command: unknown command 'AUTH'"
    with answering(f"-WHAT is {SECRET}?\r\n".encode()) as port:
        assert refusal(f"redis://127.0.0.1:{port}", password=SECRET).endswith("refuses a command: WHAT is ...?")


def test_encryption_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with redis_server(tmp_path, tls=True) as encrypted, redis_server(tmp_path / "plain") as plain:
        ask(encrypted.url, ca=encrypted.ca)
        there = f"127.0.0.1:{encrypted.port}"
        assert refusal(f"redis://{there}") == f"redis://{there}/0 demands TLS; use rediss:// in place of redis://"
        untrusted = refusal(encrypted.url)
        assert untrusted.startswith(f"the certificate of rediss://{there}/0 is not accepted: self")
        assert untrusted.endswith("; check ca and the host's name")
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        assert "is not accepted" in refusal(encrypted.url, ca=tmp_path / "other.pem")
        there = f"127.0.0.1:{plain.port}"
        wrong = refusal(f"rediss://{there}", ca=encrypted.ca)
        assert wrong == f"rediss://{there}/0 does not speak TLS; use redis:// in place of rediss://"
        with pytest.raises(ConfigError, match=r"redis\.ca: .*missing\.pem cannot be read"):
            ask(encrypted.url, ca=tmp_path / "missing.pem")


def test_a_full_server_a_replica_and_a_database_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    with redis_server(tmp_path, "--maxmemory", "1") as full:
        waits = "is full (maxmemory): events wait in this node's store until there is room"
        assert refusal(full.url) == f"{full.url} {waits}"
        assert refusal(full.url[:-1] + "99").endswith("refuses a command: DB index is out of range")
        with redis_server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {full.port}") as replica:
            assert refusal(replica.url) == f"{replica.url} is a read-only replica; name its primary"


def test_a_connection_that_is_lost_or_hangs(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        settings = RedisSettings(url=server.url)
        with client(settings, "test") as redis:
            redis.ping()
            server.freeze(True)
            with pytest.raises(OutputError, match="does not answer"), redis_errors(settings):
                redis.ping()
            server.kill()
            with pytest.raises(OutputError, match="cannot be reached: connection refused"), redis_errors(settings):
                redis.ping()


def test_the_client_of_an_event_loop_has_the_same_sentences(tmp_path: Path) -> None:
    async def main() -> str:
        settings = RedisSettings(url=server.url, password="another")
        try:
            async with async_client(settings, "test", waits_s=1.0) as redis:
                await redis.ping()
        except RedisError as error:
            return explained(settings, error)
        return ""

    with redis_server(tmp_path, "--requirepass", SECRET) as server:
        assert asyncio.run(main()).startswith(f"{server.url} refuses the user name or password")


def test_without_the_package_it_is_named() -> None:
    script = """
import sys
sys.modules["redis"] = None
from engine.errors import BackendError
from stream.outlets.redis_connection import client
from stream.outlets.settings import RedisSettings
try:
    client(RedisSettings(url="redis://a"), "b")
except BackendError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "redis-py is not installed; run pip install 'apexstream[redis]'\n"
