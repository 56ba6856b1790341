from __future__ import annotations

import pytest

from stream import protocol
from stream.events.subscribers import Subscribers
from stream.messages import SourceStatus
from stream.protocol import Message, Subscribe
from tests.subscribing import Client

LIVE = protocol.status(SourceStatus("lobby", "webcam", "live"))


def test_all_who_want_a_message_are_sent_it_until_they_are_removed() -> None:
    sent: list[Message] = []
    subscribers = Subscribers(sent.append)
    lobby, door = Client(Subscribe(streams=("lobby",))), Client(Subscribe(streams=("door",)))
    subscribers.add(lobby)
    subscribers.add(door)
    subscribers.publish(LIVE)
    subscribers.offer(lobby, LIVE)
    assert (len(lobby.got), len(door.got), len(sent), len(subscribers)) == (2, 0, 1, 2)
    subscribers.remove(lobby)
    subscribers.remove(lobby)
    subscribers.publish(LIVE)
    assert (len(lobby.got), len(sent), len(subscribers)) == (2, 2, 1)


def test_one_subscriber_that_fails_is_removed_and_the_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Client):
        def write(self, message: str | bytes) -> None:
            raise ValueError("a defect")

    subscribers, good = Subscribers(lambda message: None), Client()
    subscribers.add(Broken())
    subscribers.add(good)
    for _ in range(2):
        subscribers.publish(LIVE)
    assert (len(good.got), len(subscribers)) == (2, 1)
    assert caplog.text.count("a subscriber failed") == 1
