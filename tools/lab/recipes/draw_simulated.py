"""Draws what `training.simulate` makes: each class's mean map and a few of its maps.

python -m lab.recipes.draw_simulated PICTURE.png [--count N] [--examples N] [--seed N]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from engine.errors import OutputError
from engine.geometry import CANONICAL_KEYPOINTS
from engine.types import F32
from lab.command import run
from training.datasets import CLASSES
from training.simulate import UNIT_NAMES, Simulated, simulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = ("u", "v", "strain")
DPI = 110


def draw(drawn: Simulated, examples: int) -> Figure:
    """A row for each class: its mean over all maps drawn, then its first examples with the units they clearly show."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.02 * 3 * (1 + examples) + 0.3, 3.85), dpi=DPI, layout="constrained")
    # One subfigure a column, so that a map's three channels stand together and apart from the next map's.
    for number, column in enumerate(np.ravel(figure.subfigures(1, 1 + examples, wspace=0.03, squeeze=False))):
        axes = column.subplots(len(CLASSES), 3, squeeze=False)
        for label, name in enumerate(CLASSES):
            mine = np.flatnonzero(drawn.labels == label)
            if number == 0:
                _map(axes[label], drawn.maps[mine].mean(0), CANONICAL_KEYPOINTS, f"{name}: mean of {len(mine)}")
            else:
                one = mine[number - 1]
                _map(axes[label], drawn.maps[one], drawn.keypoints[one], _units(drawn.units[one]))
        for axis, channel in zip(axes[-1], CHANNELS, strict=True):
            axis.set_xlabel(channel, fontsize=8)
    return figure


def _units(clear: F32) -> str:
    return ", ".join(name for name, is_clear in zip(UNIT_NAMES, clear, strict=True) if is_clear) or "no unit clearly"


def _map(axes: Sequence[Any], whole: F32, keypoints: F32, title: str) -> None:
    """One map [3, 28, 28] on three axes; u and v in blue and red from their median, which is about no motion."""
    for axis, channel, name in zip(axes, whole, CHANNELS, strict=True):
        if name == "strain":
            axis.imshow(channel, cmap="viridis")
        else:
            still = float(np.median(channel))
            far = float(np.abs(channel - still).max())
            axis.imshow(channel, cmap="RdBu_r", vmin=still - far, vmax=still + far)
        axis.plot(*keypoints.T, linestyle="", marker=".", markersize=2, color="black")
        axis.set(xticks=[], yticks=[], xlim=(-0.5, 27.5), ylim=(27.5, -0.5))
    axes[1].set_title(title, fontsize=8, pad=3)


def main(
    picture: Annotated[Path, typer.Argument(help="The PNG file to write.")],
    count: Annotated[int, typer.Option(min=50, help="How many maps the means are over, all classes together.")] = 3000,
    examples: Annotated[int, typer.Option(min=0, max=5, help="How many maps of each class are shown.")] = 3,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Draw the classes' mean simulated maps and examples of them."""
    drawn = simulate(count, seed)
    try:
        draw(drawn, examples).savefig(picture, format="png")
    except OSError as cause:
        raise OutputError(f"the picture {picture} cannot be written: {cause.strerror or cause}") from cause


if __name__ == "__main__":
    run(main)
