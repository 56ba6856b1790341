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
from redis.exceptions import AuthenticationError, ExecAbortError, MovedError, RedisError, ResponseError

from engine.errors import ConfigError, OutputError
from stream.outlets import redis_connection
from stream.outlets.redis_connection import async_client, client, explained, is_full, redis_errors
from stream.outlets.settings import RedisSettings
from tests.broker import free_port
from tests.redis_server import redis_server

SECRET = "s3cret-word"


def ask(url: str, **settings: Any) -> None:
    """One command that writes."""
    given = RedisSettings(url=url, **settings)
    with redis_errors(given), client(given, "test") as redis, redis.pipeline(transaction=True) as commands:
        commands.xadd("apexstream:test", {"event": "{}"}, nomkstream=True)
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


@contextmanager
def impatient() -> Iterator[None]:
    """For what is never answered; what is answered may take its time on a busy machine."""
    with pytest.MonkeyPatch.context() as patched:
        for limit in ("CONNECT_S", "ANSWER_S", "PROBE_S"):
            patched.setattr(redis_connection, limit, 0.3)
        yield


def test_a_wrong_address() -> None:
    port = free_port()
    assert refusal(f"redis://127.0.0.1:{port}") == f"redis://127.0.0.1:{port}/0 cannot be reached: connection refused"
    assert "redis://no.such.host.invalid:6379/0 cannot be reached: " in refusal("redis://no.such.host.invalid")


@pytest.mark.parametrize(
    "answer", ["HTTP/1.1 400 Bad Request\r\n\r\n", f":{SECRET}\r\n", f"${SECRET}\r\n", "*x\r\n", "*1\r\n" * 2000]
)
def test_what_is_no_redis(answer: str) -> None:
    with answering(answer.encode()) as port:
        assert refusal(f"redis://127.0.0.1:{port}", password=SECRET) == f"redis://127.0.0.1:{port}/0 does not speak Redis"


def test_what_answers_nothing() -> None:
    with answering(b"") as port, impatient():
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
        (tmp_path / "password").write_text(SECRET)
        ask(shown, password_file=tmp_path / "password")
        monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD", SECRET)
        ask(shown)
        monkeypatch.setenv("APEXSTREAM_REDIS_USERNAME", "reader")
        assert refusal(shown) == forbidden
    assert SECRET not in caplog.text


def test_a_server_without_a_password(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        expected = f"{server.url} has no password; leave APEXSTREAM_REDIS_PASSWORD empty, or set one there"
        assert refusal(server.url, password=SECRET) == expected


@pytest.mark.parametrize("kind", [AuthenticationError, ResponseError])
def test_a_password_that_cannot_be_read_any_more_hides_no_sentence(tmp_path: Path, kind: type[RedisError]) -> None:
    settings = RedisSettings(url="redis://a", password_file=tmp_path / "removed")
    sentence = explained(settings, kind(f"unknown {SECRET}"))
    assert sentence.startswith("redis://a:6379/0 refuses ") and SECRET not in sentence


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
        with impatient():  # a plain server waits for the end of a line
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


def test_what_is_refused_in_a_transaction_is_named_without_the_transaction(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        server.client().set("apexstream:test", "no stream")
        assert refusal(server.url).startswith(f"{server.url} refuses a command: WRONGTYPE Operation against a key holding")


def test_a_redis_that_is_too_old() -> None:
    said = (
        "Command # 1 (XADD apexstream:test NOMKSTREAM ...) of pipeline caused error: Invalid stream ID specified as stream ..."
    )
    sentence = explained(RedisSettings(url="redis://a"), ResponseError(said))
    assert sentence == "redis://a:6379/0 is older than Redis 6.2, which is needed"


def test_memory_that_ends_within_a_transaction() -> None:
    error = ExecAbortError("Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.")
    assert is_full(error) and "is full (maxmemory)" in explained(RedisSettings(url="redis://a"), error)
    assert not is_full(ExecAbortError("Transaction discarded because of previous errors."))


def test_a_server_of_a_cluster_and_one_without_room(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    with redis_server(tmp_path / "cluster", "--cluster-enabled", "yes") as cluster:
        assert refusal(cluster.url) == f"{cluster.url} belongs to a cluster; name a single server"
    with redis_server(tmp_path, "--maxclients", "1") as full, full.client() as other:
        assert other.ping()
        assert refusal(full.url) == f"{full.url} has no room for another client (maxclients)"
        assert explained(RedisSettings(url="redis://a"), MovedError("1 b:6379")).endswith("a cluster; name a single server")


def test_a_connection_that_is_lost_or_hangs(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        settings = RedisSettings(url=server.url)
        with client(settings, "test") as redis:
            redis.ping()
        with impatient(), client(settings, "test") as redis:
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
