from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from engine.errors import ConfigError, OutputError
from stream import protocol
from stream.events.store import Store
from stream.outlets import follower, mqtt_connection, outlet
from stream.outlets.identifier import identifier
from stream.outlets.mqtt import POSITION, MqttOutlet
from stream.outlets.settings import MqttSettings
from tests.broker import Broker, broker, receiver
from tests.outlets import context, final, reaches, signal, started, status

EVENT, LABEL = "apexstream/lobby/event", "apexstream/lobby/label"


@pytest.fixture(autouse=True)
def _retried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "RETRY_S", (0.01, 0.05))


def made(store: Store, port: int, sources: tuple[str, ...] = ("lobby",), **settings: Any) -> MqttOutlet:
    return MqttOutlet(MqttSettings(host="127.0.0.1", port=port, **settings), context(store, sources))


def seqs(payloads: list[str]) -> list[int]:
    return [json.loads(payload)["seq"] for payload in payloads]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_events_and_states_are_published_and_the_source_described(store: Store, tmp_path: Path, version: str) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        with started(made(store, server.port, version=version)) as sender:
            sender.offer(status())
            message = final(store, 1)
            sender.offer(message)
            got.until(lambda: got.of("apexstream/lobby/confidence") == ["0.92"], "an event's confidence")
            expected = {"event_type": "micro", **message.body, "store": store.identity, "late": False}
            assert [json.loads(payload) for payload in got.of(EVENT)] == [expected]
            assert got.of(LABEL) == ["surprise"]
            got.until(lambda: got.last("apexstream/lobby/state") == "live", "the state")
            reaches(sender, lambda now: now.sent == 1, "the count")
            assert got.of("apexstream/status") == ["online"]
            with receiver(server.port) as later:
                later.until(lambda: len(later.got) == 6, "what is retained")
                assert {one.topic for one in later.got} == {
                    "apexstream/status",
                    "homeassistant/device/apexstream_lobby/config",
                    *(f"apexstream/lobby/{what}" for what in ("label", "confidence", "speaking", "state")),
                }
                assert all(one.retain and one.qos == 1 for one in later.got)
        got.until(lambda: got.last("apexstream/status") == "offline", "the end")
        assert next(one for one in got.got if one.topic == EVENT).qos == 1


def test_without_home_assistant_nothing_is_described(store: Store, tmp_path: Path) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        with started(made(store, server.port, home_assistant=False, topic="lab/desk")):
            got.until(lambda: got.last("lab/desk/lobby/state") == "starting", "the state")
        assert not [one.topic for one in got.got if one.topic.startswith("homeassistant")]


def test_whether_a_face_speaks(store: Store, tmp_path: Path) -> None:
    topic = "apexstream/lobby/speaking"
    with broker(tmp_path) as server, receiver(server.port) as got, started(made(store, server.port)) as sender:
        for doing, expected in (("speech", "ON"), ("blink", "OFF"), ("speech", "ON")):
            sender.offer(signal(doing))
            got.until(lambda expected=expected: got.last(topic) == expected, expected)  # type: ignore[misc]
        sender.offer(status(state="stalled"))
        got.until(lambda: got.last(topic) == "OFF", "the end of a source that does not send any more")


def test_events_of_a_time_without_a_broker_follow_in_order(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "QUEUED", 7)
    monkeypatch.setattr(follower, "PAGE", 3)
    server = Broker(tmp_path)
    try:
        with started(made(store, server.port)) as sender:
            for number in range(10):
                sender.offer(final(store, number))
            assert "cannot be reached" in reaches(sender, lambda now: now.state == "failing", "the failure").detail
            server.start()
            with receiver(server.port) as first:
                reaches(sender, lambda now: now.sent == 10, "the first ten")
                for number in range(10, 15):
                    sender.offer(final(store, number))
                first.until(lambda: first.of(EVENT) != [] and seqs(first.of(EVENT))[-1] == 15, "the next five")
            server.stop()
            for number in range(15, 40):
                sender.offer(final(store, number))
            reaches(sender, lambda now: now.state == "failing", "the broker's end to be noticed")
            server.start()
            with receiver(server.port) as second:
                reaches(sender, lambda now: now.sent == 40, "all of them")
                sender.offer(final(store, 40))
                second.until(lambda: second.of(EVENT) != [] and seqs(second.of(EVENT))[-1] == 41, "the last one")
                order = seqs(second.of(EVENT))
                assert order == sorted(order) and len(set(order)) == len(order), "in order, none twice"
    finally:
        server.stop()
    assert json.loads((tmp_path / POSITION).read_text()) == {"store": store.identity, "seq": 41}


def test_what_was_not_delivered_follows_after_a_restart_and_what_was_does_not(store: Store, tmp_path: Path) -> None:
    final(store, 0)  # before the outlet was ever used: not sent
    with broker(tmp_path) as server, receiver(server.port) as got:
        with started(made(store, server.port)) as sender:
            sender.offer(final(store, 1))
            reaches(sender, lambda now: now.sent == 1, "the first")
        for number in (2, 3):
            final(store, number, age_s=60.0)
        with started(made(store, server.port)) as sender:
            reaches(sender, lambda now: now.sent == 2, "those from between")
        assert seqs(got.of(EVENT)) == [2, 3, 4]
        assert [json.loads(payload)["late"] for payload in got.of(EVENT)] == [False, True, True]


def test_the_last_events_are_delivered_before_it_ends(store: Store, tmp_path: Path) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        with started(made(store, server.port)) as sender:
            reaches(sender, lambda now: now.state == "working", "the connection")
            for number in range(20):
                sender.offer(final(store, number))
        got.until(lambda: got.last("apexstream/status") == "offline", "the end")
        assert seqs(got.of(EVENT)) == list(range(1, 21))


def test_a_source_that_there_is_no_more_is_forgotten(store: Store, tmp_path: Path) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        with started(made(store, server.port, ("lobby", "cellar"))):
            got.until(lambda: got.last("apexstream/cellar/state") == "starting", "the state")
        with started(made(store, server.port)):
            got.until(lambda: got.last("apexstream/cellar/state") == "", "its removal")
            assert got.last("homeassistant/device/apexstream_cellar/config") == ""
        with receiver(server.port) as later:
            later.until(lambda: later.last("apexstream/lobby/state") is not None, "what is retained")
            assert not [one.topic for one in later.got if "cellar" in one.topic]


def test_what_another_program_keeps_at_the_broker_stays(store: Store, tmp_path: Path) -> None:
    with broker(tmp_path) as server, receiver(server.port) as got:
        with started(made(store, server.port, ("lobby", "cellar"), topic="home")):
            got.until(lambda: got.last("home/cellar/state") == "starting", "the state")
        got.publish("home/alamp/state", "ON")
        with started(made(store, server.port, topic="home")):
            got.until(lambda: got.last("home/cellar/state") == "", "the removal of a source, which comes after the lamp")
        with receiver(server.port) as later:
            later.until(lambda: later.last("home/alamp/state") == "ON", "the lamp")


def test_a_browsers_camera_is_a_source_until_it_is_removed(store: Store, tmp_path: Path) -> None:
    topic = f"apexstream/{identifier('my desk')}/state"
    with broker(tmp_path) as server, receiver(server.port) as got, started(made(store, server.port, ())) as sender:
        sender.offer(status("my desk"))
        got.until(lambda: got.last(topic) == "live", "its state")
        sender.offer(protocol.removed("my desk"))
        got.until(lambda: got.last(topic) == "removed", "its end")


def password_file(tmp_path: Path) -> Path:
    """Of the user "apex" whose password is "s3cret-word", as mosquitto_passwd writes it."""
    path = tmp_path / "users"
    path.write_text("apex:s3cret-word\n")
    return path


def with_password(tmp_path: Path, more: str = "") -> str:
    subprocess.run(["mosquitto_passwd", "-U", str(password_file(tmp_path))], check=True)
    return f"allow_anonymous false\npassword_file {tmp_path / 'users'}\n{more}"


def test_a_wrong_password_is_one_sentence_without_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with broker(tmp_path, with_password(tmp_path)) as server:
        with started(made(store, server.port, username="apex", password="wr0ng-word")) as sender:
            reported = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
        assert reported == (
            f"mqtt://127.0.0.1:{server.port} refuses the connection: Not authorized; check username and password"
        )
        assert "wr0ng-word" not in caplog.text and caplog.text.count("refuses") == 1, "logged once, however often it is tried"
        monkeypatch.setenv("BROKER_PASSWORD", "s3cret-word")
        with started(made(store, server.port, username="apex", password_env="BROKER_PASSWORD")) as sender:
            reaches(sender, lambda now: now.state == "working", "the right password")


def test_a_topic_that_is_refused_is_one_sentence_and_its_events_wait(store: Store, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("user apex\ntopic write apexstream/status\n")
    options = with_password(tmp_path, f"acl_file {rules}")
    credentials = {"username": "apex", "password": "s3cret-word"}
    with broker(tmp_path, options) as server, started(made(store, server.port, **credentials)) as sender:
        sender.offer(final(store, 1))
        reported = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
        assert "refuses messages at" in reported and "Not authorized" in reported
        assert sender.status.sent == 0
        assert json.loads((tmp_path / POSITION).read_text())["seq"] == 0


def test_tls_with_the_right_and_the_wrong_authority(store: Store, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    options = f"allow_anonymous true\ncertfile {tmp_path}/certificate.pem\nkeyfile {tmp_path}/key.pem"
    with broker(tmp_path, options) as server:
        with started(made(store, server.port, tls=True, ca=tmp_path / "ca.pem")) as sender:
            for number in range(30):
                sender.offer(final(store, number))
            assert reaches(sender, lambda now: now.sent == 30, "delivery").detail.startswith("connected to mqtts://")
        with started(made(store, server.port, tls=True, ca=tmp_path / "other.pem")) as sender:
            reported = reaches(sender, lambda now: now.state == "failing", "the refusal").detail
            assert reported.startswith(f"the certificate of mqtts://127.0.0.1:{server.port} is not accepted: ")
        with started(made(store, server.port)) as sender:
            reported = reaches(sender, lambda now: now.state == "failing", "a server that expects TLS").detail
            assert "lost" in reported


def test_a_missing_package_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with started(made(store, 1)) as sender:
        reported = reaches(sender, lambda now: now.state == "off", "the end").detail
        assert reported == "paho-mqtt is not installed; run pip install 'apexstream[mqtt]'"
        for number in range(3):
            sender.offer(final(store, number))


def test_a_password_that_crosses_the_network_readable_is_warned_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    credentials = {"username": "apex", "password": "s3cret-word"}
    made(store, 1, **credentials)
    MqttOutlet(MqttSettings(host="broker.example", tls=True, **credentials), context(store))
    assert caplog.text == ""
    MqttOutlet(MqttSettings(host="broker.example", **credentials), context(store))
    assert "the password for mqtt://broker.example:1883 crosses the network unencrypted" in caplog.text
    assert "s3cret-word" not in caplog.text


def test_credentials_that_cannot_be_had_are_an_error_at_the_start(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.password_env: the environment variable NOT_SET_HERE is not set"):
        made(store, 1, username="a", password_env="NOT_SET_HERE")
    with pytest.raises(ConfigError, match=r"mqtt\.ca: .*none\.pem cannot be read"):
        made(store, 1, tls=True, ca=tmp_path / "none.pem")


def test_a_store_that_cannot_be_read_is_tried_again(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def sometimes(since: int, limit: int) -> list[dict[str, Any]]:
        calls.append(since)
        if len(calls) < 3:
            raise OutputError("the disk sleeps")
        return given.stored(since, limit)

    given = context(store)
    with broker(tmp_path) as server, caplog.at_level(logging.WARNING):
        settings = MqttSettings(host="127.0.0.1", port=server.port)
        with started(MqttOutlet(settings, replace(given, stored=sometimes))) as sender:
            sender.offer(final(store, 1))
            reaches(sender, lambda now: now.sent == 1, "the event")
    assert "the disk sleeps" in caplog.text


def test_a_broker_that_does_not_answer_ends_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_connection, "ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, started(made(store, silent.getsockname()[1])) as sender:
        reported = reaches(sender, lambda now: now.state == "failing", "the failure").detail
        assert reported.endswith("does not answer as an MQTT broker for 0.05 s")
