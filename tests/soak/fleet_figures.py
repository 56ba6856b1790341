"""What a run of a fleet shows: what is wrong with the events, how late they came, what they cost at Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stream.outlets.fleet import NODES, events_key
from tests.redis_server import RedisServer
from tests.soak.command import unmet
from tests.soak.fleet_parts import Received

P95_MS = 100.0
LOSS_S = 5.0


@dataclass(frozen=True)
class Kill:
    """What was killed and when, and when it was started again (Unix time)."""

    what: str
    at: float
    again: float


def outages(kills: Sequence[Kill], events: Sequence[Received], nodes: Sequence[str]) -> list[tuple[float, float]]:
    """From when to when something was down, for each kill."""
    found = []
    for kill in kills:
        back = [
            min((event.received for event in events if event.node == node and event.decided > kill.again), default=float("inf"))
            for node in nodes
        ]
        found.append((kill.at, max(back)))
    return found


def undisturbed(events: Sequence[Received], down: Sequence[tuple[float, float]]) -> list[Received]:
    """The events during whose way nothing was down."""
    return [event for event in events if all(event.received < begin or event.decided > end for begin, end in down)]


def differences(events: Sequence[Received], stored: dict[str, list[str]]) -> dict[str, int]:
    """What is wrong with the client's events; stored: by node the ids in its store, in order of their numbers."""
    lost = twice = disordered = wrong = 0
    for node, ids in stored.items():
        seqs = [event.seq for event in events if event.node == node]
        lost += len(set(range(1, len(ids) + 1)) - set(seqs))
        twice += len(seqs) - len(set(seqs))
        disordered += sum(after <= before for before, after in pairwise(seqs))
        wrong += sum(not 1 <= event.seq <= len(ids) or ids[event.seq - 1] != event.id for event in events if event.node == node)
    return {"lost": lost, "twice": twice, "out_of_order": disordered, "others_than_stored": wrong}


def redis_figures(server: RedisServer) -> dict[str, Any]:
    """What an event costs at Redis: bytes of memory, and the time of the commands since its last start."""
    client = server.client()
    fields: Any = client.hkeys(NODES)
    keys = [events_key(*field.split(":")) for field in fields]
    memory = sum(int(client.memory_usage(key, samples=0) or 0) for key in keys)
    entries = sum(int(client.xlen(key)) for key in keys)
    calls: Any = client.info("commandstats")
    took = {name: calls.get(f"cmdstat_{name}", {}).get("usec_per_call") for name in ("xadd", "xread", "publish")}
    return {"entries": entries, "bytes_per_event": round(memory / max(1, entries), 1), "us_per_call": took}


def violations(found: dict[str, Any], counts: dict[str, int]) -> list[str]:
    """What is not within the limits, in sentences."""
    p95 = found["delay_ms_while_all_is_up"].get("p95", float("inf"))
    checks = {
        f"{found['lost']} events are missing at the client": not found["lost"],
        f"{found['twice']} events came twice": not found["twice"],
        f"{found['out_of_order']} events came out of order": not found["out_of_order"],
        f"{found['others_than_stored']} events are others than were stored": not found["others_than_stored"],
        f"{found['events_received']} of {found['events_stored']} events came": found["events_received"]
        == found["events_stored"],
        f"95 of 100 events took up to {p95:g} ms while all was up": p95 < P95_MS,
        f"the kills were {found['kills']}, not {counts}": found["kills"] == counts,
        f"the loss of a node was shown after {found['loss_of_a_node_shown_after_s']} s": found["loss_of_a_node_shown_after_s"]
        < LOSS_S,
    }
    return unmet(checks)
