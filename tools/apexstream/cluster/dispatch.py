"""Items given to workers on the nodes of a cluster, each until it is done once.

An item whose worker ends is done by another, unless it has ended three. What a lost node did is done elsewhere and is not the
item's fault: a worker that ended is replaced on its node, and only if that succeeds, or has been waited for while the node was
there, was it the item. Nodes that come meanwhile take part.
"""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from apexstream.cluster.connection import Cluster
from apexstream.cluster.ray_process import Answer, Lost, Message, Node, Nodes, Raised, Returned, Share
from engine.errors import ApexError
from stream.recorded.folders.workers import StopRequest

DEATHS = 3
"""So many workers may end over an item, or at their start on a node."""
PATIENCE = 30
"""Within so many reports of the nodes, a second apart, a worker should start; else other work may have the node's cores."""
BUSY = "no process has started on the cluster for long, as other work may have its cores or memory; waiting (Ctrl-C ends)"
TOO_SMALL = "no node of the cluster has the cores, memory or GPU for this work; waiting for one (Ctrl-C ends)"


@dataclass(frozen=True)
class Started:
    """A worker does the item from now on, perhaps not for the first time."""

    item: int


@dataclass(frozen=True)
class Progressed:
    """What the worker's `progress` returned."""

    item: int
    value: Any


@dataclass(frozen=True)
class Done:
    """What the worker's `do` came to."""

    item: int
    result: Returned | Raised


@dataclass(frozen=True)
class Failed:
    """The item ended its workers."""

    item: int
    sentence: str


@dataclass(frozen=True)
class Note:
    """A sentence on the cluster for the user."""

    sentence: str


Happening = Started | Progressed | Done | Failed | Note


def divided(node: Node, workers: int, memory: int) -> list[Share]:
    """A node's cores and GPUs divided among so many workers, fewer where each would not have so many bytes of memory."""
    workers = min(workers, node.cpus, node.memory // memory)
    if workers < 1:
        return []
    each, more = divmod(node.cpus, workers)
    gpus = node.gpus // workers or int(10_000 * node.gpus / workers) / 10_000  # Ray takes whole ones, or parts of one
    return [Share(node, each + (number < more), memory, gpus) for number in range(workers)]


@dataclass(eq=False)
class _Slot:
    """A place for a worker. item is what it does, or, while a worker starts, what its predecessor did."""

    share: Share
    worker: int
    ready: bool = False
    failed: bool = False
    item: int | None = None
    call: int | None = None
    asked: int | None = None
    deaths: int = 0
    reports: int = 0  # of the nodes, while a worker starts


class Dispatch:
    """Gives items to workers. Items are pickled one by one; a worker's object has the methods do(item, again), progress() and
    stop(). again says that a worker was lost that did the item before."""

    def __init__(
        self,
        cluster: Cluster,
        items: Sequence[Any],
        factory: Callable[[], Any],
        shares: Callable[[Node], list[Share]],
        *,
        most: int | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self._cluster, self._items, self._shares, self._stop_request = cluster, list(items), shares, stop
        self._factory = pickle.dumps(factory)
        self._limit = most
        self._waiting = deque(range(len(items)))
        self._deaths: Counter[int] = Counter()
        self._lost: set[int] = set()
        self._slots: list[_Slot] = []
        self._nodes: dict[str, Node] = {}
        self._free: dict[str, list[Share]] = {}  # of each node, what no worker uses
        self._refused: dict[str, str] = {}
        self._stopping = self._ending = self._waits = self._added = False

    @property
    def _most(self) -> int:
        """How many workers there may be."""
        return len(self._items) if self._limit is None else min(len(self._items), self._limit)

    @property
    def workers(self) -> int:
        """How many workers there are or will be."""
        return len(self._slots)

    def run(self) -> Iterator[Happening]:
        """What happens, until all items are done, or after a stop those that were under way.

        Raises ApexError where the connection is lost or no node can take part.
        """
        wakes = [] if self._stop_request is None else [self._stop_request.wakes]
        try:
            while self._waiting or any(slot.item is not None for slot in self._slots):
                message = self._cluster.receive(*([] if self._stopping else wakes))
                yield from self._stop() if message is None else self._take(message)
                if self._added:
                    self._added = False
                    yield from self._give_idle()
                    self._fill()
        finally:
            self._close()

    def add(self, items: Sequence[Any]) -> range:
        """Further items, to be done before those that wait; their numbers. Once all that waited was dropped, none is."""
        numbers = range(len(self._items), len(self._items) + len(items))
        self._items += items
        if not self._ending:
            self._waiting.extendleft(reversed(numbers))
            self._added = True
        return numbers

    def drop_waiting(self, numbers: Collection[int] | None = None) -> None:
        """Give none of these items to workers, if they still wait; none at all where numbers is None, whatever comes then."""
        self._ending |= numbers is None
        self._waiting = deque(number for number in self._waiting if numbers is not None and number not in numbers)

    def _stop(self) -> Iterator[Happening]:
        self._stopping = True
        self.drop_waiting()
        for slot in self._slots:
            if slot.call is None:
                slot.item = None
            else:
                self._cluster.call(slot.worker, "stop")
        yield from ()

    def _take(self, message: Message) -> Iterator[Happening]:
        if isinstance(message, Nodes):
            yield from self._follow_nodes({node.key: node for node in message.alive})
        elif isinstance(message, Answer | Lost):
            for slot in self._slots:
                if message.number == -slot.worker:
                    yield from self._started(slot, message)
                elif message.number == slot.call:
                    yield from self._ended(slot, message)
                elif message.number == slot.asked:
                    yield from self._progressed(slot, message)
                else:
                    continue
                break

    def _follow_nodes(self, nodes: dict[str, Node]) -> Iterator[Happening]:
        known = {key: self._free.get(key, []) for key in self._nodes}  # none of a node that was refused
        self._free = {key: known[key] if key in known else self._shares(node) for key, node in nodes.items()}
        self._nodes = nodes
        gone = [slot for slot in self._slots if slot.share.node.key not in nodes]
        for node in dict.fromkeys(slot.share.node for slot in gone):
            yield Note(f"{node.name}: the node is gone; what it did is done elsewhere")
        for slot in gone:
            yield from self._remove(slot)
        self._fill()
        for slot in self._slots:
            if slot.failed:
                self._replace(slot)
            if slot.call is not None and slot.asked is None:
                slot.asked = self._cluster.call(slot.worker, "progress")
            slot.reports = 0 if slot.ready else slot.reports + 1
            if slot.reports and slot.reports % PATIENCE == 0:
                yield from self._move(slot)
        yield from self._check_slots()

    def _fill(self) -> None:
        """Start workers where none are yet, as many as may be, each where most are missing; also in place of those of nodes
        that were lost or refused."""
        while self._waiting and len(self._slots) < self._most and (share := self._take_share()):
            self._slots.append(_Slot(share, self._cluster.start(share, self._factory)))

    def _take_share(self, other_than: str = "") -> Share | None:
        """What no worker uses, on the node with most of that; not on the other one. None where all is used."""
        free = [shares for key, shares in self._free.items() if shares and key != other_than]
        return max(free, key=len).pop(0) if free else None

    def _move(self, slot: _Slot) -> Iterator[Happening]:
        """The slot's worker has not started for long: another does its item, and where there is room it starts elsewhere."""
        if slot.item is not None:
            yield from self._blame(slot, slot.item)
            yield from self._give_idle()
        node = slot.share.node.key
        if (share := self._take_share(other_than=node)) is not None:
            self._free.get(node, []).append(slot.share)
            slot.share = share
            self._replace(slot)

    def _check_slots(self) -> Iterator[Happening]:
        """Say once that there is no node to work on; raise ApexError where that is so because each was refused."""
        refused = [key in self._refused or not self._shares(node) for key, node in self._nodes.items()]
        if not self._waiting or any(slot.reports < PATIENCE for slot in self._slots):
            self._waits = False
        elif not self._slots and self._refused and all(refused):
            raise ApexError(next(iter(self._refused.values())))
        elif not self._waits:
            self._waits = True
            yield Note(BUSY if self._slots else TOO_SMALL)

    def _started(self, slot: _Slot, message: Answer | Lost) -> Iterator[Happening]:
        if isinstance(message, Lost):
            slot.failed = True  # until it is known whether the node is there
            slot.deaths += 1
            if slot.deaths == DEATHS:
                yield from self._refuse(slot, f"its processes end at their start ({message.reason.split(' class_name')[0]})")
            return
        result = pickle.loads(message.content)
        if isinstance(result, Raised):
            yield from self._refuse(slot, str(result.error))
            return
        slot.ready, slot.deaths = True, 0
        if slot.item is not None:
            yield from self._blame(slot, slot.item)
        yield from self._give(slot)

    def _blame(self, slot: _Slot, item: int) -> Iterator[Happening]:
        """The worker before ended over the item, as its node is there."""
        slot.item = None
        self._deaths[item] += 1
        if self._deaths[item] == DEATHS:
            yield Failed(item, f"the process working on it ended, each of {DEATHS} times (short of memory?)")
        else:
            self._do_again(item)

    def _do_again(self, item: int) -> None:
        """The item's worker was lost."""
        if not self._ending:
            self._lost.add(item)
            self._waiting.appendleft(item)

    def _ended(self, slot: _Slot, message: Answer | Lost) -> Iterator[Happening]:
        item = slot.item
        assert item is not None
        slot.call = slot.asked = None
        if isinstance(message, Answer):
            slot.item = None
            yield Done(item, pickle.loads(message.content))
            yield from self._give(slot)
            return
        if self._ending:
            yield from self._remove(slot)
            return
        slot.ready = False
        self._replace(slot)

    def _progressed(self, slot: _Slot, message: Answer | Lost) -> Iterator[Happening]:
        slot.asked = None
        if slot.item is not None and isinstance(message, Answer):
            result = pickle.loads(message.content)
            if isinstance(result, Returned) and result.value is not None:
                yield Progressed(slot.item, result.value)

    def _refuse(self, slot: _Slot, reason: str) -> Iterator[Happening]:
        """Leave out a slot; its node takes part no more unless other slots are used there."""
        node = slot.share.node
        if node.key not in self._refused:
            self._refused[node.key] = f"{node.name}: {reason}"
            yield Note(f"{self._refused[node.key]}; the node takes no part")
        self._free.pop(node.key, None)
        yield from self._remove(slot)
        self._fill()
        yield from self._check_slots()

    def _remove(self, slot: _Slot) -> Iterator[Happening]:
        """Take away a slot; another does its item."""
        self._slots.remove(slot)
        self._cluster.kill(slot.worker)
        if slot.item is not None:
            self._do_again(slot.item)
        yield from self._give_idle()

    def _give_idle(self) -> Iterator[Happening]:
        for idle in [one for one in self._slots if one.ready and one.item is None]:
            yield from self._give(idle)

    def _give(self, slot: _Slot) -> Iterator[Happening]:
        if self._waiting:
            item = self._waiting.popleft()
            yield Started(item)
            self._do(slot, item)

    def _do(self, slot: _Slot, item: int) -> None:
        slot.item, slot.call = item, self._cluster.call(slot.worker, "do", self._items[item], item in self._lost)

    def _replace(self, slot: _Slot) -> None:
        """Start another worker; the one before may be only out of reach."""
        self._cluster.kill(slot.worker)
        slot.worker, slot.failed = self._cluster.start(slot.share, self._factory), False

    def _close(self) -> None:
        for slot in self._slots:
            self._cluster.kill(slot.worker)
        self._slots.clear()
