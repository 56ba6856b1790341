"""Events and states of a node to the Redis server of its fleet (`stream.outlets.fleet`).

Final events are appended in the order of their seq, which is the id of their entry: Redis refuses one that it has already, so
that nothing is there twice, whatever is sent again. What is true is in the node's own store. After each connection Redis is
asked for the last id that it has, and the events after it follow: those of a time without it, those that it lost, or, where it
came back empty, as many as it keeps. The same is done where it loses the stream while it is connected (FLUSHALL): an append
never begins a stream that was there before. A page of events is appended in transactions, so that none is left out where memory
ends half way.

A copy of the store that publishes under the same name has other events under the same numbers. So the last event that Redis has
must be this store's, and the first event of a page is appended alone: where Redis has that number, nothing else gets in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from stream.outlets import fleet
from stream.outlets.fleet import NodeState, StreamState
from stream.outlets.follower import RemotePosition, StoreFollower
from stream.outlets.outlet import Outlet, OutletContext
from stream.outlets.redis_connection import client, is_full, is_known, is_missing, is_refusal, redis_errors
from stream.outlets.settings import RedisSettings
from stream.protocol import Message
from stream.schema import LAST_SEQ, read_stored

if TYPE_CHECKING:
    from stream.outlets.redis_connection import Client

log = logging.getLogger(__name__)

RETRY_S = (0.2, 2.0)
"""Shorter than other outlets' waits: nodes are expected back before a hub calls them lost."""
PAGE = 500
"""Events appended at once."""
LAST_S = 0.5
"""How long what is stored is still published once the outlet is to end; the rest follows after the next start."""
QUEUED = 1000
"""Signals, activities and provisional events that wait for the thread; beyond them the oldest are dropped."""


class RedisPublisher(Outlet):
    """Publishes to the Redis server of the settings. Raises ConfigError for credentials or certificates that cannot be read."""

    def __init__(self, settings: RedisSettings, context: OutletContext) -> None:
        super().__init__("redis", f"{settings.shown}, node {settings.node}", retry_s=RETRY_S)
        settings.tls_context()
        if settings.secret() is not None and not settings.encrypted and not settings.on_this_machine:
            log.warning("redis: the password for %s crosses the network unencrypted; use rediss://", settings.shown)
        self._settings, self._newest, self._stored = settings, context.seq, context.stored
        self._confirmed = 0  # seq of the last event that Redis has, as far as it said
        self._events = fleet.events_key(settings.node, context.store)
        self._follower = StoreFollower(context.stored, RemotePosition(), page=PAGE)
        self._woken = threading.Event()
        self._live: deque[Message] = deque(maxlen=QUEUED)
        self._state_lock = threading.Lock()  # guards _problem, _streams and _due
        self._about = NodeState(
            node=settings.node,
            store=context.store,
            version=context.version,
            model=context.model,
            page=settings.page,
            instance=uuid.uuid4().hex,
        )
        self._problem: str | None = None  # of the service
        self._streams: dict[str, Mapping[str, Any]] = {}
        self._due = 0.0  # monotonic time of the next beat
        self._beats = 0
        self._refusal: str | None = None  # why Redis takes no events
        self._namesake_seen: tuple[float, float] | None = None  # when another instance with this name was first and last seen
        self._warned = ""

    # On the event loop.

    def offer(self, message: Message) -> None:
        """Take events, the states of sources, signals and activities, and the problem of the service."""
        body = message.body
        if message.type == "expression" and body.get("seq") is not None:
            self._newest = max(self._newest, body["seq"])
            self._follower.offer(body)
        elif message.type in ("expression", "activity") or (message.type == "signal" and self._settings.signals):
            self._live.append(message)
        elif message.type == "status":
            self._set_stream(body)
            return
        elif message.type == "removed":
            with self._state_lock:
                self._streams.pop(str(message.stream), None)
                self._due = 0.0
        elif message.type == "heartbeat":
            self._set_problem(body["problem"])
            return
        else:
            return
        self.wake()

    def _set_stream(self, status: Mapping[str, Any]) -> None:
        """Keep a source's status, and publish it at once where its state changed."""
        with self._state_lock:
            was = self._streams.get(status["stream"], {})
            self._streams[status["stream"]] = status
            changed = any(was.get(key) != status[key] for key in ("state", "detail"))
            self._due = 0.0 if changed else self._due
        if changed:
            self.wake()

    def _set_problem(self, problem: str | None) -> None:
        with self._state_lock:
            changed, self._problem = self._problem != problem, problem
            self._due = 0.0 if changed else self._due
        if changed:
            self.wake()

    def wake(self) -> None:
        """End the wait of the thread."""
        self._woken.set()

    # On the outlet's thread.

    def run(self) -> None:
        """One connection, from its opening to its end."""
        redis = client(self._settings, f"apexstream-node-{self._settings.node}")
        with redis_errors(self._settings), contextlib.closing(redis):
            self._restart(redis)
            self._live.clear()
            self._beat(redis)
            while not self._stopping.is_set():
                self._publish(redis)
                self.report("working", f"connected to {self._settings.shown}")
                self._woken.wait(max(0.0, self._due - time.monotonic()))
                self._woken.clear()
            with contextlib.suppress(OutputError):  # what cannot be read from the store any more follows after the next start
                self._publish(redis)
            self._beat(redis, ended=True)

    def _restart(self, redis: Client) -> None:
        """Continue after the last event that Redis has."""
        last, entry = self._last(redis)
        shown, node = self._settings.shown, self._settings.node
        if last > self._newest and not self._stored(min(last, LAST_SEQ) - 1, 1):
            raise OutputError(
                f"{shown} has event {last} of this node's store, which ends with {self._newest}: the store is an old copy; "
                "move it away, so that a new one begins, or give this node another name with --node"
            )
        if not self._is_own(last, entry):
            raise OutputError(
                f"{shown} has another event {last} than this node's store: a copy of the store publishes, or has published, as "
                f"{node} too; give this node another name with --node"
            )
        since = max(last, self._newest - self._settings.max_events, 0)
        if last < self._confirmed:
            log.warning(
                "redis: %s has lost events %d to %d of this node; those that the store still has are sent again from %d on",
                shown,
                last + 1,
                self._confirmed,
                since + 1,
            )
        self._confirmed = last
        self._follower.restart(since)

    def _last(self, redis: Client) -> tuple[int, Any]:
        """The seq of the last event that Redis has ever had of this store, 0 before the first; the newest entry that it has."""
        try:
            found: Any = redis.xinfo_stream(self._events)
        except Exception as error:
            if is_missing(error):
                return 0, None
            raise
        return int(bytes(found["last-generated-id"]).partition(b"-")[0]), found["last-entry"]

    def _is_own(self, seq: int, entry: tuple[bytes, Mapping[bytes, bytes]] | None) -> bool:
        """Whether Redis' entry is the store's event of that seq; also true where either has none that can be read."""
        if entry is None or entry[0] != f"{seq}-0".encode():
            return True
        stored = self._stored(seq - 1, 1)
        if not stored or stored[0]["seq"] != seq:  # removed by now
            return True
        try:
            return bool(read_stored(entry[1][fleet.EVENT.encode()])["id"] == stored[0]["id"])
        except (ValueError, KeyError):
            return True

    def _publish(self, redis: Client) -> None:
        """Publish what is queued and what is stored; beats go on meanwhile, and LAST_S after `stop` it returns."""
        end: float | None = None
        while True:
            self._publish_live(redis)
            if time.monotonic() >= self._due:
                self._beat(redis)
            page = self._follower.page()
            if not page:
                return
            self._append(redis, page)
            if self._stopping.is_set():
                end = end or time.monotonic() + LAST_S
                if time.monotonic() >= end:
                    return

    def _publish_live(self, redis: Client) -> None:
        messages = [self._live.popleft() for _ in range(len(self._live))]
        if messages:
            with redis.pipeline(transaction=False) as commands:
                for message in messages:
                    commands.publish(fleet.live_channel(self._settings.node), message.encoded)
                commands.execute()

    def _append(self, redis: Client, page: Sequence[Mapping[str, Any]]) -> None:
        for part in (page[:1], page[1:]):
            if part and not self._appended(redis, part):
                self._restart(redis)
                return

    def _appended(self, redis: Client, part: Sequence[Mapping[str, Any]]) -> bool:
        """Append in one transaction; False where Redis has another last event than was known."""
        try:
            with redis_errors(self._settings), redis.pipeline(transaction=True) as commands:
                for event in part:
                    entry: Any = {fleet.EVENT: _encoded(event)}
                    key, keep, known = self._events, self._settings.max_events, self._confirmed > 0
                    commands.xadd(key, entry, id=f"{event['seq']}-0", maxlen=keep, nomkstream=known)
                answers = commands.execute()
        except OutputError as error:
            if is_known(error.__cause__):  # what a connection before this one sent has arrived after all, or a copy's
                return False
            self._refusal = str(error) if is_refusal(error.__cause__) else None
            raise
        if None in answers:
            return False
        self._refusal, self._confirmed = None, part[-1]["seq"]
        self._follower.delivered(self._confirmed)
        self.count(sent=len(part))
        return True

    def _beat(self, redis: Client, *, ended: bool = False) -> None:
        """Publish the node's state, and renew what expires."""
        state, lease_ms = self._current(ended), 1 if ended else round(1000 * fleet.LEASE_S)
        text, name = state.model_dump_json(), fleet.name_key(state.node)
        with redis.pipeline(transaction=False) as commands:
            commands.publish(fleet.live_channel(state.node), text)
            commands.set(name, state.instance, nx=True, px=lease_ms)
            commands.get(name)
            commands.set(fleet.state_key(state.node, state.store), text, px=lease_ms)
            commands.hset(fleet.NODES, fleet.node_field(state.node, state.store), state.info.model_dump_json())
            answers = commands.execute(raise_on_error=False)
        failed = [one for one in answers if isinstance(one, Exception)]
        for error in failed:
            if not is_full(error):  # a full server still passes on the state
                raise error
        now = time.monotonic()
        if answers[2] == state.instance.encode():
            self._namesake_seen = None
            redis.pexpire(name, lease_ms)
        elif isinstance(answers[2], bytes):
            self._namesake_seen = (now if self._namesake_seen is None else self._namesake_seen[0], now)
        if answers[4] == 1 and not ended:  # it was not listed: Redis is new, or has lost all, perhaps since the last question
            self._restart(redis)

    def _current(self, ended: bool) -> NodeState:
        with self._state_lock:
            self._due = time.monotonic() + fleet.BEAT_S
            problem = self._problem or self._refusal or self._namesake()
            streams = [StreamState(**status) for status in self._streams.values()]
        self._beats += 1
        update = {"beat": self._beats, "seq": self._newest, "problem": problem, "ended": ended, "streams": tuple(streams)}
        return self._about.model_copy(update=update)

    def _namesake(self) -> str | None:
        """The sentence about another instance that uses this name; one that was killed does not for longer than its lease."""
        first, last = self._namesake_seen or (0.0, 0.0)
        if last - first <= fleet.LEASE_S + fleet.BEAT_S:
            return None
        sentence = f"another node is called {self._settings.node} too; give one of them another name with --node"
        if sentence != self._warned:
            log.warning("redis: %s", sentence)
        self._warned = sentence
        return sentence


def _encoded(event: Mapping[str, Any]) -> str:
    """The JSON of a final event, as it is stored."""
    stored = {key: value for key, value in event.items() if key != "evidence"}
    return json.dumps(stored, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
