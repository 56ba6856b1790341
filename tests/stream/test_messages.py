from __future__ import annotations

import dataclasses
import typing

import pytest

from stream import messages as feed
from stream.loop_sink import LoopSink
from stream.messages import Signal, Sink, SourceStatus

VALUES = [kind for kind in vars(feed).values() if dataclasses.is_dataclass(kind) and kind.__module__ == feed.__name__]


@pytest.mark.parametrize("kind", VALUES)
def test_what_crosses_between_threads_cannot_be_changed(kind: type) -> None:
    assert VALUES and kind.__dataclass_params__.frozen
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind.__new__(kind), dataclasses.fields(kind)[0].name, None)


def test_values_that_say_the_same_are_equal() -> None:
    assert SourceStatus("lobby", "rtsp", "live") == SourceStatus("lobby", "rtsp", "live", detail="")
    assert Signal("lobby", 1.0, 2.0, ()) != Signal("lobby", 1.1, 2.0, ())


def test_the_service_takes_all_that_threads_hand_over() -> None:
    wanted = {name for name, value in vars(Sink).items() if callable(value) and not name.startswith("_")}
    assert wanted <= set(dir(LoopSink))
    for name in wanted:  # under the same names, so that either can be called for the other
        asked, given = (list(typing.get_type_hints(getattr(kind, name))) for kind in (Sink, LoopSink))
        assert asked == given, name
