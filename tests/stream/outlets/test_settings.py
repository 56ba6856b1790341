from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import ValidationError

from engine.errors import ConfigError
from stream.outlets.settings import LslSettings, MqttSettings, RedisSettings, host_name


def mqtt(**settings: Any) -> MqttSettings:
    return MqttSettings(**{"host": "broker.example", **settings})


def test_the_port_follows_the_encryption() -> None:
    assert mqtt().shown == "mqtt://broker.example:1883" and mqtt(tls=True).shown == "mqtts://broker.example:8883"
    assert mqtt(host="::1", port=9).shown == "mqtt://[::1]:9"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"host": "mqtt://broker"}, "a host name or address without scheme"),
        ({"host": "a b"}, "a host name or address without scheme"),
        ({"topic": "a/#"}, "up to 200 characters without"),
        ({"topic": "/a"}, "up to 200 characters without"),
        ({"topic": "a/"}, "up to 200 characters without"),
        ({"topic": "$SYS"}, "up to 200 characters without"),
        ({"discovery_prefix": "home assistant"}, "letters, digits, _ and - are expected"),
        ({"username": "a", "password": "b", "password_env": "C"}, "give one of password, password_env and password_file"),
        ({"password": "b"}, "a password needs a username"),
        ({"ca": "ca.pem"}, "ca, certificate and key need tls = true"),
        ({"tls": True, "key": "key.pem"}, "certificate and key go together"),
        ({"version": "4"}, "should be '5' or '3.1.1'"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        mqtt(**settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"markers": False, "events": False}, "switch one of them on"),
        ({"markers": False, "activities": True}, "need markers = true"),
        ({"delay_ms": -1}, "greater than or equal to 0"),
    ],
)
def test_streams_that_make_no_sense_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        LslSettings(**settings)


def test_the_password_comes_from_one_of_three_places_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, word = tmp_path / "password", "s3cret word"
    path.write_text(word + "\n")
    path.chmod(0o644)
    monkeypatch.setenv("BROKER", word)
    for given in ({"password": word}, {"password_env": "BROKER"}, {"password_file": path}):
        settings = mqtt(username="me", **given)
        assert settings.secret() == word and word not in repr(settings) + settings.shown
    assert mqtt().secret() is None
    assert path.stat().st_mode & 0o007 == 0 and word not in caplog.text


@pytest.mark.parametrize(("content", "problem"), [(None, "No such file"), (b"", "is empty"), (b"\xff", "not UTF-8")])
def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"mqtt\.password_file: .*password .*{problem}"):
        mqtt(username="me", password_file=path).secret()


def test_certificates_are_checked_when_they_are_loaded(tmp_path: Path) -> None:
    assert mqtt().tls_context() is None and mqtt(tls=True).tls_context() is not None
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued, other = authority.issue_cert("client"), authority.issue_cert("other")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    files: dict[str, Any] = {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}
    assert mqtt(tls=True, **files).tls_context() is not None
    (tmp_path / "none.pem").write_text("no certificate")
    for change, problem in (
        ({"ca": tmp_path / "none.pem"}, r"mqtt\.ca: .*none\.pem does not hold certificates \(PEM\)"),
        ({"ca": tmp_path / "missing.pem"}, r"mqtt\.ca: .*missing\.pem cannot be read: No such file"),
        ({"key": tmp_path / "other.pem"}, r"mqtt\.certificate: .*does not hold a certificate for the unencrypted key"),
    ):
        with pytest.raises(ConfigError, match=problem):
            mqtt(tls=True, **{**files, **change}).tls_context()


def test_a_private_key_with_a_password_is_refused_without_asking(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    issued = trustme.CA().issue_cert("client")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigError, match="unencrypted key"):
        mqtt(tls=True, certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem").tls_context()


@pytest.mark.parametrize(
    ("url", "shown", "address"),
    [
        ("redis://a.example", "redis://a.example:6379/0", ("a.example", 6379, 0)),
        ("rediss://10.0.0.7:7000/3", "rediss://10.0.0.7:7000/3", ("10.0.0.7", 7000, 3)),
        ("redis://[::1]:6380/", "redis://[::1]:6380/0", ("::1", 6380, 0)),
    ],
)
def test_addresses_of_redis(url: str, shown: str, address: tuple[str, int, int]) -> None:
    settings = RedisSettings(url=url)
    assert (settings.shown, settings.address, settings.encrypted) == (shown, address, url.startswith("rediss"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": "http://a"}, "an address like redis://HOST:PORT/DB is expected"),
        ({"url": "redis://a:99999"}, "an address like redis://HOST:PORT/DB is expected"),
        ({"url": "redis://a/b"}, "an address like redis://HOST:PORT/DB is expected"),
        ({"url": "redis://me:s3cret@a"}, "put user name and password into APEXSTREAM_REDIS_USERNAME and"),
        ({"url": "redis://a", "ca": "ca.pem"}, "ca, certificate and key need an address with rediss://"),
        ({"url": "redis://a", "node": "a/b"}, "up to 64 letters, digits, dots, _ and - are expected"),
        ({"url": "redis://a", "node": ""}, "up to 64 letters, digits, dots, _ and - are expected"),
        ({"url": "redis://a", "page": "desk:8765"}, "the address of this node's page is expected"),
        ({"url": "redis://a", "max_events": 1}, "greater than or equal to 100"),
    ],
)
def test_what_does_not_fit_redis_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as refused:
        RedisSettings(**settings)
    assert "s3cret" not in str(refused.value.errors(include_input=False))


def test_credentials_of_redis_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RedisSettings(url="redis://a")
    assert (settings.user, settings.secret()) == (None, None)
    monkeypatch.setenv("APEXSTREAM_REDIS_USERNAME", "node")
    monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD", "s3cret")
    assert (settings.user, settings.secret()) == ("node", "s3cret")
    assert RedisSettings(url="redis://a", username="me", password="mine").secret() == "mine"
    (tmp_path / "password").write_text("from a file\n")
    monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD_FILE", str(tmp_path / "password"))
    assert settings.secret() == "from a file"
    monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"APEXSTREAM_REDIS_PASSWORD_FILE: .*none cannot be read"):
        settings.secret()
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("machine", "name"), [("desk-2.lab", "desk-2.lab"), ("-a b ü.c", "a-b-.c"), ("ü", "node"), ("", "node")]
)
def test_the_machines_name_is_a_nodes(machine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: machine)
    assert RedisSettings(url="redis://a").node == host_name() == name
