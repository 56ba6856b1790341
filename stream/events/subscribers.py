"""The clients that are sent everything, and how one message goes to all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from stream.protocol import Message

log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """A client that is sent what it wants; the owner of the connection says how."""

    def wants(self, message: Message) -> bool:
        """Whether to send it this message."""

    def write(self, message: str | bytes) -> None:
        """Take an encoded message; never blocks. The subscriber may be removed meanwhile."""

    async def drained(self) -> None:
        """Return once little of what was written is still unsent. Raises OSError when the client is gone."""


class Subscribers:
    """Those that have joined, used on the event loop alone. sent is called with every message that is sent to all."""

    def __init__(self, sent: Callable[[Message], None]) -> None:
        self._sent = sent
        self._joined: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._joined)

    def add(self, subscriber: Subscriber) -> None:
        """Send it from now on what is sent to all."""
        self._joined[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Send it nothing more; no error where it never joined."""
        self._joined.pop(subscriber, None)

    def publish(self, message: Message) -> None:
        """Send message to all who want it."""
        self._sent(message)
        for subscriber in list(self._joined):
            self.offer(subscriber, message)

    def offer(self, subscriber: Subscriber, message: Message) -> None:
        """Send message to one, if it wants it; one that fails is removed."""
        try:
            if subscriber.wants(message):
                subscriber.write(message.encoded)
        except Exception:  # one subscriber's defect must not affect the others
            log.exception("a subscriber failed and is sent nothing more")
            self.remove(subscriber)
