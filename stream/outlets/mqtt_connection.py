"""One connection to an MQTT broker, used and served by one thread alone.

paho-mqtt's own loop uses `select`, which fails in a process with more than 1,024 open files; here its reading and writing are
called when a selector of the system says so, and what goes wrong is one sentence.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import BackendError, OutputError, first_line
from stream.outlets.home_assistant import Publication
from stream.outlets.settings import MqttSettings

if TYPE_CHECKING:
    from paho.mqtt.client import Client

CONNECT_S = 5.0
"""How long opening a connection and its encryption may take."""
ANSWER_S = 10.0
"""How long the broker may take to answer."""
KEEPALIVE_S = 30
QOS = 1


class Waker:
    """Ends the wait of a thread in a selector, from any thread."""

    def __init__(self) -> None:
        self.receiver, self._sender = socket.socketpair()
        self.receiver.setblocking(False)
        self._sender.setblocking(False)

    def wake(self) -> None:
        """End the current wait, or else the next one; never blocks."""
        with contextlib.suppress(OSError):  # full: it is awake
            self._sender.send(b"\0")

    def clear(self) -> None:
        """Forget calls of `wake` so far."""
        with contextlib.suppress(OSError):
            while self.receiver.recv(4096):
                pass


class Connection:
    """A connection that is open once it is made; will is what the broker publishes when it is lost.

    received is called with topic and payload of each retained message. Raises OutputError where the broker cannot be reached or
    refuses, BackendError where paho-mqtt is missing, ConfigError for credentials that cannot be read.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        will: Publication,
        waker: Waker,
        *,
        received: Callable[[str, str], None] = lambda topic, payload: None,
    ) -> None:
        self._settings, self._waker, self._received = settings, waker, received
        self._answer: Any = None  # the broker's answer to the request to connect
        self._lost: str | None = None
        self._woken = False
        self._acknowledged: dict[int, str] = {}  # of message ids, why the message was refused, or ""
        self._client = self._make_client(client_id, will)
        self._selector = selectors.DefaultSelector()
        self._selector.register(waker.receiver, selectors.EVENT_READ)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _make_client(self, client_id: str, will: Publication) -> Client:
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        except ImportError as error:
            raise BackendError("paho-mqtt is not installed; run pip install 'apexstream[mqtt]'") from error
        settings = self._settings
        protocol = MQTTProtocolVersion.MQTTv5 if settings.version == "5" else MQTTProtocolVersion.MQTTv311
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=protocol, reconnect_on_failure=False)
        context = settings.tls_context()
        if context is not None:
            client.tls_set_context(context)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.secret())
        client.will_set(will.topic, will.payload, QOS, will.retain)
        client.connect_timeout = CONNECT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _open(self) -> None:
        shown = self._settings.shown
        try:
            self._client.connect(self._settings.host, self._settings.used_port, KEEPALIVE_S)
        except ssl.SSLCertVerificationError as error:
            raise OutputError(
                f"the certificate of {shown} is not accepted: {error.verify_message}; check ca and host"
            ) from error
        except ssl.SSLError as error:
            raise OutputError(f"{shown} cannot be reached with TLS: {error.reason or first_line(error)}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise OutputError(f"{shown} cannot be reached: {reason.lower()}") from error
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each event at once
        self._serve_until(lambda: self._answer is not None, f"{shown} does not answer as an MQTT broker")
        if self._answer.is_failure:
            raise OutputError(f"{shown} refuses the connection: {self._answer}{self._advice()}")

    def _advice(self) -> str:
        """What to do about the broker's refusal."""
        answer = str(self._answer)
        if answer == "Unsupported protocol version":
            return '; set version = "3.1.1"'
        return "; check username and password" if answer in ("Not authorized", "Bad user name or password") else ""

    def publish(self, publications: Sequence[Publication]) -> None:
        """Send messages and return once the broker has taken them all. Raises OutputError."""
        sent = {self._client.publish(one.topic, one.payload, QOS, one.retain).mid: one for one in publications}
        self._serve_until(lambda: self._acknowledged.keys() >= sent.keys(), f"{self._settings.shown} does not take messages")
        reasons = {mid: self._acknowledged.pop(mid) for mid in sent}
        for mid, reason in reasons.items():
            if reason:
                raise OutputError(f"{self._settings.shown} refuses messages at {sent[mid].topic}: {reason}")

    def subscribe(self, topics: str) -> None:
        """Have `received` called with the retained messages of these topics."""
        self._client.subscribe(topics, QOS)

    def wait(self) -> None:
        """Serve the connection until the waker is called. Raises OutputError once it is lost."""
        while not self._woken:
            self._serve(None)
        self._woken = False

    def end(self) -> None:
        """Tell the broker that the connection ends in order: it does not publish the will."""
        self._client.disconnect()
        with contextlib.suppress(OutputError):
            while self._client.want_write():
                self._serve(time.monotonic() + ANSWER_S)

    def close(self) -> None:
        """Close the connection; without `end` the broker publishes the will."""
        connection = self._client.socket()
        if connection is not None:
            connection.close()
        self._selector.close()

    def _serve_until(self, true: Callable[[], bool], otherwise: str) -> None:
        """Serve the connection until true; OutputError with otherwise after ANSWER_S without an answer, or once it is lost."""
        until = time.monotonic() + ANSWER_S
        while not true():
            self._serve(until)
            if not true() and time.monotonic() >= until:
                raise OutputError(f"{otherwise} for {ANSWER_S:g} s")

    def _serve(self, until: float | None) -> None:
        """Wait for something to do, and do it. Raises OutputError once the connection is lost."""
        connection = self._client.socket()
        if connection is None or self._lost is not None:
            raise OutputError(f"the connection to {self._settings.shown} was lost ({self._lost or 'closed'})")
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0)
        key = self._selector.register(connection, wanted)
        pending = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        left = KEEPALIVE_S / 4 if until is None else max(0.0, min(KEEPALIVE_S / 4, until - time.monotonic()))
        try:
            ready = {found.fd: events for found, events in self._selector.select(0 if pending else left)}
        finally:
            self._selector.unregister(key.fileobj)
        events = ready.get(key.fd, 0) | (selectors.EVENT_READ if pending else 0)
        try:
            if events & selectors.EVENT_READ:
                self._client.loop_read()
            if events & selectors.EVENT_WRITE:
                self._client.loop_write()
            self._client.loop_misc()  # pings
        except Exception as error:  # whatever paho-mqtt raises for bytes that are no packet
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise OutputError(f"{self._settings.shown} does not speak MQTT ({reason})") from error
        if self._waker.receiver.fileno() in ready:
            self._waker.clear()
            self._woken = True

    # Called by paho-mqtt, on the same thread.

    def _on_connect(self, client: object, userdata: object, flags: object, reason: Any, properties: object) -> None:
        self._answer = reason

    def _on_disconnect(self, client: object, userdata: object, flags: object, reason: Any, properties: object) -> None:
        self._lost = str(reason) if self._lost is None else self._lost

    def _on_publish(self, client: object, userdata: object, mid: int, reason: Any, properties: object) -> None:
        self._acknowledged[mid] = str(reason) if reason.is_failure else ""

    def _on_message(self, client: object, userdata: object, message: Any) -> None:
        if message.retain:
            self._received(message.topic, message.payload.decode("utf-8", "replace"))
