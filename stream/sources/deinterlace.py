"""Deinterlacing: a moving face in two fields of different moments shows combs, which hide small motion."""

from __future__ import annotations

from collections.abc import Iterator

import av
import av.error
import av.filter
import cv2
import numpy as np
import numpy.typing as npt

from stream.sources.pixels import plane_of

SAMPLED_COLUMNS = 80
"""Blocks that each line is averaged over, which removes most of a sensor's noise."""
CHECK_EVERY = 5
"""Pictures between comparisons of two consecutive ones while it is not known whether they are interlaced."""
RECHECK_EVERY = 50
"""The same once it is known."""
MOVED = 12
"""Grey levels by which the upper field changes where something moves; more where noise alone changes it that much."""
NOISE_FACTOR = 5.0
"""Motion changes a block by so many standard deviations of the noise: one in 1.7 million blocks of Gaussian noise does."""
MIN_VOTES = 2000
"""Moving blocks needed before pictures are first found to be interlaced."""
SAME_MOMENT_SHARE = 0.62
"""Below this share of moving blocks whose lower field shows the moment of its own upper field rather than that of the next one,
pictures are interlaced: it is one half there, .71 and more in a hundred progressive videos of people."""
SURE_VOTES = 20_000
"""Moving blocks after which the vote is decided and a new one starts."""


class InterlaceDetector:
    """Whether pictures that are not flagged as interlaced are so nevertheless: a vote of the moving blocks on whether the lower
    field belongs to the upper one of the same picture or of the next. It is repeated, since a recording may change."""

    def __init__(self) -> None:
        self.interlaced = False
        self._votes = self._same_moment = self._count = 0
        self._decided = False
        self._before: npt.NDArray[np.int16] | None = None

    def update(self, picture: av.VideoFrame) -> None:
        """Take the next picture into account; `interlaced` is what is known by now."""
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
        self._same_moment += int((np.abs(lower - here) < np.abs(lower - there))[moves].sum())
        interlaced = self._same_moment < SAME_MOMENT_SHARE * self._votes
        if self._votes >= SURE_VOTES:
            self.interlaced, self._decided = interlaced, True
            self._votes = self._same_moment = 0
        elif not self._decided:
            self.interlaced = interlaced and self._votes >= MIN_VOTES


def _blocks(picture: av.VideoFrame) -> npt.NDArray[np.int16]:
    """[H, W], H even and W at most SAMPLED_COLUMNS: the lines of the grey picture, each averaged over blocks."""
    plane = plane_of(picture, 0)
    height, width = plane.shape
    columns = min(SAMPLED_COLUMNS, width)
    grey = plane[: height // 2 * 2, : columns * (width // columns)]  # whole blocks are averaged several times faster
    return cv2.resize(grey, (columns, len(grey)), interpolation=cv2.INTER_AREA).astype(np.int16)


def _noise(upper: npt.NDArray[np.int16], after: npt.NDArray[np.int16]) -> float:
    """The standard deviation of a block's noise, grey levels: adjacent lines change alike where something moves, independently
    where there is noise."""
    change = after - upper
    return float(np.median(np.abs(change[1:] - change[:-1])[::4])) / 2 / 0.6745  # two pictures and two lines: twice one's


class Deinterlacer:
    """FFmpeg's yadif over the pictures that are flagged as interlaced, or over all once `InterlaceDetector` finds that they are
    without being flagged; the others pass unchanged.

    From the first interlaced picture on, pictures come one later, since yadif needs the next one too. `interlaced` counts those
    that were flagged, `unflagged` those that were not; `failure` is why they are left interlaced, None where they are not.
    """

    def __init__(self) -> None:
        self.interlaced = self.unflagged = 0
        self.failure: str | None = None
        self._graph: av.filter.Graph | None = None
        self._shape: tuple[int, int, str, bool] | None = None
        self._detector = InterlaceDetector()

    def take(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """The deinterlaced pictures that are ready once this one came, in order, with their own times and rotation."""
        self.interlaced += picture.interlaced_frame
        if not self.interlaced:
            self._detector.update(picture)
        unflagged = self._detector.interlaced and not picture.interlaced_frame
        self.unflagged += unflagged
        shape = picture.width, picture.height, picture.format.name, self._detector.interlaced
        if self._graph is not None and shape != self._shape:
            yield from self.flush()
        if self._graph is None and (picture.interlaced_frame or unflagged) and self.failure is None:
            self._open(picture, every=self._detector.interlaced)
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
            self.failure = str(error)
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
