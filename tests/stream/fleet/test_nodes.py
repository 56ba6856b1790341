from __future__ import annotations

from typing import Any

import pytest

from stream.events.hub import Hub
from stream.events.store import Store
from stream.fleet.nodes import Nodes
from stream.outlets.fleet import IncompatibleError, NodeInfo, NodeState, StreamState
from tests.subscribing import Client, on_a_loop

LEASE_S = 3.5


class Watched:
    """Nodes on a clock of the test's own, and what a client of their hub is sent."""

    def __init__(self, store: Store) -> None:
        self.now = 100.0
        self.hub, self.client = Hub(store), Client()
        self.hub.join(self.client)
        self.nodes = Nodes(self.hub, on_status=lambda status: None, clock=lambda: self.now, lease_s=LEASE_S)

    def hear(self, node: str = "desk", store: str = "5a", streams: tuple[str, ...] = ("lobby",), **fields: Any) -> None:
        states = tuple(StreamState(stream=name, kind="webcam", state="live", fps=30.0) for name in streams)
        self.nodes.hear(NodeState(**{"node": node, "store": store, "instance": "1", "streams": states, **fields}))

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.nodes.check()

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(one["name"], one["state"]) for one in self.client.of("node")]

    def stream(self, name: str) -> tuple[str, str]:
        last = next(one for one in self.client.of("status")[::-1] if one["stream"] == name)
        return last["state"], last["detail"]


def on_nodes(store: Store, test: Any) -> None:
    async def body() -> None:
        test(Watched(store))

    on_a_loop(body)


def test_a_node_is_lost_after_its_lease_and_comes_back(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.hear(streams=("lobby", "door"))
        watched.after(LEASE_S)
        assert watched.states == [("desk", "live")] and watched.stream("desk/lobby") == ("live", "")
        watched.after(0.1)
        watched.after(1.0)
        assert watched.states == [("desk", "live"), ("desk", "lost")], "said once"
        assert watched.stream("desk/lobby") == watched.stream("desk/door") == ("stalled", "the node desk is lost")
        watched.hear()
        assert watched.states[-1] == ("desk", "live") and watched.stream("desk/lobby") == ("live", "")
        assert [one["stream"] for one in watched.client.of("removed")] == ["desk/door"]

    on_nodes(store, test)


def test_a_state_that_comes_after_a_newer_one_changes_nothing(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.hear(beat=7, streams=("lobby",))
        watched.hear(beat=6, streams=(), problem="the disk is full")
        assert watched.client.of("removed") == [] and watched.client.of("node")[-1]["detail"] == ""
        watched.hear(beat=1, instance="0", streams=("door",))
        assert [one["stream"] for one in watched.client.of("removed")] == ["desk/lobby"], "another run of the node counts again"

    on_nodes(store, test)


def test_a_node_that_ended_is_not_lost(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.hear()
        watched.hear(ended=True)
        watched.after(10.0)
        assert watched.states == [("desk", "live"), ("desk", "ended")]
        assert watched.stream("desk/lobby") == ("ended", "the node desk has ended")

    on_nodes(store, test)


def test_nobody_is_lost_because_redis_was_away(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.hear()
        watched.now += 60
        watched.nodes.forgive()
        watched.after(LEASE_S)
        assert watched.states == [("desk", "live")]
        watched.after(0.1)
        assert watched.states[-1] == ("desk", "lost")

    on_nodes(store, test)


def test_one_that_redis_knows_and_that_is_not_heard_of_is_lost(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.nodes.register(NodeInfo(node="attic", store="5a", page="http://attic:8765/"))
        watched.nodes.register(NodeInfo(node="desk", store="5a"))
        watched.hear()
        watched.nodes.check()
        assert sorted(watched.states) == [("attic", "lost"), ("desk", "live")]
        assert watched.nodes.readable == [("attic", "5a"), ("desk", "5a")]

    on_nodes(store, test)


def test_one_that_redis_lists_no_more_is_removed_unless_it_is_live(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.hear("attic", streams=("lobby", "door"))
        watched.hear("desk")
        watched.hear("desk", store="5b")
        watched.nodes.register(NodeInfo(node="cellar", store="5a"))
        watched.nodes.keep(set())
        watched.nodes.keep([("attic", "5a")])
        assert watched.nodes.readable == [("attic", "5a"), ("desk", "5a"), ("desk", "5b")]
        watched.after(LEASE_S)
        watched.hear("desk", store="5b")
        watched.after(0.1)
        watched.nodes.keep([("attic", "5a")])
        assert ("attic", "lost") in watched.states
        assert watched.nodes.readable == [("attic", "5a"), ("desk", "5b")], "a store that another follows"
        watched.nodes.keep([])
        watched.nodes.keep([])
        assert [one for one in watched.states if one[1] == "removed"] == [("attic", "removed")]
        assert [one["stream"] for one in watched.client.of("removed")] == ["attic/door", "attic/lobby"]
        assert list(watched.hub.nodes or {}) == ["desk"] and watched.nodes.readable == [("desk", "5b")]
        watched.hear("attic")
        assert watched.states[-1] == ("attic", "live"), "it came back"

    on_nodes(store, test)


def test_looking_for_lost_nodes_costs_nothing_for_those_that_are_heard(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    status = Nodes._status
    monkeypatch.setattr(Nodes, "_status", lambda self, node: (made.append(node), status(self, node))[1])

    def test(watched: Watched) -> None:
        watched.hear("attic")
        watched.after(1.0)
        watched.hear("desk")
        made.clear()
        watched.after(LEASE_S - 1.0)
        assert made == []
        watched.after(0.1)
        watched.after(0.1)
        assert made == ["attic"]

    on_nodes(store, test)


def test_the_problem_of_a_node_and_two_of_one_name(store: Store) -> None:
    def test(watched: Watched) -> None:
        watched.hear(problem="the disk is full")
        assert watched.client.of("node")[-1]["detail"] == "the disk is full"
        watched.hear()
        assert watched.client.of("node")[-1]["detail"] == ""
        watched.hear(store="5b", streams=("hall",))
        sentence = "two nodes are called desk; give one of them another name with --node"
        assert watched.client.of("node")[-1]["detail"] == sentence
        watched.hear()
        assert watched.client.of("removed") == [], "each keeps its streams"
        watched.now += LEASE_S
        watched.hear()
        watched.after(0.1)
        assert watched.client.of("node")[-1]["detail"] == ""

    on_nodes(store, test)


def test_a_node_of_another_version_is_not_read_until_it_changes(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def test(watched: Watched) -> None:
        for _ in range(3):
            watched.nodes.refuse("desk", "5a", IncompatibleError(2, "9.0"), alive=True)
        with pytest.raises(ValueError, match="node"):
            watched.nodes.refuse("the attic", "5a", IncompatibleError(2, "9.0"), alive=True)
        watched.nodes.check()
        assert watched.states == [("desk", "incompatible")] and watched.nodes.readable == []
        assert caplog.text.count("node desk speaks protocol 2 (apexstream 9.0) and this hub protocol 1") == 2
        watched.hear()
        assert watched.states[-1] == ("desk", "live") and watched.nodes.readable == [("desk", "5a")]

    on_nodes(store, test)
