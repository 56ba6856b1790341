"""Work recorded and replayed, on a stand-in for CUDA graphs that does the recorded operations again on the same tensors."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from engine.ops import graphs
from engine.ops.graphs import Buffers, Recorded, Store, room_for
from tests.pretended_gpu import Cuda, pretend_graphs

CPU = torch.device("cpu")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return pretend_graphs(monkeypatch)


@pytest.mark.parametrize(("number", "room"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, 64)])
def test_room_is_the_next_power_of_two(number: int, room: int) -> None:
    assert room_for(number) == room


def test_work_is_recorded_once_and_replayed(cuda: Cuda) -> None:
    given, runs = torch.ones(3), []

    def work() -> Tensor:
        runs.append(1)
        return (given * 2)[1:] + 1

    recorded: Recorded[Tensor] = Recorded(CPU)
    first = recorded(work)
    before = first.tolist()
    given.fill_(5)
    again = recorded(work)
    assert before == [3, 3] and again is first and again.tolist() == [11, 11]
    assert len(runs) == graphs.WARM_UPS + 1, "a replay does not come by here"
    assert cuda.calls == ["synchronize", "record", "recorded"]


def test_without_a_gpu_work_is_just_done() -> None:
    given = torch.ones(2)
    recorded: Recorded[Tensor] = Recorded(CPU)
    for value in (3, 4):
        given.fill_(value)
        assert recorded(lambda: given * 2).tolist() == [2 * value, 2 * value]


def test_what_cannot_be_recorded_is_tried_again(cuda: Cuda) -> None:
    failing = [False, False, True]

    def work() -> Tensor:
        if failing and failing.pop(0):
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.ones(1)

    recorded: Recorded[Tensor] = Recorded(CPU)
    with pytest.raises(RuntimeError, match="capturing"):
        recorded(work)
    assert cuda.current == "the caller's stream"
    assert recorded(work).tolist() == [1]


def test_precision_is_restored() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ZeroDivisionError), graphs.full_precision():
            assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_buffers_take_fewer_rows_of_any_type() -> None:
    buffers = Buffers([(4, 2), (4, 3, 1)], CPU)
    buffers.fill([torch.ones(3, 2, dtype=torch.uint8), torch.full((2, 3, 1), 7.0)])
    assert buffers.parts[0].tolist() == [[1, 1]] * 3 + [[0, 0]] and buffers.parts[1].flatten().tolist() == [7.0] * 6 + [0.0] * 6


class Plan:
    def __init__(self, failing: type[Exception] | None = None) -> None:
        self.failing = failing

    def use(self) -> Plan:
        if self.failing:
            raise self.failing("failed")
        return self


def test_plans_are_used_again_and_the_last_ones_kept() -> None:
    store: Store[Plan] = Store(2)
    used = [store.run(key, CPU, Plan, Plan.use) for key in (1, 2, 1, 3, 1, 2)]
    assert used[0] is used[2] is used[4] and used[1] is not used[5] and len(store) == 2


def test_two_callers_never_share_a_plan() -> None:
    store: Store[Plan] = Store(4)
    inner: list[Plan] = []

    def while_used(plan: Plan) -> Plan:
        inner.append(store.run("key", CPU, Plan, Plan.use))
        return plan

    outer = store.run("key", CPU, Plan, while_used)
    assert inner[0] is not outer and store.run("key", CPU, Plan, Plan.use) is outer


def test_a_plan_whose_use_failed_is_not_used_again() -> None:
    store: Store[Plan] = Store(4)
    with pytest.raises(ValueError, match="failed"):
        store.run("key", CPU, lambda: Plan(ValueError), Plan.use)
    assert len(store) == 0 and store.run("key", CPU, Plan, Plan.use).failing is None


def test_where_memory_is_short_idle_plans_make_room() -> None:
    store: Store[Plan] = Store(4)
    store.run("idle", CPU, Plan, Plan.use)
    made = iter([Plan(torch.OutOfMemoryError), Plan()])
    assert store.run("key", CPU, lambda: next(made), Plan.use).failing is None
    assert len(store) == 1
    store.clear()
    with pytest.raises(torch.OutOfMemoryError):
        store.run("key", CPU, lambda: Plan(torch.OutOfMemoryError), Plan.use)


def test_a_plan_that_finds_no_room_is_gone_before_it_is_made_again() -> None:
    made: list[weakref.ref[Plan]] = []

    def make() -> Plan:
        plan = Plan()
        made.append(weakref.ref(plan))
        if len(made) == 1:
            raise torch.OutOfMemoryError("failed")
        assert made[0]() is None, "what was made takes no room from the second attempt"
        return plan

    store: Store[Plan] = Store(4)
    store.run("idle", CPU, Plan, Plan.use)
    assert store.run("key", CPU, make, Plan.use) is made[1]()


def test_events_are_those_of_the_device_of_the_plan(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    where = torch.device("cuda", 1)

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        cuda.calls.append(f"enter {device}")
        yield
        cuda.calls.append("leave")

    monkeypatch.setattr(torch.cuda, "device", current)
    store: Store[Plan] = Store(4)
    for _ in range(2):
        store.run("key", where, Plan, Plan.use)
    assert cuda.calls == ["enter cuda:1", "used", "leave", "enter cuda:1", "wait for the last use", "used", "leave"]


def test_the_stream_waits_for_the_last_use(cuda: Cuda) -> None:
    store: Store[Plan] = Store(4)
    for _ in range(2):
        store.run("key", CPU, Plan, Plan.use)
    assert cuda.calls == ["used", "wait for the last use", "used"]
