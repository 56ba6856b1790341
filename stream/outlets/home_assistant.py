"""The topics of MQTT, and how Home Assistant learns of them (MQTT discovery of devices).

    TOPIC/status                online, or offline (also by the broker, when the connection is lost)
    TOPIC/SOURCE/event          each final expression, as JSON
    TOPIC/SOURCE/label          of the last expression
    TOPIC/SOURCE/confidence     of the last expression, 0 to 1
    TOPIC/SOURCE/speaking       ON or OFF: whether a face speaks now
    TOPIC/SOURCE/state          of the source: live, stalled, ...
    homeassistant/device/TOPIC_SOURCE/config

All but the events are retained: who subscribes later gets the last value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stream.outlets.identifier import identifier

ONLINE, OFFLINE = "online", "offline"
ON, OFF = "ON", "OFF"
KINDS = ("micro", "macro")
"""Types of Home Assistant's event: a set that no network changes."""
UNKNOWN = "None"
"""What Home Assistant shows as unknown."""


@dataclass(frozen=True)
class Publication:
    """One message to the broker."""

    topic: str
    payload: str
    retain: bool = True


class Topics:
    """The topics of one service; topic is the first part of all, prefix that of Home Assistant's discovery."""

    def __init__(self, topic: str, prefix: str) -> None:
        self._topic, self._prefix = topic, prefix

    @property
    def status(self) -> str:
        """Whether the service is connected."""
        return f"{self._topic}/status"

    @property
    def states(self) -> str:
        """The filter for the states of all sources."""
        return f"{self._topic}/+/state"

    def of(self, source: str, what: str) -> str:
        """A topic of a source, which is given by its identifier."""
        return f"{self._topic}/{source}/{what}"

    def source_of(self, state_topic: str) -> str:
        """The identifier of the source in a topic that `states` matches."""
        return state_topic.removeprefix(f"{self._topic}/").removesuffix("/state")

    def device(self, source: str) -> str:
        """The identifier of a source among those of all services."""
        return identifier(f"{self._topic}_{source}".replace("/", "_"))

    def discovery(self, source: str) -> str:
        """Where Home Assistant finds a source described."""
        return f"{self._prefix}/device/{self.device(source)}/config"

    def removal(self, source: str) -> list[Publication]:
        """What makes the broker and Home Assistant forget a source."""
        states = (self.of(source, what) for what in ("label", "confidence", "speaking", "state"))
        return [Publication(topic, "") for topic in (self.discovery(source), *states)]

    def description(self, source: str, name: str, *, model: str, version: str) -> Publication:
        """Home Assistant's description of a source: its device, this program as the origin, and the entities."""
        device = self.device(source)

        def entity(platform: str, id_: str, title: str, **fields: Any) -> dict[str, Any]:
            return {"platform": platform, "unique_id": f"{device}_{id_}", "name": title, "qos": 1, **fields}

        live = {"topic": self.of(source, "state"), "value_template": "{{ 'online' if value == 'live' else 'offline' }}"}
        components = {
            "event": entity(
                "event",
                "event",
                "Expression",
                state_topic=self.of(source, "event"),
                event_types=list(KINDS),
                value_template="{{ '' if value_json.late else value }}",
                icon="mdi:emoticon-outline",
            ),
            "label": entity(
                "sensor",
                "label",
                "Last expression",
                state_topic=self.of(source, "label"),
                json_attributes_topic=self.of(source, "event"),
                icon="mdi:emoticon-outline",
            ),
            "confidence": entity(
                "sensor",
                "confidence",
                "Confidence",
                state_topic=self.of(source, "confidence"),
                value_template="{{ (value | float * 100) | round(1) if value != 'None' else value }}",
                unit_of_measurement="%",
                state_class="measurement",
                suggested_display_precision=0,
                icon="mdi:percent-outline",
            ),
            "speaking": entity(
                "binary_sensor",
                "speaking",
                "Speaking",
                state_topic=self.of(source, "speaking"),
                availability=[{"topic": self.status}, live],
                availability_mode="all",
                icon="mdi:account-voice",
            ),
            "source": entity(
                "binary_sensor",
                "source",
                "Source",
                state_topic=self.of(source, "state"),
                value_template="{{ 'ON' if value == 'live' else 'OFF' }}",
                device_class="connectivity",
                entity_category="diagnostic",
            ),
        }
        description = {
            "device": {
                "identifiers": [device],
                "name": name,
                "manufacturer": "apexstream",
                "model": model,
                "sw_version": version,
            },
            "origin": {"name": "apexstream", "sw_version": version},
            "components": components,
            "availability": [{"topic": self.status}],
        }
        return Publication(self.discovery(source), json.dumps(description, ensure_ascii=False))
