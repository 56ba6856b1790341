"""The nodes of a fleet as its hub sees them: which are live, lost, ended or of another version, and how their streams are.

What changes is posted to the hub: a node's status, and those of its streams, which are called NODE/STREAM there. Used on the
event loop; times are monotonic seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from stream.events.hub import Hub
from stream.events.store import Origin
from stream.messages import NodeCondition, NodeStatus, SourceState, SourceStatus
from stream.outlets.fleet import LEASE_S, PROTOCOL, IncompatibleError, NodeInfo, NodeState, StreamState

log = logging.getLogger(__name__)

STATES: dict[str, SourceState] = {state: state for state in get_args(SourceState)}


@dataclass(frozen=True)
class _Known:
    """What is known of one store of a node: when it was last heard of, None: not since this hub runs."""

    info: NodeInfo
    heard: float | None = None
    state: NodeState | None = None
    incompatible: str = ""


def stream_name(node: str, stream: str) -> str:
    """The name of a node's stream at the hub."""
    return f"{node}/{stream}"


class Nodes:
    """All nodes of which this hub knows. on_status is called with the status of each of their streams."""

    def __init__(
        self,
        hub: Hub,
        *,
        on_status: Callable[[SourceStatus], None],
        clock: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
    ) -> None:
        self._hub, self._on_status, self._clock, self._lease_s = hub, on_status, clock, lease_s
        self._known: dict[str, dict[str, _Known]] = {}  # by node and store
        self._streams: dict[str, set[str]] = {}  # by node, the names of its streams at the hub
        self._shown: dict[str, NodeStatus] = {}

    @property
    def readable(self) -> list[Origin]:
        """Whose events can be read: those of the hub's own version."""
        return [(node, store) for node, stores in self._known.items() for store, one in stores.items() if not one.incompatible]

    def is_incompatible(self, node: str) -> bool:
        """Whether it is shown as one of another version."""
        return node in self._shown and self._shown[node].state == "incompatible"

    def register(self, info: NodeInfo) -> None:
        """A node that Redis knows, alive or not; it is shown once it was heard of, or at the latest by `check`."""
        self._stores(info.node).setdefault(info.store, _Known(info))

    def refuse(self, node: str, store: str, error: IncompatibleError, *, alive: bool) -> None:
        """A node of another version. Raises ValueError for names that no node has."""
        info = NodeInfo(node=node, store=store, version=error.version)
        sentence = (
            f"node {node} speaks protocol {error.protocol} (apexstream {error.version}) and this hub protocol {PROTOCOL}: "
            "its events are not read; run the same version on both"
        )
        stores = self._stores(node)
        was = stores.get(store)
        if was is None or not was.incompatible:
            log.warning("%s", sentence)
        heard = self._clock() if alive else None if was is None else was.heard
        stores[store] = _Known(info, heard, None, sentence)
        self._show(node)

    def hear(self, state: NodeState) -> None:
        """A node says how it is; one state that is older than the last of the same run changes nothing, as a hub that connects
        reads states beside those that it is sent."""
        was = self._stores(state.node).get(state.store)
        if was is not None and was.state is not None and was.state.instance == state.instance and was.state.beat > state.beat:
            return
        self._stores(state.node)[state.store] = _Known(state, self._clock(), state)
        self._show(state.node)
        if not state.ended:
            self._post_streams(state)

    def forgive(self) -> None:
        """Redis was away, and nobody could be heard: the leases begin again."""
        now = self._clock()
        for stores in (stores for node, stores in self._known.items() if self._is_live(node)):
            stores |= {store: replace(one, heard=now) for store, one in stores.items() if one.heard is not None}

    def keep(self, registered: Collection[Origin]) -> None:
        """Remove those that Redis does not list any more, but for those that are alive."""
        for node, stores in list(self._known.items()):
            gone = [store for store, one in stores.items() if (node, store) not in registered and not self._alive(one)]
            for store in gone:
                del stores[store]
            if gone and stores:
                self._show(node)
            elif gone:
                self._remove(node)

    def _remove(self, node: str) -> None:
        """Drop a node of which nothing is known any more, and its streams."""
        del self._known[node]
        for stream in sorted(self._streams.pop(node, set())):
            self._hub.remove(stream)
        was = self._shown.pop(node, None)
        if was is not None:
            log.info("node %s: removed, as Redis does not list it any more", node)
            self._hub.post(replace(was, state="removed", detail="", since=time.time()))

    def check(self) -> None:
        """Find those that are lost; cheap where none is, as it is called several times a second."""
        latest = self._clock() - self._lease_s
        for node, stores in self._known.items():
            silent = any(one.heard is None or one.heard < latest for one in stores.values())
            if node not in self._shown or (silent and self._is_live(node)):
                self._show(node)

    def _stores(self, node: str) -> dict[str, _Known]:
        """What is known of each store of a node, from now on perhaps."""
        return self._known.setdefault(node, {})

    def _is_live(self, node: str) -> bool:
        """Whether it is shown as live."""
        return node in self._shown and self._shown[node].state == "live"

    def _alive(self, one: _Known) -> bool:
        in_time = one.heard is not None and self._clock() - one.heard <= self._lease_s
        return in_time and not (one.state is not None and one.state.ended)

    def _show(self, node: str) -> None:
        """Post a node's status where it changed."""
        made, was = self._status(node), self._shown.get(node)
        if was is not None and replace(made, since=was.since) == was:
            return
        if was is not None and was.state == made.state:
            made = replace(made, since=was.since)
        self._shown[node] = made
        if was is None or (was.state, was.detail) != (made.state, made.detail):
            level = logging.INFO if made.state in ("live", "ended") and not made.detail else logging.WARNING
            log.log(level, "node %s: %s%s", node, made.state, made.detail and f": {made.detail}")
        self._hub.post(made)
        if made.state != "live":
            self._end_streams(node, made.state)

    def _status(self, node: str) -> NodeStatus:
        """A node by its name: by its stores that are alive, else by the one heard of last."""
        stores = list(self._known[node].values())
        alive = [one for one in stores if self._alive(one)]
        newest = max(alive or stores, key=lambda one: (bool(alive) and not one.incompatible, one.heard or float("-inf")))
        if newest.incompatible:
            condition: NodeCondition = "incompatible"
            detail = newest.incompatible
        elif alive:
            condition = "live"
            detail = newest.state.problem or "" if newest.state is not None else ""
            if len(alive) > 1 and not detail:
                detail = f"two nodes are called {node}; give one of them another name with --node"
        elif newest.state is not None and newest.state.ended:
            condition, detail = "ended", ""
        else:
            condition, detail = "lost", f"nothing was heard of it for {self._lease_s:g} s"
        info = newest.info
        return NodeStatus(node, condition, detail, info.page, info.version, info.model, time.time())

    def _post_streams(self, state: NodeState) -> None:
        """Post the states of a live node's streams, and remove those that it has no more."""
        names = {stream_name(state.node, one.stream) for one in state.streams}
        several = sum(map(self._alive, self._known[state.node].values())) > 1
        if not several:
            for gone in self._streams.get(state.node, set()) - names:
                self._hub.remove(gone)
        self._streams[state.node] = names | (self._streams.get(state.node, set()) if several else set())
        for one in state.streams:
            self._post(_source_status(state.node, one))

    def _end_streams(self, node: str, condition: NodeCondition) -> None:
        """The streams of a node that is not live any more."""
        state: SourceState = "ended" if condition == "ended" else "stalled"
        detail = f"the node {node} has ended" if condition == "ended" else f"the node {node} is {condition}"
        for name in sorted(self._streams.get(node, set())):
            was = self._hub.streams.get(name)
            if was is not None and was.state != "ended":
                self._post(replace(was, state=state, detail=detail, fps=0.0, since=time.time()))

    def _post(self, status: SourceStatus) -> None:
        self._on_status(status)
        self._hub.post(status)


def _source_status(node: str, one: StreamState) -> SourceStatus:
    try:
        since = datetime.fromisoformat(one.since).timestamp()
    except (ValueError, OverflowError):
        since = time.time()
    name, state = stream_name(node, one.stream), STATES[one.state]
    figures = (one.fps or 0.0, one.frames, one.drops, one.reconnects, one.width, one.height)
    return SourceStatus(name, one.kind, state, one.detail, *figures, since, node)
