"""Reads a fleet's Redis server for the hub: the stored events of all nodes in order, and what they say now.

    events    XREAD from the position of each node's stream, which is stored with its events in one transaction: killed at any
              moment, the hub goes on after the last event that it has stored
    the rest  PSUBSCRIBE: states of nodes, signals, activities, provisional events; what is missed is not sent again

While Redis is away the hub's problem says so, and connecting is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import ApexError, first_line
from stream.backoff import Backoff
from stream.events.hub import Hub
from stream.events.store import Origin
from stream.fleet.nodes import Nodes, stream_name
from stream.hub_service import first_completed
from stream.messages import Forwarded
from stream.outlets import fleet
from stream.outlets.fleet import IncompatibleError, NodeInfo, NodeState, read_info, read_state
from stream.outlets.redis_connection import ANSWER_S, async_client, explained, is_known_kind, is_timeout
from stream.outlets.settings import RedisSettings
from stream.protocol import Message
from stream.schema import LAST_SEQ, check_encodable, read_message, read_stored

if TYPE_CHECKING:
    from stream.outlets.redis_connection import AsyncClient

log = logging.getLogger(__name__)

RETRY_S = (0.1, 2.0)
JITTER = 0.25
BLOCK_MS = 250
"""How long a read waits for events; events of a node that is new are read after it."""
COUNT = 500
"""Entries read at once, of all streams together."""
BACKLOG = 1000
"""Events that may wait for the hub's store; no more are read then."""
CHECK_S = 0.25
HANGS_S = 1.0
"""Where Redis takes so long to answer, or this process to go on, nodes are not heard that are well."""
REGISTRY_S = 5.0
"""How often Redis is asked which nodes there are."""
LAST = 2**64 - 1
"""The largest second part of an entry's id: nodes write 0, and what others write beside it is passed over."""
LARGEST = 128 * 1024
"""Bytes of a message or an event that are passed on; a client that is sent more at once counts as one that does not read."""
NUMBERS = ("seq", "node_store", "node_seq")
FINISHED = 1000
"""Final events whose provisional ones are dropped where they come late, on the other connection."""


class FleetReader:
    """Reads until it is cancelled; raises ConfigError, BackendError where it could never begin."""

    def __init__(self, settings: RedisSettings, hub: Hub, nodes: Nodes, positions: Mapping[Origin, int]) -> None:
        self._settings, self._hub, self._nodes = settings, hub, nodes
        self._positions = dict(positions)
        self._finished: dict[str, None] = {}  # ids, in their order
        self._behind: dict[Origin, float] = {}  # since when a node's store ends before its position, monotonic seconds
        self._damaged: set[str] = set()  # nodes
        self._reported = ""
        self._count = COUNT  # fewer where the connection is too slow for so many
        self._waiting_since: float | None = None  # since when Redis has not answered, monotonic seconds
        async_client(settings, "")

    async def run(self) -> None:
        """Read, and connect again whenever that fails."""
        backoff = Backoff(*RETRY_S, jitter=JITTER)
        while True:
            try:
                await self._one_connection(backoff)
            except ApexError as error:
                self._report(str(error))
            except Exception as error:  # noqa: BLE001 - whatever Redis sends, the hub goes on
                self._count = max(1, self._count // 2) if is_timeout(error) else self._count
                self._report(await asyncio.to_thread(self._explained, error))
            await asyncio.sleep(backoff.next())

    def _explained(self, error: Exception) -> str:
        if is_known_kind(error):
            return explained(self._settings, error)  # what the server said may hold the password
        log.debug("reading the fleet failed", exc_info=error)
        return f"reading from {self._settings.shown} failed ({type(error).__name__}: {first_line(error)})"

    def _report(self, sentence: str) -> None:
        problem = f"{sentence}; the events of all nodes wait until it works again"
        if problem != self._reported:
            log.warning("%s", problem)
        self._reported = problem
        self._hub.report_outside(problem)

    async def _one_connection(self, backoff: Backoff) -> None:
        async with async_client(self._settings, "apexstream-hub", waits_s=BLOCK_MS / 1000) as redis, redis.pubsub() as heard:
            await heard.psubscribe(fleet.LIVE)  # first, so that no node is missed
            if await heard.get_message(timeout=ANSWER_S) is None:
                raise TimeoutError
            self._nodes.forgive()
            self._waiting_since = None
            await self._read_states(redis, await self._read_registry(redis))
            await self._read_once(redis, None)  # what the server refuses at once counts as no connection
            log.info("connected to %s", self._settings.shown)
            self._reported = ""
            self._hub.report_outside(None)
            backoff.reset()
            await first_completed(self._listen(heard), self._read(redis), self._watch(redis))

    async def _read_registry(self, redis: AsyncClient) -> list[Origin]:
        """The nodes that Redis lists, those that cannot be read too."""
        known: dict[bytes, bytes] = await _answer(redis.hgetall(fleet.NODES))
        origins = []
        for field, text in known.items():
            node, _, store = field.decode("utf-8", "replace").partition(":")
            origins.append((node, store))
            try:
                self._register(node, store, text)
            except ValueError as error:
                self._complain(node, error)
        return origins

    async def _read_states(self, redis: AsyncClient, origins: list[Origin]) -> None:
        keys = [fleet.state_key(*origin) for origin in origins]
        states: list[bytes | None] = await _answer(redis.mget(keys)) if keys else []
        for key, state in zip(keys, states, strict=True):
            if state is not None:
                self._take(key.split(":")[2], state)
        self._nodes.check()

    def _register(self, node: str, store: str, text: bytes) -> None:
        try:
            info = read_info(text)
            if (info.node, info.store) != (node, store):
                raise ValueError("it is listed under another name")
            self._nodes.register(info)
        except IncompatibleError as error:
            self._nodes.refuse(node, store, error, alive=False)

    async def _watch(self, redis: AsyncClient) -> None:
        """Find the nodes that are lost, and those that Redis lists no more."""
        asked = checked = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_S)
            now = time.monotonic()
            hangs_s = now - min(checked, now if self._waiting_since is None else self._waiting_since)
            checked = now
            if hangs_s > HANGS_S:
                self._nodes.forgive()
            else:
                self._nodes.check()
            if now - asked >= REGISTRY_S:
                self._nodes.keep(set(await self._read_registry(redis)))
                asked = time.monotonic()

    # What is not stored.

    async def _listen(self, heard: Any) -> None:
        """Take what comes; where nothing does, ask whether the connection is there: networks forget one that is idle."""
        asked = False
        while True:
            message = await heard.get_message(timeout=ANSWER_S)
            if message is None and asked:
                raise TimeoutError
            asked = message is None
            if message is None:
                await heard.ping()
            elif message["type"] == "pmessage":
                self._take(message["channel"].decode("utf-8", "replace").rpartition(":")[2], message["data"])

    def _take(self, node: str, text: bytes) -> None:
        """A message of a node."""
        try:
            message = read_message(text.decode())
            check_encodable(text, message)
            if message["type"] == "state":
                self._take_state(node, message)
            elif message["type"] in ("signal", "activity", "expression") and not self._nodes.is_incompatible(node):
                _check_size(text)
                self._pass_on(node, message)
        except (ValueError, KeyError, TypeError) as error:
            self._complain(node, error)

    def _take_state(self, node: str, message: Mapping[str, Any]) -> None:
        try:
            state = read_state(message)
        except IncompatibleError as error:
            info = NodeInfo(node=node, store=str(message.get("store", "unknown")))
            self._nodes.refuse(node, info.store, error, alive=True)
            return
        if state.node == node:
            problem = state.problem or self._old_copy(state)
            self._nodes.hear(state if problem is None else state.model_copy(update={"problem": problem}))

    def _old_copy(self, state: NodeState) -> str | None:
        """The sentence about a store that ends before what was read of it, as an old copy does at a Redis that was emptied; a
        state that is late only seems to for less than a lease."""
        known = self._positions.get((state.node, state.store), 0)
        if state.seq >= known:
            self._behind.pop((state.node, state.store), None)
            return None
        since = self._behind.setdefault((state.node, state.store), time.monotonic())
        if time.monotonic() - since <= fleet.LEASE_S:
            return None
        return (
            f"this hub has event {known} of the node's store, which ends with {state.seq}: the store is an old copy, and no "
            f"event up to {known} is read; give the node another name with --node"
        )

    def _pass_on(self, node: str, message: dict[str, Any]) -> None:
        message["stream"] = stream_name(node, message["stream"])
        if message["type"] == "expression":
            if message["state"] != "provisional" or message["id"] in self._finished:
                return
            self._hub.post(Forwarded({**_without_numbers(message), "node": node}))
        else:
            self._hub.pass_on(Message(message))

    def _complain(self, node: str, error: Exception) -> None:
        if node not in self._damaged:
            log.warning("what node %s sends cannot be read and is left out (%s)", node, first_line(error))
        self._damaged.add(node)

    # Stored events.

    async def _read(self, redis: AsyncClient) -> None:
        while True:
            if self._nodes.readable:
                await self._read_once(redis, BLOCK_MS)
            else:
                await asyncio.sleep(BLOCK_MS / 1000)

    async def _read_once(self, redis: AsyncClient, block: int | None) -> None:
        """Read and forward what there is; where there is nothing, wait for it for so many milliseconds."""
        origins = {fleet.events_key(*origin): origin for origin in self._nodes.readable}
        if not origins:
            return
        wanted: Any = {key: f"{self._positions.get(origin, 0)}-{LAST}" for key, origin in origins.items()}
        count = max(1, self._count // len(wanted))
        self._waiting_since = time.monotonic()
        answer: Any = await redis.xread(wanted, count=count, block=block)
        self._waiting_since = None
        self._count = self._count if answer else COUNT
        for key, entries in answer or ():
            await self._forward(origins[key.decode()], entries)

    async def _forward(self, origin: Origin, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for entry, fields in entries:
            seq, known = int(entry.partition(b"-")[0]), self._positions.get(origin, 0)
            if known and seq > known + 1:
                log.warning("events %d to %d of node %s are not at Redis any more", known + 1, seq - 1, origin[0])
            if seq <= known:  # as LAST has it, where both parts of an id were read at once
                continue
            event = self._event(origin, seq, fields)
            if event is not None:
                await self._hub.room(BACKLOG)
                self._hub.post(Forwarded(event))
                self._finish(event["id"])
            self._positions[origin] = seq

    def _event(self, origin: Origin, seq: int, fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
        """The event of an entry as this hub stores it; None where it cannot be read."""
        node, store = origin
        try:
            body = fields[fleet.EVENT.encode()]
            _check_size(body)
            event = read_stored(body)
            if seq > LAST_SEQ:
                raise ValueError("the number of an event is too large")
            if event["state"] != "final":
                raise ValueError("it is not final")
        except (ValueError, KeyError) as error:
            self._complain(node, error)
            return None
        of_node = {"stream": stream_name(node, event["stream"]), "node": node, "node_store": store, "node_seq": seq}
        return {**_without_numbers(event), **of_node}

    def _finish(self, event: str) -> None:
        self._finished[event] = None
        if len(self._finished) > FINISHED:
            del self._finished[next(iter(self._finished))]


def _check_size(text: bytes) -> None:
    """Raise ValueError for what is too large for the hub's clients."""
    if len(text) > LARGEST:
        raise ValueError(f"{len(text):,} bytes are too many for a message")


def _without_numbers(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without what only the hub may set."""
    return {key: value for key, value in event.items() if key not in NUMBERS}


async def _answer(answer: Any) -> Any:
    """The answer to a command, whose type redis-py leaves open."""
    return await answer
