from __future__ import annotations

import pytest

from stream.events.subscribers import Subscribers
from stream.messages import SourceStatus
from stream.protocol import Message, Subscribe, status
from tests.subscribing import Client

LIVE = status(SourceStatus("lobby", "webcam", "live"))


def test_each_is_sent_what_it_subscribed_to() -> None:
    sent: list[Message] = []
    subscribers = Subscribers(sent.append)
    lobby, door = Client(Subscribe(streams=("lobby",))), Client(Subscribe(streams=("door",)))
    for one in (lobby, door):
        subscribers.add(one)
    subscribers.publish(LIVE)
    subscribers.remove(lobby)
    subscribers.remove(lobby)
    subscribers.publish(LIVE)
    assert (len(lobby.got), len(door.got), len(sent), len(subscribers)) == (1, 0, 2, 1)


def test_one_subscriber_that_fails_is_removed_and_the_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Client):
        def send(self, encoded: str | bytes) -> None:
            raise ValueError("a defect")

    subscribers, good = Subscribers(lambda message: None), Client()
    subscribers.add(Broken())
    subscribers.add(good)
    for _ in range(2):
        subscribers.publish(LIVE)
    assert (len(good.got), len(subscribers)) == (2, 1)
    assert caplog.text.count("a subscriber failed") == 1
