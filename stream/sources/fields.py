"""Interlaced pictures made whole: a moving face in two fields of different moments looks combed, which hides small motion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import av
import av.error
import av.filter
import cv2
import numpy as np
import numpy.typing as npt

SAMPLED_COLUMNS = 80
"""Each line is averaged over so many blocks, which takes out most of a sensor's noise."""
CHECK_EVERY = 5
"""How often two pictures in a row are compared while it is not known whether pictures are woven, in pictures."""
RECHECK_EVERY = 50
"""The same once it is known."""
MOVED = 12
"""Grey levels by which the upper field changes where something moves; more where noise alone changes it by so much."""
NOISE_FACTOR = 5.0
"""What moves changes by so many standard deviations of the noise: one in 1.7 million blocks of Gaussian noise does."""
LEAST_VOTES = 2000
"""Blocks that moved before woven pictures are found the first time."""
WOVEN = 0.62
"""Share of the moving blocks whose lower field shows the moment of its own upper field rather than that of the next one, below
which pictures are two moments woven into one: half of them there, .71 and more in a hundred progressive videos of people."""
SURE_VOTES = 20_000
"""Blocks that moved after which the votes are counted and a new count begins."""


class Weave:
    """Whether pictures that are not flagged as interlaced are so all the same: in which of two pictures the lower field belongs
    to the upper one, by vote of the places that move. The vote is repeated, for a recording may change."""

    def __init__(self) -> None:
        self.found = False
        self._votes = self._own = 0
        self._count = 0
        self._decided = False
        self._before: npt.NDArray[np.int16] | None = None

    def look(self, picture: av.VideoFrame) -> None:
        """Takes the next picture; `found` says whether pictures are woven, as far as it is known by now."""
        name = picture.format.name
        if not name.startswith(("yuv4", "yuvj4", "nv1")) or name[-2:] in ("le", "be"):
            return
        self._count += 1
        turn = self._count % (RECHECK_EVERY if self._decided else CHECK_EVERY)
        if turn not in (0, 1):
            return
        seen = _blocks(picture)
        before, self._before = self._before, seen if turn == 0 else None
        if turn == 1 and before is not None and before.shape == seen.shape:
            self._vote(before, seen)

    def _vote(self, before: npt.NDArray[np.int16], now: npt.NDArray[np.int16]) -> None:
        upper, lower, after = before[::2], before[1::2][:-1], now[::2]
        here, there = ((field[:-1] + field[1:]) // 2 for field in (upper, after))
        change = there - here
        moves = np.abs(change) > max(MOVED, NOISE_FACTOR * _noise(upper, after))
        self._votes += int(moves.sum())
        self._own += int((np.abs(lower - here) < np.abs(lower - there))[moves].sum())
        woven = self._own < WOVEN * self._votes
        if self._votes >= SURE_VOTES:
            self.found, self._decided = woven, True
            self._votes = self._own = 0
        elif not self._decided:
            self.found = woven and self._votes >= LEAST_VOTES


def _blocks(picture: av.VideoFrame) -> npt.NDArray[np.int16]:
    """[even height, SAMPLED_COLUMNS or fewer]: the lines of the grey picture, each averaged over blocks."""
    plane = picture.planes[0]
    lines = np.frombuffer(memoryview(cast(Any, plane)), np.uint8).reshape(-1, plane.line_size)
    block = max(1, plane.width // SAMPLED_COLUMNS)
    columns = min(SAMPLED_COLUMNS, plane.width)
    grey = lines[: plane.height // 2 * 2, : columns * block]  # whole blocks are averaged several times faster
    return cv2.resize(grey, (columns, len(grey)), interpolation=cv2.INTER_AREA).astype(np.int16)


def _noise(upper: npt.NDArray[np.int16], after: npt.NDArray[np.int16]) -> float:
    """The standard deviation of a block's noise, grey levels: lines that lie side by side change alike where something moves,
    and each for itself where there is noise."""
    change = after - upper
    return float(np.median(np.abs(change[1:] - change[:-1])[::4])) / 2 / 0.6745  # two pictures and two lines: twice one's


class Deinterlacer:
    """FFmpeg's yadif over those pictures that are flagged as interlaced, or over all once `Weave` finds that they are without
    being flagged; the others pass as they are.

    Until the first interlaced picture nothing is touched. From there on pictures come one later, since yadif looks at the
    next one too. `interlaced` counts those that were flagged, `woven` those that were not; `refusal` says why they are left
    combed, None where they are not.
    """

    def __init__(self) -> None:
        self.interlaced = self.woven = 0
        self.refusal: str | None = None
        self._graph: av.filter.Graph | None = None
        self._shape: tuple[int, int, str, bool] | None = None
        self._weave = Weave()

    def take(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """The pictures that are whole once this one came, in order; times and rotation stay theirs."""
        self.interlaced += picture.interlaced_frame
        if not self.interlaced:
            self._weave.look(picture)
        woven = self._weave.found and not picture.interlaced_frame
        self.woven += woven
        shape = picture.width, picture.height, picture.format.name, self._weave.found
        if self._graph is not None and shape != self._shape:
            yield from self.flush()
        if self._graph is None and (picture.interlaced_frame or woven) and self.refusal is None:
            self._open(picture, every=self._weave.found)
            self._shape = shape
        if self._graph is None:
            yield picture
            return
        self._graph.push(picture)
        yield from self._pulled(self._graph)

    def flush(self) -> Iterator[av.VideoFrame]:
        """The last picture."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.push(None)
            yield from self._pulled(graph)

    def _open(self, picture: av.VideoFrame, *, every: bool) -> None:
        graph = av.filter.Graph()
        try:
            steps = (
                graph.add_buffer(
                    width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
                ),
                graph.add("yadif", "deint=all" if every else "deint=interlaced"),
                graph.add("buffersink"),
            )
            graph.link_nodes(*steps).configure()
        except (av.error.FFmpegError, ValueError) as error:
            self.refusal = str(error)
            return
        self._graph = graph

    @staticmethod
    def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
        while True:
            try:
                picture = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(picture, av.VideoFrame)
            yield picture
