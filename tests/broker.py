"""A real MQTT broker (Mosquitto) for tests, and a client that keeps what it publishes."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.live import PATIENCE_S

FIXED_PORTS = range(20_000, 32_768)
"""Below those that systems choose from for connections and for servers that name no port."""


def mosquitto() -> str:
    """Where the broker is: Debian has it in a folder that users' PATH lacks."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert found is not None, "these tests need Debian's mosquitto; bash tools/test installs it"
    return found


def free_port() -> int:
    """A port that nothing listens at, and that the system gives to no other socket until the test uses it."""
    for _ in range(100):
        port = secrets.choice(FIXED_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@dataclass
class Broker:
    """A broker at a port that stays the same when it is started again; what it retains is gone then. options are lines of its
    settings file."""

    folder: Path
    options: str = "allow_anonymous true"
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        settings = self.folder / "mosquitto.conf"
        settings.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{self.options}\n")
        self._process = subprocess.Popen([mosquitto(), "-c", str(settings)], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.rstrip().endswith("running"):
                return
        raise AssertionError(f"the broker does not start: {settings.read_text()}")

    def freeze(self, frozen: bool) -> None:
        """Let it answer nothing any more, as behind a broken network; or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextlib.contextmanager
def broker(folder: Path, options: str = "allow_anonymous true") -> Iterator[Broker]:
    """A broker that runs."""
    made = Broker(folder, options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Receiver:
    """A subscriber to everything."""

    def __init__(self, port: int) -> None:
        self.got: list[MQTTMessage] = []
        self.at: list[float] = []  # when each was received, Unix time
        self._changed = threading.Condition()  # guards got; reentrant
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda client, userdata, message: self._add(message)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def _add(self, message: MQTTMessage) -> None:
        with self._changed:
            self.got.append(message)
            self.at.append(time.time())
            self._changed.notify_all()

    def publish(self, topic: str, payload: str) -> None:
        """Publish a retained message and wait until the broker has it."""
        self._client.publish(topic, payload, 1, retain=True).wait_for_publish(PATIENCE_S)

    def of(self, topic: str) -> list[str]:
        """The payloads at a topic."""
        with self._changed:
            return [message.payload.decode() for message in self.got if message.topic == topic]

    def last(self, topic: str) -> str | None:
        """The newest payload at a topic; None where there is none."""
        return next(iter(self.of(topic)[::-1]), None)

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true of what was received."""
        with self._changed:
            assert self._changed.wait_for(true, PATIENCE_S), f"waited {PATIENCE_S:.0f} s for {what}"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def receiver(port: int) -> Iterator[Receiver]:
    """A subscriber, closed at the end."""
    made = Receiver(port)
    try:
        yield made
    finally:
        made.close()
