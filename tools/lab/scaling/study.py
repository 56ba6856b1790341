"""Many machines: the simulation for each size of fleet, beside what is known for certain, and what archives of video cost.

A machine is the measured one, two cores. What has not been measured is an `Assumptions`, stated in docs/scaling.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lab.scaling.figures import F64, Figures
from lab.scaling.fleet import Costs, FleetResult, Load, simulate_fleet
from lab.scaling.node import Machine, NodeResult, simulate_node

MACHINES = (1, 10, 100, 1000)
GRID = np.linspace(0, 1, 101)
SIGNALS_A_SECOND = 10


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured: prices, bit rates of cameras, how busy people's faces are."""

    vcpu_hour: float = 0.04
    """Price of a vCPU and its memory for an hour, in dollars: of the order of large clouds' list prices."""
    service_vcpus: int = 4
    """Cores of Redis and hub together."""
    camera_mbit: float = 2.0
    """Of a network camera of 640x480 or so."""
    interview_mbit: float = 4.0
    """Of a recorded interview."""
    events_a_minute: float = 5.6
    """Of one camera: measured on 6.8 minutes of held-out people, docs/results.md; those who talk have 1.8."""
    cameras: int = 10
    """Of a machine: twelve are held, these leave room."""
    subscribers: int = 10


def costs(figures: Figures, node: NodeResult, machines: int) -> Costs:
    """What each stage takes in a fleet of so many machines, by the records."""
    server, hub = figures.read_ms(machines)
    return Costs(
        node_ms=np.quantile(node.delays_ms, GRID),
        node_commit_ms=figures.commit_ms,
        hub_commit_ms=figures.commit_ms,
        xadd=figures.xadd_ms / 1000,
        read_server=server / 1000,
        read_hub=hub / 1000,
        hub_event=figures.hub_event_ms / 1000,
        hub_batch=figures.hub_batch_ms / 1000,
        hub_subscriber=figures.hub_subscriber_ms / 1000,
        page_event=figures.page_event_ms / 1000,
    )


def node_run(figures: Figures, machine: Machine, *, seconds: float, seed: int) -> NodeResult:
    """One machine on the measured service times."""
    return simulate_node(machine, figures.frame_quantiles_ms, python_share=figures.python_share, seconds=seconds, seed=seed)


def node_table(figures: Figures, *, seconds: float, seed: int) -> list[dict[str, Any]]:
    """One machine by its cameras, in as many processes as `apexstream live` takes, and in one."""
    machines = [Machine(cameras) for cameras in (1, 6, 8, 10, 12, 13, 14, 16)]
    machines += [Machine(cameras, processes=1) for cameras in (6, 8, 10, 12)]
    rows = []
    for machine in machines:
        result = node_run(figures, machine, seconds=seconds, seed=seed)
        rows.append(
            {
                "cameras": machine.cameras,
                "processes": machine.used_processes,
                "frames": result.frames,
                "dropped": result.dropped,
                "cores_busy": round(result.busy, 2),
                "most_frames_waiting": result.most_waiting,
                **_quantiles(result.delays_ms),
            }
        )
    return rows


def fleet_table(
    figures: Figures, assumed: Assumptions, *, machines: Sequence[int], seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Fleets by their machines, with events alone and with every camera's motion traces."""
    node = node_run(figures, Machine(assumed.cameras), seconds=2 * seconds, seed=seed)
    rows = []
    for count in machines:
        cost = costs(figures, node, count)
        for traces in (False, True):
            load = _load(figures, assumed, count, traces=traces)
            row: dict[str, Any] = {"machines": count, "cameras": count * assumed.cameras, "traces": traces}
            if max(load.redis_steady, load.hub_steady) >= 1:  # nothing is left for events
                row |= {"redis_busy": round(load.redis_steady, 3), "hub_busy": round(load.hub_steady, 3), "held": False}
            else:
                row |= _fleet_row(simulate_fleet(load, cost, seconds=seconds, seed=seed), seconds)
            rows.append(row)
    return rows


def _load(figures: Figures, assumed: Assumptions, machines: int, *, traces: bool) -> Load:
    signals = machines * assumed.cameras * SIGNALS_A_SECOND if traces else 0
    server, hub = figures.states_cores(machines)
    return Load(
        machines,
        assumed.cameras,
        assumed.events_a_minute,
        assumed.subscribers,
        redis_steady=signals * figures.publish_ms / 1000 + server,
        hub_steady=signals * figures.hub_signal_ms / 1000 + hub,
    )


def _fleet_row(result: FleetResult, seconds: float) -> dict[str, Any]:
    left = result.decided - result.received
    return {
        "events_a_second": round(result.decided / seconds, 2),
        "redis_ops_a_second": round(result.redis_ops, 1),
        "redis_busy": round(result.redis_busy, 4),
        "hub_busy": round(result.hub_busy, 4),
        "page_busy": round(result.page_busy, 4),
        "longest_queues": {"redis": result.longest_redis, "hub": result.longest_hub, "page": result.longest_page},
        "not_received_at_the_end": left,
        "received": _quantiles(result.received_ms),
        "shown": _quantiles(result.shown_ms),
        "held": left < 0.01 * result.decided + 100 and result.page_busy < 0.99,
    }


def archive_table(figures: Figures, assumed: Assumptions) -> list[dict[str, Any]]:
    """Hours of recorded video an hour, all computed from one machine's measured speed."""
    hours = figures.analyze_fps / 30
    rows = []
    for machines in MACHINES:
        video = machines * hours
        rows.append(
            {
                "machines": machines,
                "video_hours_an_hour": round(video, 1),
                "hours_for_4000_of_video": round(4000 / video, 2),
                "read_mbyte_per_s": round(video * assumed.interview_mbit / 8, 1),
                "events_an_hour": round(video * 60 * assumed.events_a_minute),
                "written_mbyte_an_hour": round(video * figures.results_bytes_per_hour / 1e6),
                "dollars_an_hour": round(machines * 2 * assumed.vcpu_hour, 2),
                "dollars_a_video_hour": round(2 * assumed.vcpu_hour / hours, 4),
            }
        )
    return rows


def live_table(figures: Figures, assumed: Assumptions) -> list[dict[str, Any]]:
    """What a fleet moves and costs, computed."""
    rows = []
    for machines in MACHINES:
        cameras = machines * assumed.cameras
        events = cameras * assumed.events_a_minute / 60
        services = 0 if machines == 1 else assumed.service_vcpus
        dollars = (2 * machines + services) * assumed.vcpu_hour
        rows.append(
            {
                "machines": machines,
                "cameras": cameras,
                "frames_a_second": 30 * cameras,
                "events_a_second": round(events, 2),
                "cameras_mbit_per_s": round(cameras * assumed.camera_mbit),
                "redis_events_kbyte_per_s": round(events * figures.event_bytes / 1000, 1),
                "redis_events_memory_mbyte_a_day": round(events * 86400 * figures.redis_event_bytes / 1e6),
                "redis_traces_kbyte_per_s": round(cameras * SIGNALS_A_SECOND * figures.signal_bytes / 1000),
                "dollars_an_hour": round(dollars, 2),
                "dollars_a_camera_hour": round(dollars / cameras, 4),
            }
        )
    return rows


def capacity_table(figures: Figures, assumed: Assumptions) -> list[dict[str, Any]]:
    """The most that one of each stage can do, computed: one over its measured time; and how many cameras that is."""
    per_camera = assumed.events_a_minute / 60
    event = figures.hub_event_ms + assumed.subscribers * figures.hub_subscriber_ms
    stages: dict[str, tuple[float, float]] = {
        "a page, events": (figures.page_event_ms, per_camera),
        "the hub, motion traces": (figures.hub_signal_ms, SIGNALS_A_SECOND),
        "the hub, events": (event, per_camera),
        "Redis, motion traces": (figures.publish_ms, SIGNALS_A_SECOND),
        "Redis, events": (figures.xadd_ms + figures.read_ms(1)[0], per_camera),
    }
    rows: list[dict[str, Any]] = [
        {"stage": stage, "ms": round(ms, 4), "a_second": math.floor(1000 / ms), "cameras": math.floor(1000 / ms / rate)}
        for stage, (ms, rate) in stages.items()
    ]
    return sorted(rows, key=lambda row: int(row["cameras"]))


def subscribers_check(figures: Figures, *, seconds: float, seed: int) -> dict[str, Any]:
    """The soak with a thousand subscribers, 20 events a second at one service, without Redis and network, simulated."""
    nothing = replace(
        _without_analysis(figures), node_commit_ms=np.zeros(2), xadd=0.0, read_server=0.0, read_hub=0.0, network=0.0
    )
    cost = replace(nothing, hub_event=figures.service_event_ms / 1000)
    load = Load(nodes=1, cameras=20, events_a_minute=60, subscribers=1000, evenly=True)
    return _quantiles(simulate_fleet(load, cost, seconds=seconds, seed=seed).received_ms)


def three_nodes_check(figures: Figures, *, seconds: float, seed: int) -> dict[str, Any]:
    """The soak of a fleet while all is up, on one machine: three nodes of 20 events a second each, simulated."""
    cost = replace(_without_analysis(figures), network=0.0)
    load = Load(nodes=3, cameras=20, events_a_minute=60, subscribers=1, evenly=True)
    return _quantiles(simulate_fleet(load, cost, seconds=seconds, seed=seed).received_ms)


def thousand_nodes_check(figures: Figures, *, seconds: float, seed: int) -> dict[str, Any]:
    """A thousand made-up nodes at a real hub with one subscriber, simulated: the shares of Redis' and the hub's time."""
    assumed = Assumptions(subscribers=1)
    cost = replace(costs(figures, NodeResult(0, 0, 0.0, 0, np.zeros(2)), 1000), network=0.0)
    result = simulate_fleet(_load(figures, assumed, 1000, traces=False), cost, seconds=seconds, seed=seed)
    return {"redis_busy": round(result.redis_busy, 3), "hub_busy": round(result.hub_busy, 3)}


def _without_analysis(figures: Figures) -> Costs:
    """The costs where events are made up, as soaks do it."""
    return costs(figures, NodeResult(0, 0, 0.0, 0, np.zeros(2)), 1)


def study(figures: Figures, assumed: Assumptions, *, seconds: float, seed: int) -> dict[str, Any]:
    """Everything, as a record."""
    return {
        "assumed": asdict(assumed),
        "one_machine": node_table(figures, seconds=min(12.0, seconds), seed=seed),
        "thousand_subscribers": subscribers_check(figures, seconds=4 * seconds, seed=seed),
        "three_nodes": three_nodes_check(figures, seconds=seconds, seed=seed),
        "thousand_nodes": thousand_nodes_check(figures, seconds=min(20.0, seconds), seed=seed),
        "fleets": fleet_table(figures, assumed, machines=MACHINES, seconds=seconds, seed=seed),
        "live": live_table(figures, assumed),
        "archives": archive_table(figures, assumed),
        "capacity": capacity_table(figures, assumed),
    }


def _quantiles(values_ms: F64) -> dict[str, float | None]:
    if not values_ms.size:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None}
    return {f"p{q}_ms": round(float(np.percentile(values_ms, q)), 1) for q in (50, 95, 99)}
