"""The description of a source against the rules of Home Assistant's discovery (its documentation of 2025)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stream.outlets.home_assistant import Topics

TEXT = {"type": "string", "minLength": 1}
TOPIC = {"type": "string", "pattern": "^[^+#\\u0000]+$"}
AVAILABILITY = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["topic"],
        "properties": {"topic": TOPIC, "value_template": TEXT},
        "additionalProperties": False,
    },
}
COMMON = {
    "platform": {"enum": ["event", "sensor", "binary_sensor"]},
    "unique_id": TEXT,
    "name": TEXT,
    "qos": {"enum": [0, 1, 2]},
    "state_topic": TOPIC,
    "json_attributes_topic": TOPIC,
    "value_template": TEXT,
    "icon": {"type": "string", "pattern": "^mdi:[a-z-]+$"},
    "availability": AVAILABILITY,
    "availability_mode": {"enum": ["all", "any", "latest"]},
    "entity_category": {"enum": ["config", "diagnostic"]},
}
OF_PLATFORM = {
    "event": {"event_types": {"type": "array", "items": TEXT, "minItems": 1}},
    "sensor": {
        "unit_of_measurement": TEXT,
        "state_class": {"enum": ["measurement", "total", "total_increasing"]},
        "suggested_display_precision": {"type": "integer", "minimum": 0},
    },
    "binary_sensor": {"device_class": {"enum": ["connectivity", "sound", "occupancy"]}},
}


def entity_of(platform: str, more: dict[str, Any]) -> dict[str, Any]:
    required = ["platform", "unique_id", "state_topic", *(["event_types"] if platform == "event" else [])]
    return {
        "if": {"properties": {"platform": {"const": platform}}},
        "then": {"required": required, "properties": {**COMMON, **more}, "additionalProperties": False},
    }


SCHEMA = {
    "type": "object",
    "required": ["device", "origin", "components"],
    "additionalProperties": False,
    "properties": {
        "device": {
            "type": "object",
            "required": ["identifiers"],
            "properties": {
                "identifiers": {"type": "array", "items": TEXT, "minItems": 1},
                **dict.fromkeys(("name", "manufacturer", "model", "sw_version"), TEXT),
            },
            "additionalProperties": False,
        },
        "origin": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": TEXT, "sw_version": TEXT, "support_url": TEXT},
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "additionalProperties": {"allOf": [entity_of(*item) for item in OF_PLATFORM.items()]},
        },
        "availability": AVAILABILITY,
    },
}


def described(topics: Topics, source: str = "lobby") -> dict[str, Any]:
    publication = topics.description(source, "Lobby", model="ahmsa", version="0.1.0")
    assert publication.retain and publication.topic == topics.discovery(source)
    return dict(json.loads(publication.payload))


@pytest.mark.parametrize("topic", ["apexstream", "home/living room".replace(" ", "-")])
def test_the_description_keeps_to_the_rules(topic: str) -> None:
    description = described(Topics(topic, "homeassistant"))
    Draft202012Validator(SCHEMA).validate(description)
    ids = [entity["unique_id"] for entity in description["components"].values()]
    assert len(set(ids)) == len(ids) == 5
    assert all(entity["state_topic"].startswith(f"{topic}/lobby/") for entity in description["components"].values())
    assert description["availability"] == [{"topic": f"{topic}/status"}]


def test_sources_of_two_services_are_different_devices() -> None:
    here, there = Topics("apexstream", "homeassistant"), Topics("apexstream/second", "homeassistant")
    assert here.discovery("lobby") == "homeassistant/device/apexstream_lobby/config"
    assert there.discovery("lobby") == "homeassistant/device/apexstream_second_lobby/config"
    assert not {str(one) for one in here.removal("lobby")} & {str(one) for one in there.removal("lobby")}


def test_a_source_is_found_in_the_topic_of_its_state_and_forgotten() -> None:
    topics = Topics("lab/desk", "homeassistant")
    assert topics.states == "lab/desk/+/state"
    assert topics.source_of(topics.of("lobby", "state")) == "lobby"
    removed = topics.removal("lobby")
    assert all(one.retain and one.payload == "" for one in removed)
    assert {one.topic for one in removed} >= {topics.discovery("lobby"), topics.of("lobby", "state")}
