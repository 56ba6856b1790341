"""One recognizer for several streams where a GPU computes: what waits when the device becomes free goes there as one batch.

    stream's thread --moment--> waiting --+
    stream's thread --moment--> waiting --+--> whoever finds the device free takes all that wait, and answers them

No thread of its own, and nothing is held back for company: a moment that comes alone is computed at once by who asks for it. On
the CPU a batch saves nothing: each stream has a recognizer of its own where the CPU computes flows, and those who share one
when a GPU is lost go on side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from engine import Pipeline
from engine.config import PipelineSettings, RecognizerSettings
from engine.errors import BackendError
from engine.recognition.recognizer import Moment, Recognition, Recognizer
from engine.types import F32, Crop

_Asked = tuple[Moment, "Future[Recognition | None]"]


class SharedRecognizer(Recognizer):
    """A recognizer whose `recognize` may be called from many threads; each gets its own answer, or its own error.

    Only a GPU takes moments together. Once it is lost each thread computes the flow of its own, and they meet in the network.
    """

    def __init__(self, settings: RecognizerSettings | None = None) -> None:
        super().__init__(settings)
        self.failed = False
        """Whether a call found no backend left."""
        self._changed = threading.Condition()  # guards the two below
        self._waiting: list[_Asked] = []
        self._busy = False
        self._running = threading.Lock()  # guards the network, whose way down its chain is one thread's work

    def recognize(self, onset: Sequence[Crop], apex: Sequence[Crop], between: Sequence[Crop] = ()) -> Recognition:
        """As `Recognizer.recognize`; on a GPU together with what other threads ask for meanwhile."""
        found = self._together(Moment(onset, apex, between)) if self.flow_on_gpu else None
        return super().recognize(onset, apex, between) if found is None else found

    def _together(self, moment: Moment) -> Recognition | None:
        """The answer by the GPU, None where that was lost before the moment's turn came."""
        answer: Future[Recognition | None] = Future()
        with self._changed:
            self._waiting.append((moment, answer))
            self._changed.wait_for(lambda: answer.done() or not self._busy)
            if answer.done():
                return answer.result()
            batch, self._waiting, self._busy = self._waiting, [], True
        try:
            self._answer_all(batch)
        finally:
            with self._changed:
                for _, asked in batch:
                    asked.cancel()  # none is left, unless this thread is being ended
                self._busy = False
                self._changed.notify_all()
        return answer.result()

    def _answer_all(self, batch: Sequence[_Asked]) -> None:
        """Each its answer; where the batch fails as a whole, one by one, so that an error goes to whose moment it is."""
        try:
            answers = self.recognize_many([moment for moment, _ in batch]) if self.flow_on_gpu else [None] * len(batch)
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            if len(batch) > 1:
                for one in batch:
                    self._answer_all([one])
                return
            batch[0][1].set_exception(error)
            return
        for (_, asked), answer in zip(batch, answers, strict=True):
            asked.set_result(answer)

    def _run(self, given: F32) -> F32:
        """The network's answers to one thread's inputs at a time."""
        with self._running:
            try:
                return super()._run(given)
            except BackendError:
                self.failed = True
                raise


class Sharing:
    """Makes the pipelines of a process, for `stream.analysis.worker.Worker`; may be called from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _first, and that one loads before the others
        self._first: dict[RecognizerSettings, SharedRecognizer] = {}

    def made(self, settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        """A pipeline, with the recognizer of the others where a GPU computes flows. Raises WeightsError, BackendError."""
        return Pipeline(settings, stream=stream, session=session, recognizer=self._recognizer(settings.recognizer))

    def _recognizer(self, settings: RecognizerSettings) -> Recognizer:
        with self._lock:
            first = self._first.get(settings)
            if first is None:
                first = self._first[settings] = SharedRecognizer(settings)
                return first
        return first if first.flow_on_gpu and not first.failed else Recognizer(settings)
