"""Events to an MQTT broker, and the sources as devices of Home Assistant (`stream.outlets.home_assistant`).

Expressions are published at least once and in order, from the store (`stream.outlets.follower`): those of a time without the
broker follow when it is back. States are published as they are now. Payloads have `seq` and `store`, by which a receiver drops
what it has already, and `late` for what is published long after it happened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from engine.errors import OutputError
from stream.messages import SourceState
from stream.outlets.follower import Position, StoreFollower
from stream.outlets.home_assistant import OFF, OFFLINE, ON, ONLINE, UNKNOWN, Publication, Topics
from stream.outlets.identifier import identifier
from stream.outlets.mqtt_connection import Connection, Waker
from stream.outlets.outlet import Outlet, OutletContext
from stream.outlets.settings import MqttSettings
from stream.protocol import Message

log = logging.getLogger(__name__)

LATE_S = 10.0
"""An expression is late if it is published so long after it was emitted."""
POSITION = "mqtt.position.json"
STATES = ("removed", *get_args(SourceState))
"""What a source's state may be at the broker."""


class MqttOutlet(Outlet):
    """Publishes to the broker of the settings. Raises ConfigError for credentials or certificates that cannot be read."""

    def __init__(self, settings: MqttSettings, context: OutletContext) -> None:
        super().__init__("mqtt", f"{settings.shown}, topics {settings.topic}/...")
        settings.secret()
        settings.tls_context()
        if settings.has_password and not settings.tls and settings.host not in ("localhost", "127.0.0.1", "::1"):
            log.warning("mqtt: the password for %s crosses the network unencrypted; set tls = true", settings.shown)
        self._settings, self._context = settings, context
        self._topics = Topics(settings.topic, settings.discovery_prefix)
        self._follower = StoreFollower(context.stored, Position(context.folder / POSITION, context.store, context.seq))
        self._waker = Waker()
        self._changed = threading.Lock()  # guards the next three
        self._retained: dict[str, str] = {}  # by topic, the current values
        self._unsent: dict[str, Publication] = {}  # by topic, what has changed since it was published
        self._sources: set[str] = set()  # identifiers
        for stream in context.sources:
            self._add(stream, "starting")

    def offer(self, message: Message) -> None:
        """Take final expressions, the states of sources, and whether a face speaks."""
        body = message.body
        if message.type == "expression" and body.get("seq") is not None:
            self._follower.offer(body)
            self.wake()
        elif message.type == "status":
            self._add(message.stream or "", str(body["state"]))
        elif message.type == "signal":
            doing = (each["kind"] for face in body["faces"] for each in face["doing"])
            self._set(identifier(message.stream or ""), "speaking", ON if "speech" in doing else OFF)
        elif message.type == "removed":
            self._set(identifier(message.stream or ""), "state", "removed")

    def wake(self) -> None:
        """End the wait of the thread."""
        self._waker.wake()

    def run(self) -> None:
        """One connection, from its opening to its end."""
        will = Publication(self._topics.status, OFFLINE)
        client_id = f"apexstream-{self._context.store[:16]}"
        connection = Connection(self._settings, client_id, will, self._waker, received=self._forget)
        try:
            self._publish_all_states(connection)
            self.report("working", f"connected to {self._settings.shown}")
            while not self._stopping.is_set():
                self._publish_new(connection)
                connection.wait()
            with contextlib.suppress(OutputError):  # what cannot be read from the store any more follows after the next start
                self._publish_new(connection)
            connection.publish([will])
            connection.end()
        finally:
            connection.close()

    # On the event loop.

    def _add(self, stream: str, state: str) -> None:
        source = identifier(stream)
        if source not in self._sources:
            with self._changed:
                self._sources.add(source)
            if self._settings.home_assistant:
                self._put(self._topics.description(source, stream, model=self._context.model, version=self._context.version))
        self._set(source, "state", state)
        if state != "live":
            self._set(source, "speaking", OFF)

    def _set(self, source: str, what: str, value: str) -> None:
        topic = self._topics.of(source, what)
        if self._retained.get(topic) != value:
            self._put(Publication(topic, value))

    def _put(self, publication: Publication) -> None:
        with self._changed:
            self._retained[publication.topic] = publication.payload
            self._unsent[publication.topic] = publication
        self.wake()

    # On the outlet's thread.

    def _publish_all_states(self, connection: Connection) -> None:
        """After connecting: what is retained may be missing at this broker, or from another run."""
        with self._changed:
            self._unsent = {topic: Publication(topic, value) for topic, value in self._retained.items()}
        connection.publish([Publication(self._topics.status, ONLINE)])
        connection.subscribe(self._topics.states)

    def _forget(self, topic: str, payload: str) -> None:
        """The broker has the state of a source: one that this service does not have any more is removed there."""
        source = self._topics.source_of(topic)
        with self._changed:
            if source not in self._sources and payload in STATES:  # else it is another program's topic
                self._unsent.update({one.topic: one for one in self._topics.removal(source)})
        self.wake()

    def _publish_new(self, connection: Connection) -> None:
        with self._changed:
            states, self._unsent = list(self._unsent.values()), {}
        if states:
            connection.publish(states)
        while page := self._follower.page():
            connection.publish([one for event in page for one in self._publications(event)])
            self._follower.delivered(page[-1]["seq"])
            self.count(sent=len(page))

    def _publications(self, event: Mapping[str, Any]) -> list[Publication]:
        source = identifier(event["stream"])
        age_s = (datetime.now(UTC) - datetime.fromisoformat(event["emitted_at"])).total_seconds()
        fields = {"event_type": event["kind"], **event, "store": self._context.store, "late": age_s > LATE_S}
        confidence = event["confidence"]
        return [
            Publication(self._topics.of(source, "event"), json.dumps(fields, ensure_ascii=False), retain=False),
            Publication(self._topics.of(source, "label"), event["label"]),
            Publication(self._topics.of(source, "confidence"), UNKNOWN if confidence is None else str(confidence)),
        ]
