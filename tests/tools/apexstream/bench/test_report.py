from __future__ import annotations

import io

import pytest
from rich.console import Console

from apexstream.bench.baseline import FoundEvent
from apexstream.bench.report import Row, fast_rows, held_row, latency_rows, number, stage_row, table, video_rows, whole_rows
from apexstream.bench.service import Latency, Load
from apexstream.bench.stages import Stage
from apexstream.bench.whole import Analysed

EVENT = FoundEvent(1.0, 1.2, 1.5, "positive")
FAST = Analysed(1000, 1.5, 4.0, 2.0, 300.0, (EVENT,))
SLOW = Analysed(1000, 8.0, 10.0, 10.0, 400.0, (EVENT,))


@pytest.mark.parametrize(
    ("value", "best", "verdict"),
    [(5, "most", "below"), (10, "most", "floor"), (40, "most", "goal"), (60, "least", "below"), (7, "least", "goal")],
)
def test_a_figure_is_judged_by_its_aims(value: float, best: str, verdict: str) -> None:
    aims = (10, 20) if best == "most" else (50, 8)
    assert Row("x", "ms", value, floor=aims[0], goal=aims[1], best=best).verdict == verdict


def test_nothing_is_judged_that_was_not_measured_or_aimed_at() -> None:
    assert Row("x", "ms", None, floor=1, goal=2).verdict == Row("x", "ms", 5.0).verdict == ""


def test_a_stage_is_judged_by_its_ratio() -> None:
    row = stage_row(Stage("network", "expression", 1.0, 4.0, "PyTorch eager"))
    assert (row.ratio, row.verdict, row.as_dict()["verdict"]) == (4.0, "floor", "floor")


def test_the_whole_is_shown_with_what_both_found() -> None:
    rows = {row.name: row for row in whole_rows(FAST, SLOW)}
    assert rows["whole analyze, 640x360"].verdict == "goal"
    assert rows["against the baseline script"].judged == pytest.approx(5.0)
    assert rows["processor's time"].ratio == pytest.approx(2.5)
    note = rows["whole analyze, 640x360"].note
    assert "1 events the same" in note and "667 and 125 without the program's start" in note


def test_a_video_of_the_users_is_judged_by_the_medians() -> None:
    speed, cost = video_rows("mine.mp4", [FAST, FAST, SLOW], [SLOW, SLOW, FAST])
    assert (speed.value, speed.plain, speed.ratio, speed.verdict) == (500.0, 100.0, 5.0, "goal")
    assert cost.ratio == pytest.approx(2.5) and "mine.mp4" in cost.name


def test_sources_are_shown_with_their_cost() -> None:
    tried = [Load(6, 10, [30.0] * 6, 0, 1.5, 700), Load(8, 10, [24.0] * 8, 90, 2.0, 800)]
    row = held_row(6, tried)
    assert (row.value, row.verdict) == (6.0, "floor") and "1.5 cores" in row.note
    assert held_row(0, tried).verdict == "below"
    one, other = fast_rows([("all cores", Load(1, 8, [199.8], 0, 0.7, 300)), ("one core", Load(1, 8, [], 0, 0, 0))], 200)
    assert "held" in one.note and "not held" not in one.note and "not held" in other.note


def test_latency_is_better_when_less() -> None:
    latency, memory = latency_rows(Latency(20, 9.0, 14.0, 500.0))
    assert (latency.verdict, memory.verdict) == ("goal", "floor")
    assert latency_rows(Latency(0, None, None, 300.0))[0].verdict == ""


def test_all_rows_are_shown() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    machine = {"processor": "a processor", "cores": 2, "load": None}
    rows = [*whole_rows(FAST, SLOW), Row("GPU", "ms", None, note="not measured: there is none")]
    console.print(table(rows, machine))
    text = console.export_text()
    assert "a processor, 2 cores" in text and "there is none" in text and "500 frames/s" in text


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (0.12345, "0.123"), (12.3456, "12.3"), (1234.5, "1234")])
def test_three_figures_count(value: float | None, shown: str) -> None:
    assert number(value) == shown
