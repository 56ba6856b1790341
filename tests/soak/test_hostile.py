from __future__ import annotations

import struct
import threading

import pytest

from engine.errors import InputError
from stream.server.camera import MOST_BYTES, Feed
from tests.soak.hostile import Seen, bombs_made, frames, soon


def test_costly_pictures_are_small_and_refused() -> None:
    for data in bombs_made():
        assert len(data) < MOST_BYTES
        with pytest.raises(InputError, match="a picture is"):
            Feed("me").offer(struct.pack(">d", 1.0) + data)
    endless = bombs_made()[0]
    assert endless.count(b"\xff\xda") > 40_000


def test_frames_are_read_from_the_services_figures() -> None:
    told = '# HELP x\napexstream_frame_seconds_count{stream="hopper"} 31.0\napexstream_frame_seconds_sum{stream="hopper"} 1.5\n'
    assert frames(told) == {"hopper": 31}
    assert frames("the service ends") == {}


def test_only_what_is_not_well_is_a_problem() -> None:
    seen = Seen()
    seen.must("all is well", well=True)
    seen.must("that is bad", well=0)
    assert seen.problems == ["that is bad"]


def test_an_attack_stops_waiting_when_the_run_is_over() -> None:
    over = threading.Event()
    assert soon(over, lambda: True, 0.0)
    over.set()
    assert not soon(over, lambda: False, 1e6)
