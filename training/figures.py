"""The pictures of an evaluation, drawn with matplotlib without any display, each in light or dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from engine.types import F32
from training.answers import F64
from training.calibration import Calibration

U8 = npt.NDArray[np.uint8]
ENLARGED = 5
"""Pixels of a drawn cell of a flow map, each way."""


@dataclass(frozen=True)
class Theme:
    """Colours of the page, of text, of faint lines, of what is right, of what is wrong, and of what is asked for."""

    page: str
    text: str
    faint: str
    right: str
    wrong: str
    band: str


LIGHT = Theme(page="#ffffff", text="#1c2330", faint="#d5dae2", right="#1f6fb5", wrong="#e08a5b", band="#c9d8ea")
DARK = Theme(page="#171c26", text="#e4e8ef", faint="#39414f", right="#5aa9e6", wrong="#d07f52", band="#2b3d55")


def confusion(counts: F64, classes: Sequence[str], title: str, theme: Theme = LIGHT) -> bytes:
    """PNG of a confusion matrix [K, K] (row: truth): share of the row in colour and per cent, count (mean over seeds) below."""
    figure, axes = _canvas(theme, (3.4, 3.2))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", [theme.page, theme.right]), vmin=0, vmax=1)
    dark_on_light = theme is LIGHT
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if dark_on_light and share > 0.55 else theme.text
        count = f"{counts[row, column]:.1f}".removesuffix(".0")
        axes.text(column, row - 0.08, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=12, weight="bold")
        axes.text(column, row + 0.24, count, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(title, fontsize=10.5, weight="bold")
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    return _png(figure)


def hits(subjects: Sequence[str], right: F64, total: F64, title: str, theme: Theme = LIGHT) -> bytes:
    """PNG of one bar a subject: how many of its maps were right (mean over seeds), out of how many."""
    figure, axes = _canvas(theme, (3.8, 0.75 + 0.17 * len(subjects)))
    places = np.arange(len(subjects))
    axes.barh(places, right, color=theme.right, height=0.76, label="right")
    axes.barh(places, total - right, left=right, color=theme.wrong, height=0.76, label="wrong")
    for place, good, all_of_it in zip(places, right, total, strict=True):
        axes.text(all_of_it, float(place), f" {good / all_of_it:.0%}", va="center", fontsize=7, color=theme.text)
    axes.set_yticks(places, subjects, fontsize=7)
    axes.set_ylim(len(subjects) - 0.4, -0.6)
    axes.set_xlim(0, float(total.max()) * 1.16)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("maps")
    axes.set_title(title, fontsize=10.5, weight="bold")
    axes.tick_params(length=0)
    _only_bottom(axes)
    return _png(figure)


def reliability(found: Calibration, theme: Theme = LIGHT) -> bytes:
    """PNG of the reliability diagram: ten bins of equally many answers over the band of a perfectly calibrated model."""
    figure, axes = _canvas(theme, (4.6, 4.2))
    sure = [b.confidence for b in found.bins]
    low, high = zip(*(b.band for b in found.bins), strict=True)
    least = min(0.3, *(b.right for b in found.bins), *low)
    axes.fill_between(sure, low, high, color=theme.band, lw=0, label="perfectly calibrated, 5th to 95th percentile")
    axes.plot([least, 1], [least, 1], color=theme.text, lw=0.8, ls=(0, (4, 3)), label="confidence = share right")
    axes.plot(sure, [b.right for b in found.bins], "o-", color=theme.right, lw=1.4, ms=5, label="this run")
    axes.set_xlim(least, 1.0)
    axes.set_ylim(least, 1.02)
    axes.set_xlabel("confidence (cross-fitted)")
    axes.set_ylabel("share right")
    axes.grid(color=theme.faint, lw=0.5)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", fontsize=7.5, frameon=False, labelcolor=theme.text)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    return _png(figure)


def map_strip(whole: F32, keypoints: F32, theme: Theme = LIGHT) -> U8:
    """RGB picture [140, 3 x 140 + gaps, 3] of a flow map [3, 28, 28]: u and v around their median (blue left or up, red right
    or down), strain from dark to light; the five keypoints [5, 2] (x, y, cells) as dots."""
    panels = []
    for channel, colours in zip(whole, ("RdBu_r", "RdBu_r", "inferno"), strict=True):
        values = channel
        if colours == "RdBu_r":
            away = channel - np.median(channel)
            values = 0.5 + away / (2 * max(float(np.abs(away).max()), 1e-6))
        cells = (colormaps[colours](values)[..., :3] * 255).round().astype(np.uint8)
        panel = np.repeat(np.repeat(cells, ENLARGED, 0), ENLARGED, 1)
        for x, y in np.rint((keypoints + 0.5) * ENLARGED - 0.5).astype(int):
            panel[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = (40, 200, 90)
        panels.append(panel)
    gap = np.empty((panels[0].shape[0], 4, 3), np.uint8)
    gap[:] = [int(theme.page[i : i + 2], 16) for i in (1, 3, 5)]
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)


def contact_sheet(strips: Sequence[U8], captions: Sequence[str], theme: Theme = LIGHT) -> bytes:
    """PNG of pictures side by side, two in a row, each under its caption."""
    rows = (len(strips) + 1) // 2
    figure = Figure(figsize=(8.4, 0.2 + 1.75 * rows), dpi=130, facecolor=theme.page, layout="constrained")
    for number, (strip, caption) in enumerate(zip(strips, captions, strict=True), start=1):
        axes = figure.add_subplot(rows, 2, number)
        axes.imshow(strip, interpolation="nearest")
        axes.set_title(caption, fontsize=8, color=theme.text, loc="left")
        axes.axis("off")
    return _png(figure)


def _canvas(theme: Theme, inches: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=inches, dpi=160, facecolor=theme.page, layout="constrained")
    axes = figure.add_subplot(facecolor=theme.page)
    axes.tick_params(colors=theme.text, labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(theme.text)
        text.set_fontsize(9)
    return figure, axes


def _only_bottom(axes: Axes) -> None:
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color("gray")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
