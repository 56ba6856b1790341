from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import pytest

from apexstream.cluster.connection import Cluster
from apexstream.cluster.dispatch import (
    BUSY,
    PATIENCE,
    Dispatch,
    Done,
    Failed,
    Happening,
    Note,
    Progressed,
    Started,
    divided,
)
from apexstream.cluster.ray_process import Answer, Lost, Message, Node, Nodes, Raised, Returned, Share
from engine.errors import ApexError, InputError
from stream.recorded.folders.workers import StopRequest

A, B = Node("a", "host-a", 1, 10, 0), Node("b", "host-b", 1, 10, 0)
LARGE = Node("large", "host-large", 2, 20, 0)


class Doubling:
    """Stands for a worker's object; here the cluster below answers for it."""


class ScriptedCluster:
    """Answers at once, but for what a test does by itself: items in held wait, those in deadly end their workers."""

    def __init__(self, *nodes: Node, held: set[Any] | None = None, deadly: set[Any] | None = None) -> None:
        self.alive, self.held, self.deadly = list(nodes), held or set(), deadly or set()
        self.broken: set[str] = set()
        self.busy: set[str] = set()
        self.refusing: dict[str, Exception] = {}
        self.workers: dict[int, Share] = {}
        self.done: list[tuple[str, Any, bool]] = []
        self.waiting: dict[int, tuple[int, Any]] = {}
        self.stopped: list[int] = []
        self.killed: list[int] = []
        self.numbers = 0
        self.messages: deque[Message | None] = deque([Nodes(tuple(nodes))])

    def start(self, share: Share, factory: bytes) -> int:
        worker = self.numbers = self.numbers + 1
        assert pickle.loads(factory) is Doubling
        self.workers[worker] = share
        if share.node.key in self.broken:
            self.messages.extend([Lost(-worker, "no node"), Nodes(tuple(self.alive))])
        elif share.node.key in self.refusing:
            self.messages.append(Answer(-worker, pickle.dumps(Raised(self.refusing[share.node.key]))))
        elif share.node in self.alive and share.node.key not in self.busy:
            self.messages.append(Answer(-worker, pickle.dumps(Returned(None))))
        return worker

    def call(self, worker: int, method: str, *arguments: Any) -> int:
        number = self.numbers = self.numbers + 1
        if method == "do":
            item, again = arguments
            self.done.append((self.workers[worker].node.name, item, again))
            if item in self.deadly:
                self.messages.append(Lost(number, "it ended"))
            elif item in self.held:
                self.waiting[worker] = number, item
            else:
                self.answer(number, 2 * item)
        elif method == "progress":
            self.answer(number, (1, 2, 0))
        else:
            self.stopped.append(worker)
            self.answer(self.waiting.pop(worker)[0], "stopped")
        return number

    def answer(self, number: int, value: Any) -> None:
        self.messages.append(Answer(number, pickle.dumps(Returned(value))))

    def kill(self, worker: int) -> None:
        self.killed.append(worker)

    def receive(self, *others: Any) -> Message | None:
        assert self.messages, "the dispatch waits for ever"
        return self.messages.popleft()


def dispatch(cluster: ScriptedCluster, items: list[Any], **options: Any) -> Dispatch:
    def shares(node: Node) -> list[Share]:
        return divided(node, node.cpus, 1)

    return Dispatch(cast(Cluster, cluster), items, Doubling, shares, **options)


def results(happenings: Iterator[Happening]) -> dict[int, Any]:
    return {one.item: one.result.value for one in happenings if isinstance(one, Done) and isinstance(one.result, Returned)}


def test_all_items_are_done_once_by_all_nodes() -> None:
    cluster = ScriptedCluster(A, B)
    assert results(dispatch(cluster, [1, 2, 3, 4, 5]).run()) == {0: 2, 1: 4, 2: 6, 3: 8, 4: 10}
    assert sorted(item for _, item, _ in cluster.done) == [1, 2, 3, 4, 5]
    assert {node for node, _, _ in cluster.done} == {"host-a", "host-b"}
    assert set(cluster.killed) == set(cluster.workers)


def test_no_more_workers_than_asked_for_or_items() -> None:
    for items, most in (([1], None), ([1, 2, 3], 1)):
        cluster = ScriptedCluster(A, B)
        assert len(results(dispatch(cluster, items, most=most).run())) == len(items)
        assert len(cluster.workers) == 1


def test_an_item_that_ends_three_workers_fails_alone() -> None:
    cluster = ScriptedCluster(A, deadly={7})
    happened = list(dispatch(cluster, [7, 1]).run())
    assert [one for one in happened if isinstance(one, Failed)] == [
        Failed(0, "the process working on it ended, each of 3 times (short of memory?)")
    ]
    assert results(iter(happened)) == {1: 2}
    assert cluster.done == [("host-a", 7, False), ("host-a", 7, True), ("host-a", 7, True), ("host-a", 1, False)]


def test_a_node_for_which_there_was_no_work_takes_that_of_a_lost_one() -> None:
    cluster = ScriptedCluster(A, B, held={5})
    run = dispatch(cluster, [5]).run()
    assert next(run) == Started(0)
    cluster.held.clear()
    cluster.alive = [B]
    cluster.messages.append(Nodes((B,)))
    happened = list(run)
    assert results(iter(happened)) == {0: 10} and not any(isinstance(one, Failed) for one in happened)
    assert cluster.done == [("host-a", 5, False), ("host-b", 5, True)]
    assert not any("waiting for one" in one.sentence for one in happened if isinstance(one, Note))


def test_a_node_for_which_there_was_no_work_takes_that_of_a_refused_one() -> None:
    cluster = ScriptedCluster(A, B)
    cluster.refusing["a"] = InputError("host-a has no folder /videos")
    cluster.messages.append(Nodes((A, B)))
    happened = list(dispatch(cluster, [5]).run())
    assert results(iter(happened)) == {0: 10} and cluster.done == [("host-b", 5, False)]
    assert not any("waiting for one" in one.sentence for one in happened if isinstance(one, Note))


def test_what_a_lost_node_did_is_done_elsewhere_and_not_to_blame() -> None:
    cluster = ScriptedCluster(A, B, held={5})
    run = dispatch(cluster, [5, 1]).run()
    for happening in run:
        if isinstance(happening, Done):  # of the other item
            break
    cluster.held.clear()
    (call, _), cluster.alive = cluster.waiting.popitem()[1], [B]
    cluster.messages.extend([Lost(call, "out of reach"), Nodes((B,))])
    rest = list(run)
    assert Note("host-a: the node is gone; what it did is done elsewhere") in rest
    assert results(iter(rest)) == {0: 10}
    assert cluster.done[-1] == ("host-b", 5, True)
    assert not any(isinstance(one, Failed) for one in rest)


def test_a_node_that_comes_later_takes_part() -> None:
    cluster = ScriptedCluster(held={5})
    cluster.messages.append(Nodes((A,)))
    cluster.alive.append(A)
    happened = []
    for happening in dispatch(cluster, [5, 1]).run():
        happened.append(happening)
        if happening == Started(0):
            cluster.alive.append(B)
            cluster.messages.append(Nodes((A, B)))
        if isinstance(happening, Done) and happening.item == 1:
            cluster.answer(cluster.waiting[next(iter(cluster.waiting))][0], "late")
    assert isinstance(happened[0], Note) and "waiting for one" in happened[0].sentence
    assert results(iter(happened)) == {0: "late", 1: 2}
    assert cluster.done[1] == ("host-b", 1, False)


def test_nodes_that_refuse_take_no_part_and_all_of_them_end_the_run() -> None:
    cluster = ScriptedCluster(A, B)
    cluster.refusing["a"] = InputError("another apexstream")
    happened = list(dispatch(cluster, [1, 2]).run())
    assert Note("host-a: another apexstream; the node takes no part") in happened
    assert results(iter(happened)) == {0: 2, 1: 4}
    cluster = ScriptedCluster(A, Node("head", "host", 0, 10, 0))
    cluster.broken.add("a")
    with pytest.raises(ApexError, match=r"host-a: its processes end at their start \(no node\)"):
        list(dispatch(cluster, [1]).run())
    assert len(cluster.workers) == 3


def test_progress_is_asked_for_with_each_state_of_the_nodes() -> None:
    cluster = ScriptedCluster(A, held={5})
    happened = []
    for happening in dispatch(cluster, [5]).run():
        happened.append(happening)
        if happening == Started(0):
            cluster.messages.append(Nodes((A,)))
        if isinstance(happening, Progressed):
            cluster.answer(cluster.waiting.pop(1)[0], 10)
    assert Progressed(0, (1, 2, 0)) in happened and results(iter(happened)) == {0: 10}


def test_a_stop_ends_what_is_under_way_in_order_and_starts_nothing() -> None:
    cluster = ScriptedCluster(A, held={5})
    happened = []
    for happening in dispatch(cluster, [5, 1], stop=StopRequest()).run():
        happened.append(happening)
        if happening == Started(0):
            cluster.messages.append(None)  # the request
    assert results(iter(happened)) == {0: "stopped"}
    assert cluster.stopped == [1] and len(cluster.done) == 1


@pytest.mark.parametrize(
    ("node", "workers", "cpus", "gpus"),
    [
        (Node("k", "n", 8, 100, 0), 6, [2, 2, 1, 1, 1, 1], 0.0),
        (Node("k", "n", 2, 100, 0), 2, [1, 1], 0.0),
        (Node("k", "n", 8, 25, 1), 6, [4, 4], 0.5),
        (Node("k", "n", 3, 100, 1), 3, [1, 1, 1], 0.3333),
        (Node("k", "n", 4, 100, 5), 2, [2, 2], 2),
        (Node("k", "n", 0, 100, 0), 1, [], 0.0),
        (Node("k", "n", 4, 9, 0), 3, [], 0.0),
    ],
)
def test_a_node_is_divided_among_workers(node: Node, workers: int, cpus: list[int], gpus: float) -> None:
    found = divided(node, workers, 10)
    assert [share.cpus for share in found] == cpus
    assert all(share.gpus == gpus and share.memory == 10 for share in found)


def test_items_that_are_added_come_before_those_that_wait() -> None:
    cluster = ScriptedCluster(A)
    work = dispatch(cluster, [1, 2])
    for happening in work.run():
        if isinstance(happening, Done) and happening.item == 0:
            assert list(work.add([10, 11])) == [2, 3]
    assert [item for _, item, _ in cluster.done] == [1, 10, 11, 2]


def test_more_workers_start_for_items_that_are_added() -> None:
    cluster = ScriptedCluster(A, B, held={10})
    work = dispatch(cluster, [1])
    for happening in work.run():
        if isinstance(happening, Done) and happening.item == 0:
            work.add([10, 11])
        elif isinstance(happening, Done) and cluster.waiting:
            _, (number, _) = cluster.waiting.popitem()
            cluster.answer(number, 20)
    assert {name for name, _, _ in cluster.done} == {"host-a", "host-b"}
    assert sorted(item for _, item, _ in cluster.done) == [1, 10, 11]


def test_some_of_those_that_wait_can_be_dropped() -> None:
    cluster = ScriptedCluster(A)
    work = dispatch(cluster, [1, 2, 3])
    for happening in work.run():
        if isinstance(happening, Done) and happening.item == 0:
            work.drop_waiting({1})
    assert [item for _, item, _ in cluster.done] == [1, 3]


def test_a_lost_node_is_said_once_however_many_workers_it_had() -> None:
    cluster = ScriptedCluster(LARGE, A, held={1, 2})
    happened = []
    for happening in dispatch(cluster, [1, 2, 3]).run():
        happened.append(happening)
        if isinstance(happening, Done):
            cluster.alive, cluster.held = [A], set()
            cluster.messages.append(Nodes((A,)))
    assert [one.sentence for one in happened if isinstance(one, Note)] == [
        "host-large: the node is gone; what it did is done elsewhere"
    ]
    assert sum(isinstance(one, Done) for one in happened) == 3


def reported(cluster: ScriptedCluster) -> None:
    """The nodes are reported until a worker should have started."""
    cluster.messages.extend([Nodes(tuple(cluster.alive))] * PATIENCE)


def test_few_items_are_spread_over_the_nodes() -> None:
    cluster = ScriptedCluster(LARGE, Node("other", "host-other", 2, 20, 0))
    assert len(results(dispatch(cluster, [1, 2]).run())) == 2
    assert {share.node.key for share in cluster.workers.values()} == {"large", "other"}


def test_a_worker_that_does_not_start_is_started_elsewhere() -> None:
    """Other work has the cores of the node."""
    cluster = ScriptedCluster(A, B)
    cluster.busy.add("a")
    reported(cluster)
    assert results(dispatch(cluster, [5]).run()) == {0: 10}
    assert cluster.done == [("host-b", 5, False)] and cluster.killed == [1, 2]


def test_an_item_is_done_by_another_where_the_worker_that_ended_over_it_is_not_replaced() -> None:
    cluster, happened = ScriptedCluster(A, B, deadly={5}), []
    for happening in dispatch(cluster, [5, 1]).run():
        happened.append(happening)
        cluster.busy.add("a")
        if isinstance(happening, Done) and happening.item == 1:
            cluster.deadly.clear()
            reported(cluster)
    assert results(iter(happened)) == {0: 10, 1: 2}
    assert cluster.done == [("host-a", 5, False), ("host-b", 1, False), ("host-b", 5, True)]


def test_that_no_worker_starts_is_said_once() -> None:
    cluster = ScriptedCluster(A)
    cluster.busy.add("a")
    reported(cluster)
    reported(cluster)
    run = dispatch(cluster, [5]).run()
    assert next(run) == Note(BUSY)
    cluster.messages.append(Answer(-1, pickle.dumps(Returned(None))))
    assert list(run) == [Started(0), Done(0, Returned(10))]


def test_nothing_is_done_any_more_once_all_that_waited_was_dropped() -> None:
    """Neither what is added nor what a lost worker did."""
    cluster = ScriptedCluster(A, B, held={3})
    work = dispatch(cluster, [1, 3, 2])
    for happening in work.run():
        if isinstance(happening, Done) and happening.item == 0:
            work.drop_waiting()
            work.add([10])
            cluster.messages.append(Lost(cluster.waiting.popitem()[1][0], "it ended"))
    assert [item for _, item, _ in cluster.done] == [1, 3]
