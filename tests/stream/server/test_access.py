from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trustme
from websockets.datastructures import Headers

import stream.server.access
from engine.errors import ConfigError
from stream.server.access import (
    GUESSES_PER_S,
    LINE_EVERY_S,
    LOG_EVERY_S,
    MAX_TRACKED,
    REASONS,
    AccessControl,
    Need,
    RateLimit,
    RefusalLog,
    client_key,
    is_loopback,
    tls_context,
)
from stream.settings import TOKEN_VARIABLE, ServerSettings

TOKEN = "a-token-for-tests-0123456789"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reason(access: AccessControl, need: Need, *headers: tuple[str, str]) -> str | None:
    refused = access.check(Headers(list(headers)), need)
    return None if refused is None else refused.reason


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "::ffff:192.168.1.5"])
def test_listening_to_other_machines_needs_a_token_and_the_error_says_how_to_create_one(host: str) -> None:
    with pytest.raises(ConfigError, match=r"token_urlsafe.*APEXSTREAM_TOKEN"):
        AccessControl(ServerSettings(host=host))
    AccessControl(ServerSettings(host=host, token=TOKEN))


@pytest.mark.parametrize("host", ["nosuchhost.invalid", "127.0.0.1.invalid", "a..b"])
def test_an_unknown_host_is_an_error(host: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown host {host}"):
        AccessControl(ServerSettings(host=host))


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert AccessControl(ServerSettings(host="0.0.0.0")).token == TOKEN


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("localhost.evil", False),
    ],
)
def test_loopback_addresses(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765", "192.168.1.5", "LOCALHOST", "box.lan:1"]
)
def test_known_hosts(host: str) -> None:
    assert reason(AccessControl(ServerSettings(hosts=("box.lan",))), "host", ("Host", host)) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil@localhost", "[::1", "", "127.0.0.1.evil", "box.lan", "a b", "localhost:x"],
)
def test_unknown_hosts(host: str) -> None:
    assert reason(AccessControl(ServerSettings()), "host", ("Host", host)) == "host"


def test_exactly_one_host_header_is_accepted() -> None:
    access = AccessControl(ServerSettings())
    assert reason(access, "host") == "host"
    assert reason(access, "host", ("Host", "localhost"), ("Host", "localhost")) == "host"
    assert reason(access, "nothing") is None


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", f"Bearer {TOKEN}"),
        ("authorization", f"bearer  {TOKEN} "),
        ("Sec-WebSocket-Protocol", f"apexstream.v1, apexstream.token.{TOKEN}"),
    ],
)
def test_accepted_tokens(header: tuple[str, str]) -> None:
    assert reason(AccessControl(ServerSettings(token=TOKEN)), "token", ("Host", "localhost"), header) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", TOKEN)],
        [("Authorization", "Bearer täken-\xff")],
        [("Sec-WebSocket-Protocol", f"apexstream.v1, {TOKEN}")],
        [("Sec-WebSocket-Protocol", "apexstream.token.")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer guess")],
        [("Cookie", f"token={TOKEN}")],
    ],
)
def test_rejected_tokens(headers: list[tuple[str, str]]) -> None:
    assert reason(AccessControl(ServerSettings(token=TOKEN)), "token", ("Host", "localhost"), *headers) == "token"


def test_the_page_itself_needs_no_token() -> None:
    assert reason(AccessControl(ServerSettings(token=TOKEN)), "host", ("Host", "localhost")) is None


@pytest.mark.parametrize(
    ("origin", "socket", "camera"),
    [
        (None, None, "origin"),
        ("http://localhost:8765", None, None),
        ("HTTP://LOCALHOST:8765", None, None),
        ("https://localhost:8765", None, None),
        ("https://page.example", None, "origin"),
        ("https://page.example:444", "origin", "origin"),
        ("http://localhost", "origin", "origin"),
        ("http://localhost:8766", "origin", "origin"),
        ("http://evil.example", "origin", "origin"),
        ("null", "origin", "origin"),
        ("", "origin", "origin"),
        ("file://", "origin", "origin"),
    ],
)
def test_origins(origin: str | None, socket: str | None, camera: str | None) -> None:
    access = AccessControl(ServerSettings(origins=("https://page.example/",)))
    headers = [("Host", "localhost:8765"), *([("Origin", origin)] if origin is not None else [])]
    assert reason(access, "socket", *headers) == socket
    assert reason(access, "camera", *headers) == camera
    assert reason(access, "token", *headers) is None


def test_two_origin_headers_are_rejected() -> None:
    own = ("Origin", "http://localhost")
    assert reason(AccessControl(ServerSettings()), "socket", ("Host", "localhost"), own, own) == "origin"


def test_a_refusal_does_not_repeat_the_token() -> None:
    access = AccessControl(ServerSettings(token=TOKEN))
    refused = access.check(Headers([("Host", "localhost"), ("Authorization", f"Bearer {TOKEN}no")]), "token")
    assert refused is not None
    assert TOKEN not in refused.sentence


def test_tls_files(tmp_path: Path) -> None:
    issuer = trustme.CA()
    certificate, other = issuer.issue_cert("localhost"), issuer.issue_cert("localhost")
    chain, key, wrong, text = (tmp_path / name for name in ("chain.pem", "key.pem", "wrong.pem", "text.pem"))
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    other.private_key_pem.write_to_path(wrong)
    text.write_text("no certificate")
    assert tls_context(None, None) is None
    assert tls_context(chain, key) is not None
    with pytest.raises(ConfigError, match=r"wrong\.pem does not belong to it"):
        tls_context(chain, wrong)
    with pytest.raises(ConfigError, match="PEM files are expected"):
        tls_context(text, key)
    with pytest.raises(ConfigError, match="PEM files are expected"):
        tls_context(chain, text)
    with pytest.raises(ConfigError, match=r"certificate .*absent\.pem cannot be read: no such file"):
        tls_context(tmp_path / "absent.pem", key)
    with pytest.raises(ConfigError, match=r"private key .*absent\.pem cannot be read"):
        tls_context(chain, tmp_path / "absent.pem")


def test_a_key_with_a_password_is_an_error_and_never_prompts(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate = trustme.CA().issue_cert("localhost")
    plain = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    locked = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    key.write_bytes(locked)
    with pytest.raises(ConfigError, match="protected by a password"):
        tls_context(chain, key)


def test_a_rate_limit_allows_the_rate_and_bursts_of_twice_as_many() -> None:
    clock = Clock()
    limit = RateLimit(10, clock=clock)
    assert [limit.take() for _ in range(21)] == [True] * 20 + [False]
    clock.now += 0.5
    assert [limit.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now += 1000
    assert sum(limit.take() for _ in range(100)) == 20


def test_refusals_are_logged_once_a_minute_by_reason_and_address(caplog: pytest.LogCaptureFixture) -> None:
    clock, counted = Clock(), list[str]()
    log = RefusalLog(clock=clock, count=counted.append)
    with caplog.at_level(logging.WARNING, "stream.server.access"):
        for _ in range(50):
            log.report("token", "10.0.0.1", "/metrics")
        clock.now += LINE_EVERY_S
        log.report("token", "10.0.0.2")
        log.report("host", "10.0.0.1")
        assert len(caplog.records) == 3
        clock.now += LOG_EVERY_S
        log.report("token", "10.0.0.1")
    assert len(caplog.records) == 4
    assert "49 more" in caplog.text
    assert counted.count("token") == 52


def test_many_addresses_log_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock, counted = Clock(), list[str]()
    log = RefusalLog(clock=clock, count=counted.append)
    with caplog.at_level(logging.WARNING, "stream.server.access"):
        for second in range(3):
            for number in range(100):
                log.report("crowded", f"10.0.{second}.{number}")
            clock.now += LINE_EVERY_S
    assert len(caplog.records) == 3
    assert "(99 more from other addresses)" in caplog.records[1].getMessage()
    assert counted.count("crowded") == 300


def test_an_ipv6_network_counts_as_one_client(caplog: pytest.LogCaptureFixture) -> None:
    assert client_key("2001:db8:1:2::1") == client_key("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert client_key("2001:db8:1:3::1") != client_key("2001:db8:1:2::1")
    assert client_key("fe80::1%eth0") == client_key("fe80::2%eth0")
    assert (client_key("10.0.0.1"), client_key("::1"), client_key("unknown")) == ("10.0.0.1", "::1", "unknown")
    log = RefusalLog(clock=Clock())
    with caplog.at_level(logging.WARNING, "stream.server.access"):
        for k in range(100):
            log.report("token", f"2001:db8::{k:x}")
    assert len(caplog.records) == 1


def test_wrong_tokens_are_rate_limited_by_address() -> None:
    clock = Clock()
    access = AccessControl(ServerSettings(token=TOKEN), clock=clock)

    def ask(token: str | None, address: str) -> int:
        given = [] if token is None else [("Authorization", f"Bearer {token}")]
        refused = access.check(Headers([("Host", "localhost"), *given]), "token", address)
        return 200 if refused is None else refused.status

    burst = int(2 * GUESSES_PER_S)
    assert {ask(None, "10.0.0.1") for _ in range(100)} == {401}, "no token is no guess"
    answers = [ask(f"guess-{k}", "2001:db8::1") for k in range(526)]
    assert (answers.count(401), answers.count(429)) == (burst, 526 - burst)
    assert ask(TOKEN, "2001:db8::2") == 429, "a right guess would be answered like any other"
    assert ask(None, "2001:db8::2") == 401
    assert ask(TOKEN, "10.0.0.1") == 200
    clock.now += 1
    assert ask(TOKEN, "2001:db8::2") == 200
    assert {ask(f"guess-{k}", "127.0.0.1") for k in range(12)} == {401, 429}
    assert ask(TOKEN, "127.0.0.1") == 200, "others' wrong tokens do not lock a client out"
    for k in range(MAX_TRACKED + 100):
        ask("guess", f"10.1.{k // 256}.{k % 256}")
    assert ask(TOKEN, "10.0.0.1") == 200


def test_a_log_line_contains_no_line_break_of_a_client(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "stream.server.access"):
        RefusalLog().report("path", "10.0.0.1", "/x\r\nrefused 1.2.3.4: forged" + "y" * 10_000)
    assert len(caplog.text.splitlines()) == 1
    assert len(caplog.text) < 500


def test_the_refusal_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    log = RefusalLog(clock=clock)
    monkeypatch.setattr(stream.server.access, "LINE_EVERY_S", 0.0)
    for k in range(MAX_TRACKED + 100):
        log.report("host", f"10.0.{k // 256}.{k % 256}")
    assert len(log._seen) == MAX_TRACKED


def test_every_reason_has_a_description() -> None:
    access = AccessControl(ServerSettings(token=TOKEN))
    own = ("Host", "localhost")
    found = {
        reason(access, "host"),
        reason(access, "token", own),
        reason(access, "camera", own, ("Authorization", f"Bearer {TOKEN}")),
    }
    assert found <= REASONS.keys()
