"""A websocket connection as a subscriber of the hub, and the previews that all of them ask for."""

from __future__ import annotations

import time
from collections.abc import Iterable

from websockets.protocol import State

from stream.events.subscribers import Subscriber
from stream.messages import PreviewWish
from stream.protocol import Message, PreviewRequest
from stream.server.connection import Connection


class SocketSubscriber(Subscriber):
    """A connection as a subscriber of the hub: which messages it wants, and the previews it asked for."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.subscription)
        self.connection = connection
        self.previews: dict[str, PreviewRequest] = {}
        self._due: dict[str, float] = {}

    def wants(self, message: Message) -> bool:
        """Whether it subscribed to message; for a preview also whether one is due and the one before has been sent."""
        if not super().wants(message):
            return False
        return message.type != "preview" or self._takes_preview(message.stream or "")

    def send(self, encoded: str | bytes) -> None:
        """Write a message; never blocks. A client that does not read is disconnected."""
        self.connection.write(encoded)

    async def drained(self) -> None:
        """Return once little waits. Raises ConnectionError when the connection is closed."""
        await self.connection.drain()
        if self.connection.protocol.state is not State.OPEN:
            raise ConnectionError("the connection is closed")

    def _takes_preview(self, stream: str) -> bool:
        request = self.previews.get(stream)
        if request is None or self.connection.waiting():
            return False
        now, step = time.monotonic(), 1 / request.fps
        due = self._due.get(stream, now)
        if now < due - step / 4:  # frames come at uneven intervals
            return False
        self._due[stream] = max(due, now - step) + step
        return True


def preview_wishes(subscribers: Iterable[SocketSubscriber]) -> dict[str, PreviewWish]:
    """By stream, the largest width and the highest rate of previews that any of the subscribers asks for."""
    wishes: dict[str, PreviewWish] = {}
    for request in (request for subscriber in subscribers for request in subscriber.previews.values()):
        so_far = wishes.get(request.stream, PreviewWish(0, 0.0))
        wishes[request.stream] = PreviewWish(max(so_far.width, request.width), max(so_far.fps, request.fps))
    return wishes
