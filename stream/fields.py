"""Interlaced pictures made whole: a moving face in two fields of different moments looks combed, which hides small motion."""

from __future__ import annotations

from collections.abc import Iterator

import av
import av.error
import av.filter


class Deinterlacer:
    """FFmpeg's yadif over those pictures that are flagged as interlaced; the others pass as they are.

    Until the first interlaced picture nothing is touched. From there on pictures come one later, since yadif looks at the
    next one too. `interlaced` counts them; `refusal` says why they are left combed, None where they are not.
    """

    def __init__(self) -> None:
        self.interlaced = 0
        self.refusal: str | None = None
        self._graph: av.filter.Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def take(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """The pictures that are whole once this one came, in order; times and rotation stay theirs."""
        self.interlaced += picture.interlaced_frame
        shape = picture.width, picture.height, picture.format.name
        if self._graph is not None and shape != self._shape:
            yield from self.flush()
        if self._graph is None and picture.interlaced_frame and self.refusal is None:
            self._open(picture)
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

    def _open(self, picture: av.VideoFrame) -> None:
        graph = av.filter.Graph()
        try:
            steps = (
                graph.add_buffer(
                    width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
                ),
                graph.add("yadif", "deint=interlaced"),
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
