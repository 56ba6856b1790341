"""Events of a fleet, one by one: from the frame that decides, through its node's store, Redis and the hub, to a browser.

Frames are not simulated here. Nodes do not affect each other's analysis, so `node.py` simulates one machine frame by frame, and
each event here draws its delay from that distribution. The events of a node's cameras are one Poisson process with the sum of
their rates. Motion traces and the nodes' states are a steady load: they slow Redis and the hub as if the rest of each server's
time were all there is.

    node      store: one commit at a time; then appended to Redis
    redis     one thread, first come, first served: each append, and each read of the hub, which asks for all nodes' streams
    hub       one loop: reads what has arrived, at most 64 events, commits it, then sends each event to each subscriber in turn;
              an event counts as received when it has got to a subscriber drawn at random
    browser   one page's main thread, first come, first served
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from lab.scaling.figures import F64, sampled

BATCH = 64
"""Events that the hub takes at once: `stream.events.hub.BATCH`."""


@dataclass(frozen=True)
class Costs:
    """Seconds on a core, but for the quantiles, which are milliseconds evenly spaced: a node's delay from a frame's arrival to
    the end of its analysis, and durable commits by the clock, of a node and of the hub. hub_batch is once for each commit,
    read_server and read_hub once for each read."""

    node_ms: F64
    node_commit_ms: F64
    hub_commit_ms: F64
    xadd: float
    read_server: float
    read_hub: float
    hub_event: float
    hub_batch: float
    hub_subscriber: float
    page_event: float
    network: float = 0.0002
    """Between two machines, one way. Assumed: 0.2 ms, as within a building."""


@dataclass(frozen=True)
class Load:
    """Machines, the cameras of each, events of one camera a minute, subscribers of the hub; the share of
    Redis and of the hub that motion traces and nodes' states take."""

    nodes: int
    cameras: int
    events_a_minute: float
    subscribers: int = 10
    evenly: bool = False
    """At an even pace instead of at random moments."""
    redis_steady: float = 0.0
    hub_steady: float = 0.0


@dataclass(frozen=True)
class FleetResult:
    """Events decided and received; shares of Redis', the hub's and a browser's time; the longest queues; Redis commands a
    second (appends and reads); milliseconds from the deciding frame to a subscriber, and to its page."""

    decided: int
    received: int
    redis_busy: float
    hub_busy: float
    page_busy: float
    longest_redis: int
    longest_hub: int
    longest_page: int
    redis_ops: float
    received_ms: F64
    shown_ms: F64


class _Run:
    def __init__(self, load: Load, costs: Costs, seconds: float, seed: int) -> None:
        self.load, self.costs, self.seconds = load, costs, seconds
        self.env = simpy.Environment()
        self._random = np.random.default_rng(seed)
        self._redis_rest = 1 - load.redis_steady
        self._hub_rest = 1 - load.hub_steady
        self.redis = simpy.Resource(self.env, 1)
        self.arrived: deque[float] = deque()
        self.idle = self.env.event()
        self.page: simpy.Store = simpy.Store(self.env)
        self.decided = self.reads = self.longest_redis = self.longest_hub = self.longest_page = 0
        self.redis_used = self.hub_used = self.page_used = 0.0
        self.received_ms: list[float] = []
        self.shown_ms: list[float] = []
        for _ in range(load.nodes):
            self.env.process(self._node())
        self.env.process(self._hub())
        self.env.process(self._browser())

    def _node(self) -> Generator[Any, Any, None]:
        """Decides events; each is stored, one commit at a time, and appended to Redis."""
        rate = self.load.cameras * self.load.events_a_minute / 60
        store = simpy.Resource(self.env, 1)
        expected = int(rate * self.seconds * 1.2 + 10)
        gaps = np.full(expected, 1 / rate) if self.load.evenly else self._random.exponential(1 / rate, expected)
        commits = sampled(self.costs.node_commit_ms, self._random, expected)
        for gap, commit in zip(gaps.tolist(), commits.tolist(), strict=True):
            yield self.env.timeout(gap)
            self.decided += 1
            self.env.process(self._event(store, commit / 1000))

    def _event(self, store: simpy.Resource, commit: float) -> Generator[Any, Any, None]:
        decided = self.env.now
        with store.request() as turn:
            yield turn
            yield self.env.timeout(commit)
        yield self.env.timeout(self.costs.network)
        yield from self._at_redis(self.costs.xadd)
        self.arrived.append(decided)
        self.longest_hub = max(self.longest_hub, len(self.arrived))
        if not self.idle.triggered:
            self.idle.succeed()

    def _at_redis(self, seconds: float) -> Generator[Any, Any, None]:
        with self.redis.request() as turn:
            self.longest_redis = max(self.longest_redis, len(self.redis.queue))
            yield turn
            yield self.env.timeout(seconds / self._redis_rest)
        self.redis_used += seconds

    def _hub(self) -> Generator[Any, Any, None]:
        while True:
            if not self.arrived:
                self.idle = self.env.event()
                yield self.idle
            yield from self._at_redis(self.costs.read_server)
            batch = [self.arrived.popleft() for _ in range(min(BATCH, len(self.arrived)))]
            yield self.env.timeout(2 * self.costs.network + self.costs.read_hub / self._hub_rest)
            self.reads += 1
            commit = float(sampled(self.costs.hub_commit_ms, self._random, 1)[0]) / 1000
            yield self.env.timeout(max(commit, self.costs.hub_batch / self._hub_rest))  # the commit waits for the disk
            sending = self.costs.hub_subscriber * self.load.subscribers
            self.hub_used += self.costs.hub_batch + self.costs.read_hub
            for decided in batch:
                yield self.env.timeout(self.costs.hub_event / self._hub_rest)
                turn = self.env.now + float(self._random.random()) * sending / self._hub_rest
                self.received_ms.append(1000 * (turn + self.costs.network - decided))
                yield self.env.timeout(sending / self._hub_rest)
                self.hub_used += self.costs.hub_event + sending
                self.page.put(decided)
                self.longest_page = max(self.longest_page, len(self.page.items))

    def _browser(self) -> Generator[Any, Any, None]:
        while True:
            decided = yield self.page.get()
            yield self.env.timeout(self.costs.page_event)
            self.page_used += self.costs.page_event
            self.shown_ms.append(1000 * (self.env.now + self.costs.network - decided))


def simulate_fleet(load: Load, costs: Costs, *, seconds: float = 60.0, seed: int = 0) -> FleetResult:
    """One run of that many seconds of the fleet."""
    run = _Run(load, costs, seconds, seed)
    run.env.run(until=seconds)
    analysis = sampled(costs.node_ms, np.random.default_rng(seed), len(run.received_ms))
    return FleetResult(
        decided=run.decided,
        received=len(run.received_ms),
        redis_busy=run.redis_used / seconds + load.redis_steady,
        hub_busy=run.hub_used / seconds + load.hub_steady,
        page_busy=run.page_used / seconds,
        longest_redis=run.longest_redis,
        longest_hub=run.longest_hub,
        longest_page=run.longest_page,
        redis_ops=(run.decided + run.reads) / seconds,
        received_ms=np.array(run.received_ms) + analysis,
        shown_ms=np.array(run.shown_ms) + analysis[: len(run.shown_ms)],
    )
