"""The scaling study: its simulations against theory and against what was measured, and that each cost can be measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.errors import InputError
from lab.scaling import measure, services
from lab.scaling.__main__ import app
from lab.scaling.figures import Figures, sampled
from lab.scaling.fleet import Costs, Load, simulate_fleet
from lab.scaling.node import Machine, simulate_node
from lab.scaling.study import (
    Assumptions,
    archive_table,
    capacity_table,
    fleet_table,
    live_table,
    node_run,
    subscribers_check,
    thousand_nodes_check,
    three_nodes_check,
)
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[3]
FIGURES = Figures(ROOT / "docs" / "records")
NOTHING = np.zeros(2)
FREE = Costs(NOTHING, NOTHING, NOTHING, *(7 * [0.0]), network=0.0)
"""Every stage for nothing."""


def test_draws_follow_the_quantiles() -> None:
    drawn = sampled(np.array([1.0, 2.0, 10.0]), np.random.default_rng(0), 20_000)
    assert np.quantile(drawn, [0, 0.5, 1]) == pytest.approx([1, 2, 10], abs=0.1)


def test_frames_that_never_meet_take_their_own_time() -> None:
    result = simulate_node(Machine(1, cores=1), np.full(2, 5.0), python_share=0.7, seconds=10)
    assert result.delays_ms == pytest.approx(5.0)
    assert (result.frames, result.dropped, result.most_waiting) == (300, 0, 1)
    assert result.busy == pytest.approx(0.15, abs=0.01)


def test_a_machine_drops_what_it_cannot_do_and_keeps_the_newest() -> None:
    """Two cameras of 30 frames/s at 25 ms a frame are 1.5 cores: one core does two thirds of it."""
    result = simulate_node(Machine(2, cores=1), np.full(2, 25.0), python_share=0.0, seconds=60)
    assert result.busy == pytest.approx(1.0, abs=0.01)
    assert result.dropped / result.frames == pytest.approx(1 / 3, abs=0.02)
    assert result.delays_ms.max() < 1000 * 13 * 2 * 0.025  # none waits longer than a full queue


def test_one_process_is_limited_by_its_lock() -> None:
    """Half of 20 ms under the lock: at most 100 frames a second in one process; two cores do 100, two processes 120."""
    one, two = (simulate_node(Machine(4, processes=count), np.full(2, 16.0), python_share=0.75, seconds=30) for count in (1, 2))
    assert not one.held and two.held
    assert one.busy == pytest.approx(1 / 0.75, abs=0.05)


def test_equal_seeds_give_equal_runs() -> None:
    runs = [node_run(FIGURES, Machine(6), seconds=2, seed=seed).delays_ms for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_a_browser_that_is_slow_queues_as_theory_says() -> None:
    """Random arrivals at one server of constant time: the mean wait is r s / (2 (1 - r)), r its load (Pollaczek, Khinchine)."""
    load = Load(nodes=10, cameras=10, events_a_minute=30)  # 50 a second
    result = simulate_fleet(load, replace(FREE, page_event=0.012), seconds=150, seed=1)
    assert result.decided == pytest.approx(50 * 150, rel=0.05)
    assert result.page_busy == pytest.approx(0.6, rel=0.05)
    assert result.shown_ms.mean() == pytest.approx(12 + 0.6 * 12 / (2 * 0.4), rel=0.15)


def test_a_hub_that_cannot_keep_up_is_seen() -> None:
    load = Load(nodes=10, cameras=10, events_a_minute=60, subscribers=100)  # 100 a second, at 20 ms each
    result = simulate_fleet(load, replace(FREE, hub_event=0.01, hub_subscriber=0.0001), seconds=20)
    assert result.received / result.decided == pytest.approx(0.5, abs=0.06)
    assert result.hub_busy == pytest.approx(1.0, abs=0.02) and result.longest_hub > 500


def test_steady_work_slows_what_is_left() -> None:
    load = Load(nodes=1, cameras=1, events_a_minute=60, evenly=True)
    plain, slowed = (
        simulate_fleet(replace(load, redis_steady=share), replace(FREE, xadd=0.001), seconds=10).received_ms.mean()
        for share in (0.0, 0.75)
    )
    assert (plain, slowed) == (pytest.approx(1.0), pytest.approx(4.0))


def test_one_machine_as_it_was_measured() -> None:
    """docs/performance.md, live sources: twelve held with 1.73 cores busy and sixteen not; in one process six are held, and
    ten are not."""
    runs = {cameras: node_run(FIGURES, Machine(cameras), seconds=12, seed=0) for cameras in (6, 12, 16)}
    assert runs[6].held and runs[12].held and not runs[16].held
    assert runs[12].busy == pytest.approx(1.73, abs=0.06)
    alone = {cameras: node_run(FIGURES, Machine(cameras, processes=1), seconds=12, seed=0) for cameras in (6, 10)}
    assert alone[6].held and not alone[10].held


def test_a_thousand_subscribers_as_they_were_measured() -> None:
    soak = json.loads((FIGURES.records / "live-subscribers-idle.json").read_text())["rounds"][0]
    found = subscribers_check(FIGURES, seconds=30, seed=0)
    assert soak["p50_ms"] / 2 < found["p50_ms"] < 2 * soak["p50_ms"]
    assert soak["p99_ms"] / 2 < found["p99_ms"] < 2 * soak["p99_ms"]


def test_three_nodes_as_they_were_measured() -> None:
    soak = json.loads((FIGURES.records / "fleet.json").read_text())["delay_ms_while_all_is_up"]
    found = three_nodes_check(FIGURES, seconds=10, seed=0)
    assert soak["p50"] / 2 < found["p50_ms"] < 2 * soak["p50"]


def test_a_thousand_nodes_as_they_were_measured() -> None:
    rows = json.loads((FIGURES.records / "scaling-hub.json").read_text())["fleets"]
    (measured,) = [row for row in rows if row["nodes"] == 1000 and row["events_a_second"]]
    found = thousand_nodes_check(FIGURES, seconds=5, seed=0)
    assert found["hub_busy"] == pytest.approx(measured["hub_cores"], rel=0.3)


def test_the_tables_are_made_of_the_records() -> None:
    assumed = Assumptions(cameras=2)
    fleets = fleet_table(FIGURES, assumed, machines=(1, 3), seconds=5, seed=0)
    assert [(row["machines"], row["cameras"], row["traces"]) for row in fleets] == [
        (1, 2, False), (1, 2, True), (3, 6, False), (3, 6, True),
    ]  # fmt: skip
    assert all(row["held"] for row in fleets)
    live, archives = live_table(FIGURES, assumed), archive_table(FIGURES, assumed)
    assert live[1]["dollars_an_hour"] == pytest.approx((2 * 10 + 4) * 0.04)
    assert archives[1]["video_hours_an_hour"] == pytest.approx(10 * FIGURES.analyze_fps / 30, abs=0.1)
    cameras = [row["cameras"] for row in capacity_table(FIGURES, assumed)]
    assert cameras == sorted(cameras)


def test_the_command_writes_record_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.scaling.study.MACHINES", (1, 2))
    command = ["simulate", "--records", str(FIGURES.records), "--seconds", "3"]
    ran = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")])
    assert ran.exit_code == 0, ran.output
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["command"] == "python -m lab.scaling simulate --seconds 3 --seed 0"
    assert len(record["fleets"]) == 4 and (tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(InputError, match=r"bench.json cannot be read; docs/scaling.md names the command"):
        print(Figures(tmp_path).analyze_fps)


def test_what_a_video_and_the_store_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "clip.mp4", stepping(64, 48, 12))
    found = measure.frame_bytes(video, "rendered")
    assert found["size"] == "64x48" and found["bytes_per_frame"] * 12 <= video.stat().st_size
    monkeypatch.setattr(measure, "WARM_FRAMES", 2)
    times = measure.frame_times(video)
    assert times["frames"] == 10 and times["quantiles"] == sorted(times["quantiles"]) and times["mean"] > 0
    monkeypatch.setattr(measure, "COMMITS", 3)
    stored = measure.store_times(tmp_path / "store")
    assert list(stored["median_ms_by_events_at_once"]) == ["1", "8", "64"] and stored["bytes_per_event"] >= 0


def test_a_real_redis_and_a_real_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("redis-server"), "these tests need Debian's redis-server; bash tools/test installs it"
    for name, value in {"ENTRIES": 600, "READS": 20, "STREAMS": (1, 5)}.items():
        monkeypatch.setattr(services, name, value)
    event, trace = json.dumps(measure._stored(1)), measure._signal()
    costs: list[dict[str, Any]] = []
    for name, cost in (("redis", services.redis_costs), ("hub", services.hub_costs)):
        (tmp_path / name).mkdir()
        costs.append(cost(tmp_path / name, event, trace))
    redis, hub = costs
    assert redis["memory_bytes_per_event"] > len(event) / 2
    assert set(redis["xread_by_streams"]) == {"1", "5"}
    assert hub["event_ms"] > 0 and hub["signal_ms"] >= 0


def test_a_real_hub_of_made_up_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WARM_S": 1, "FLEET_S": 1}.items():
        monkeypatch.setattr(services, name, value)
    monkeypatch.setattr(measure, "HUB_NODES", (3, 300))
    rows = measure.measure_hub()["fleets"]
    assert [row["nodes"] for row in rows] == [3, 3, 300, 300]
    assert [row["events_a_second"] for row in rows] == [0, pytest.approx(3, abs=1), 0, pytest.approx(280, abs=1)]
    assert rows[3]["hub_cores"] > 0 and all(0 <= row["late_s"] < 60 for row in rows)
