from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.config import PipelineSettings, RecognizerSettings
from engine.errors import ApexError, ArrayError, BackendError
from engine.recognition.recognizer import Moment, Recognition, Recognizer
from engine.types import F32, Crop
from stream.analysis import batching
from stream.analysis.batching import PipelineFactory, SharedRecognizer
from tests.faces import rise
from tests.live import PATIENCE_S


@pytest.fixture(scope="module")
def crops() -> Sequence[Crop]:
    return rise("smile")[1]


class Noticed(list[Any]):
    """A list that signals when it has so many items."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many, self.full = many, threading.Event()

    def append(self, item: Any) -> None:
        super().append(item)
        if len(self) == self.many:
            self.full.set()


class Device(SharedRecognizer):
    """Computes batches as a GPU would. Blocks in its first batch until go_on is set, so that requests pile up behind it, and
    records the sizes of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False
        self.batches: list[int] = []
        self.started, self.go_on = threading.Event(), threading.Event()

    @property
    def flow_on_gpu(self) -> bool:
        return not self.lost

    def recognize_many(self, moments: Sequence[Moment]) -> list[Recognition]:
        self.batches.append(len(moments))
        self.started.set()
        assert self.go_on.wait(PATIENCE_S)
        return super().recognize_many(moments)

    def piled_up(self, moments: Sequence[Moment], pool: ThreadPoolExecutor) -> list[Recognition | ApexError]:
        """The results of the moments, all but the first of which are requested while the device computes that."""
        asked = [pool.submit(self.recognize, *moments[0])]
        assert self.started.wait(PATIENCE_S)
        self._waiting = waiting = Noticed(len(moments) - 1)
        asked += [pool.submit(self.recognize, *moment) for moment in moments[1:]]
        assert waiting.full.wait(PATIENCE_S)
        self.go_on.set()
        return [one.exception(PATIENCE_S) or one.result() for one in asked]  # type: ignore[misc]


@pytest.fixture
def device() -> Device:
    return Device()


def ends(crops: Sequence[Crop], many: int) -> list[Moment]:
    """Moments that differ: from rest to later and later."""
    return [Moment(crops[:2], [crops[-1 - k]]) for k in range(many)]


def same(one: object, other: Recognition) -> None:
    assert isinstance(one, Recognition) and one.label == other.label
    assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-6)
    np.testing.assert_array_equal(one.flow, other.flow)


def test_requests_that_wait_when_the_device_becomes_free_are_one_batch(device: Device, crops: Sequence[Crop]) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = device.piled_up(ends(crops, 6), pool)
    assert device.batches == [1, 5]
    alone = Recognizer()
    for answer, moment in zip(answers, ends(crops, 6), strict=True):
        same(answer, alone.recognize(*moment))


def test_a_single_request_is_computed_at_once(device: Device, crops: Sequence[Crop]) -> None:
    device.go_on.set()
    for moment in [*ends(crops, 2), ends(crops, 1)[0]._replace(hindrance="covered")]:
        same(device.recognize(*moment), Recognizer().recognize(*moment))
    assert device.batches == [1, 1, 1]
    assert device.recognize(*moment).why == "covered"


def test_an_error_goes_to_the_thread_that_asked(device: Device, crops: Sequence[Crop]) -> None:
    broken = replace(crops[-1], pixels=np.zeros((3, 3), np.uint8))
    moments: list[Moment] = [*ends(crops, 2), Moment(crops[:1], [broken]), *ends(crops, 1)]
    with ThreadPoolExecutor(8) as pool:
        answers = device.piled_up(moments, pool)
    assert [type(answer) for answer in answers] == [Recognition, Recognition, ArrayError, Recognition]
    assert not device.failed
    same(device.recognize(*moments[0]), Recognizer().recognize(*moments[0]))


def test_without_a_backend_every_request_fails(device: Device, crops: Sequence[Crop], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(given: object) -> F32:
        raise BackendError("no backend is left")

    monkeypatch.setattr(device, "runner", refuse)
    with ThreadPoolExecutor(8) as pool:
        answers = device.piled_up(ends(crops, 3), pool)
    assert [str(answer) for answer in answers] == ["no backend is left"] * 3
    assert device.failed


class Meeting:
    """Wraps what threads may call in parallel: returns only once so many have called it."""

    def __init__(self, what: Callable[..., Any], many: int) -> None:
        self._what, self._all = what, threading.Barrier(many, timeout=PATIENCE_S)

    def __call__(self, *given: Any) -> Any:
        self._all.wait()
        return self._what(*given)


class Alone:
    """Wraps what one thread may call at a time; notes where two did."""

    def __init__(self, what: Callable[..., Any]) -> None:
        self._what, self._one, self.met = what, threading.Lock(), False

    def __call__(self, *given: Any) -> Any:
        if not self._one.acquire(blocking=False):
            self.met = True
            return self._what(*given)
        try:
            return self._what(*given)
        finally:
            self._one.release()


def in_parallel(one: SharedRecognizer, monkeypatch: pytest.MonkeyPatch) -> Alone:
    """Have four flows computed in parallel only; the result says whether two threads were in the network at once."""
    monkeypatch.setattr(one, "_measure_on_cpu", Meeting(one._measure_on_cpu, 4))
    network = Alone(one.runner)
    monkeypatch.setattr(one, "runner", network)
    return network


def test_without_a_gpu_flows_are_computed_in_parallel(crops: Sequence[Crop], monkeypatch: pytest.MonkeyPatch) -> None:
    one = SharedRecognizer()
    network = in_parallel(one, monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda moment: one.recognize(*moment), ends(crops, 4)))
    for answer, moment in zip(answers, ends(crops, 4), strict=True):
        same(answer, Recognizer().recognize(*moment))
    assert not network.met


def test_waiting_requests_are_computed_in_parallel_when_the_gpu_is_lost(
    device: Device, crops: Sequence[Crop], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = ends(crops, 5)
    wanted = [Recognizer().recognize(*moment) for moment in moments]
    first = device.recognize_many

    def lose(batch: Sequence[Moment]) -> list[Recognition]:
        answers = first(batch)
        if not device.lost:
            device.lost = True
            in_parallel(device, monkeypatch)
        return answers

    monkeypatch.setattr(device, "recognize_many", lose)
    with ThreadPoolExecutor(8) as pool:
        answers = device.piled_up(moments, pool)
    for answer, other in zip(answers, wanted, strict=True):
        same(answer, other)


@pytest.mark.parametrize("lost", [False, True])
def test_many_threads_each_get_their_own_results(device: Device, crops: Sequence[Crop], lost: bool) -> None:
    alone, device.lost = Recognizer(), lost
    device.go_on.set()
    moments = ends(crops, 4)
    wanted = [alone.recognize(*moment) for moment in moments]

    def ask(first: int) -> list[tuple[int, Recognition]]:
        order = [(first + k) % 4 for k in range(12)]
        return [(k, device.recognize(*moments[k])) for k in order]

    with ThreadPoolExecutor(6) as pool:
        for answers in pool.map(ask, range(6)):
            for k, answer in answers:
                same(answer, wanted[k])


# --- which share -------------------------------------------------------------------------------------------------------------


def recognizers(factory: PipelineFactory, streams: int) -> list[Recognizer]:
    """Those of the pipelines of so many streams, made in parallel."""
    with ThreadPoolExecutor(streams) as pool:
        pipelines = list(pool.map(lambda k: factory.make(PipelineSettings(), f"stream {k}", "session"), range(streams)))
    for pipeline in pipelines:
        pipeline.close()
    return [pipeline._recognizer for pipeline in pipelines]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether recognizers say that a GPU computes flows; may be changed."""
    state = {"on_gpu": True}
    monkeypatch.setattr(batching.Recognizer, "flow_on_gpu", property(lambda self: state["on_gpu"]))
    return state


def test_on_the_cpu_each_stream_has_its_own() -> None:
    assert len({id(one) for one in recognizers(PipelineFactory(), 3)}) == 3


@pytest.mark.usefixtures("on_gpu")
def test_on_a_gpu_streams_share_one() -> None:
    factory = PipelineFactory()
    (one,) = {id(found) for found in recognizers(factory, 3)}
    assert [id(found) for found in recognizers(factory, 1)] == [one], "a new pipeline takes it again"
    other = factory.make(PipelineSettings(recognizer=RecognizerSettings(uncertain_below=0.9)), "other", "session")
    assert id(other._recognizer) != one
    other.close()


def test_once_the_gpu_is_lost_new_pipelines_have_their_own(on_gpu: dict[str, bool]) -> None:
    factory = PipelineFactory()
    first, again = *recognizers(factory, 1), *recognizers(factory, 1)
    assert first is again
    on_gpu["on_gpu"] = False
    assert recognizers(factory, 1)[0] is not first


@pytest.mark.usefixtures("on_gpu")
def test_one_without_a_backend_is_not_shared_any_more() -> None:
    factory = PipelineFactory()
    (first,) = recognizers(factory, 1)
    assert isinstance(first, SharedRecognizer)
    first.failed = True
    assert recognizers(factory, 1)[0] is not first
