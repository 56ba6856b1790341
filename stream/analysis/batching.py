"""One recognizer shared by several streams on a GPU: requests that wait when the device becomes free are computed as a batch.

    stream's thread --moment--> waiting --+
    stream's thread --moment--> waiting --+--> the thread that finds the device free computes all that wait

There is no extra thread, and no request is delayed to fill a batch: a single one is computed at once on its own thread. On the
CPU a batch saves nothing: each stream has its own recognizer there, and streams that share one when a GPU is lost compute in
parallel.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from engine import Pipeline
from engine.activity.watch import Hindrance
from engine.config import PipelineSettings, RecognizerSettings
from engine.errors import BackendError
from engine.recognition.recognizer import Moment, Recognition, Recognizer
from engine.types import F32, Crop

_Request = tuple[Moment, "Future[Recognition | None]"]


class SharedRecognizer(Recognizer):
    """A recognizer whose `recognize` may be called from many threads; each gets its own result, or its own error.

    Batches are only for a GPU. Once that is lost, each thread computes its own flow, and only the network is shared.
    """

    def __init__(self, settings: RecognizerSettings | None = None) -> None:
        super().__init__(settings)
        self.failed = False
        """Whether a call found no backend left."""
        self._changed = threading.Condition()  # guards the two below
        self._waiting: list[_Request] = []
        self._busy = False
        self._network = threading.Lock()  # guards the network, as only one thread may move it on to its next backend

    def recognize(
        self,
        onset: Sequence[Crop],
        apex: Sequence[Crop],
        between: Sequence[Crop] = (),
        hindrance: Hindrance | None = None,
    ) -> Recognition:
        """As `Recognizer.recognize`; on a GPU in one batch with the waiting requests of other threads."""
        found = self._batched(Moment(onset, apex, between, hindrance)) if self.flow_on_gpu else None
        return super().recognize(onset, apex, between, hindrance) if found is None else found

    def _batched(self, moment: Moment) -> Recognition | None:
        """The result of the GPU, None where that was lost before the moment was computed."""
        answer: Future[Recognition | None] = Future()
        with self._changed:
            self._waiting.append((moment, answer))
            self._changed.wait_for(lambda: answer.done() or not self._busy)
            if answer.done():
                return answer.result()
            batch, self._waiting, self._busy = self._waiting, [], True
        try:
            self._compute(batch)
        finally:
            with self._changed:
                for _, unanswered in batch:
                    unanswered.cancel()  # none is left, unless this thread is interrupted
                self._busy = False
                self._changed.notify_all()
        return answer.result()

    def _compute(self, batch: Sequence[_Request]) -> None:
        """Set the results of a batch; where it fails, those of its moments one by one, so that each gets its own error."""
        try:
            answers = self.recognize_many([moment for moment, _ in batch]) if self.flow_on_gpu else [None] * len(batch)
        except Exception as error:  # noqa: BLE001 - raised on the thread that asked
            if len(batch) > 1:
                for one in batch:
                    self._compute([one])
                return
            batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)

    def _run(self, given: F32) -> F32:
        """The network's results, for one thread at a time."""
        with self._network:
            try:
                return super()._run(given)
            except BackendError:
                self.failed = True
                raise


class PipelineFactory:
    """Makes the pipelines of a process, for `stream.analysis.worker.Worker`; may be called from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _first, and has the first one load before the others
        self._first: dict[RecognizerSettings, SharedRecognizer] = {}

    def make(self, settings: PipelineSettings, stream: str, session: str) -> Pipeline:
        """A pipeline, which shares the recognizer of the others on a GPU. Raises WeightsError, BackendError."""
        return Pipeline(settings, stream=stream, session=session, recognizer=self._recognizer(settings.recognizer))

    def _recognizer(self, settings: RecognizerSettings) -> Recognizer:
        with self._lock:
            first = self._first.get(settings)
            if first is None:
                first = self._first[settings] = SharedRecognizer(settings)
                return first
        return first if first.flow_on_gpu and not first.failed else Recognizer(settings)
