"""Clients that are sent messages, and sending to all of them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from stream.protocol import Message, Subscribe

log = logging.getLogger(__name__)


class Subscriber(ABC):
    """A client that is sent what it subscribed to; the owner of the connection says how."""

    def __init__(self, subscription: Subscribe) -> None:
        self.subscription = subscription

    def wants(self, message: Message) -> bool:
        """Whether to send it this message."""
        return self.subscription.wants(message)

    @abstractmethod
    def send(self, encoded: str | bytes) -> None:
        """Take an encoded message; never blocks, never raises. The subscriber may be removed meanwhile."""

    @abstractmethod
    async def drained(self) -> None:
        """Return once little of what was sent is still unsent. Raises OSError when the client is gone."""


class Subscribers:
    """Those that are sent everything; sent is called with every message that goes to all."""

    def __init__(self, sent: Callable[[Message], None]) -> None:
        self._sent = sent
        self._all: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, subscriber: Subscriber) -> None:
        """Send it what is published from now on."""
        self._all[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Send it nothing more; no error where it was never added."""
        self._all.pop(subscriber, None)

    def publish(self, message: Message) -> None:
        """Send message to all who want it."""
        self._sent(message)
        for subscriber in list(self._all):
            self.offer(subscriber, message)

    def offer(self, subscriber: Subscriber, message: Message) -> None:
        """Send message to one, if it wants it; one that fails is removed."""
        try:
            if subscriber.wants(message):
                subscriber.send(message.encoded)
        except Exception:  # one subscriber's defect must not affect the others
            log.exception("a subscriber failed and is sent nothing more")
            self.remove(subscriber)
