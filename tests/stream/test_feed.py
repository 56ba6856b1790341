from __future__ import annotations

import dataclasses
import inspect

import pytest

from stream import feed
from stream.feed import Sink, SourceStatus
from stream.service import _LoopSink
from tests.live import Collected


def test_what_crosses_between_threads_cannot_be_changed() -> None:
    values = [kind for _, kind in inspect.getmembers(feed, dataclasses.is_dataclass) if kind.__module__ == feed.__name__]
    assert len(values) >= 8
    assert all(kind.__dataclass_params__.frozen for kind in values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SourceStatus("desk", "webcam", "live").state = "ended"  # type: ignore[misc]


@pytest.mark.parametrize("kind", [_LoopSink, Collected])
def test_sinks_take_all_that_is_sent(kind: type) -> None:
    for name, method in inspect.getmembers(Sink, inspect.isfunction):
        if name.startswith("_"):
            continue
        assert list(inspect.signature(getattr(kind, name)).parameters) == list(inspect.signature(method).parameters), name
