"""The picture of docs/scaling.md: how busy each part is, and how long an event takes, by the number of cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PARTS = {"redis": "Redis", "hub": "hub", "page": "a page"}
COLOURS = {"redis": "#D55E00", "hub": "#0072B2", "page": "#009E73"}
"""Okabe and Ito's."""


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw a study's fleets (`lab.scaling.study`); the format is that of the path's name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _busy(left, found["fleets"])
    _delays(right, found["fleets"])
    figure.savefig(path, dpi=110)


def _busy(axes: Any, rows: list[dict[str, Any]]) -> None:
    for traces, style in ((False, "-"), (True, "--")):
        for part, name in PARTS.items():
            if traces and part == "page":  # what traces cost a page depends on how many it shows
                continue
            points = [
                (row["cameras"], row[f"{part}_busy"]) for row in rows if row["traces"] is traces and f"{part}_busy" in row
            ]
            label = f"{name}{', with motion traces' if traces else ''}"
            axes.plot(*zip(*points, strict=True), style, marker="o", color=COLOURS[part], label=label)
    axes.axhline(1, color="#888888", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="cameras, ten a machine", ylabel="share of one core", title="How busy each is")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _delays(axes: Any, rows: list[dict[str, Any]]) -> None:
    alone = [row for row in rows if not row["traces"] and row.get("received", {}).get("p50_ms") is not None]
    cameras = [row["cameras"] for row in alone]
    for key, name, colour in (("received", "a subscriber", "#0072B2"), ("shown", "its page", "#009E73")):
        for quantile, style in (("p50_ms", "-"), ("p95_ms", "--")):
            values = [row[key][quantile] for row in alone]
            axes.plot(cameras, values, style, marker="o", color=colour, label=f"{name}, {quantile.removesuffix('_ms')}")
    axes.set(
        xscale="log", yscale="log", xlabel="cameras, ten a machine", ylabel="ms", title="From the deciding frame, events alone"
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
