"""Outlets: where the live service sends its events besides the websocket, each on a thread of its own.

A new outlet is a module here with a subclass of `Outlet`, its settings, a field of that name in `LiveSettings`, and a line in
OUTLETS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stream.outlets.lsl import LslOutlet
from stream.outlets.mqtt import MqttOutlet
from stream.outlets.outlet import Outlet, OutletContext
from stream.outlets.redis_publisher import RedisPublisher

OUTLETS: dict[str, Callable[[Any, OutletContext], Outlet]] = {
    "lsl": LslOutlet,
    "mqtt": MqttOutlet,
    "redis": RedisPublisher,
}
"""By the name of the table in the settings file; called with that table's settings."""
