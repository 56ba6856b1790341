from __future__ import annotations

import struct

import pytest

from engine.errors import InputError
from stream.server.camera import MAX_BYTES, Feed
from tests.soak.client_attacks import costly_pictures


def test_costly_pictures_are_small_and_refused() -> None:
    for data in costly_pictures():
        assert len(data) < MAX_BYTES
        with pytest.raises(InputError, match="a picture is"):
            Feed("me").offer(struct.pack(">d", 1.0) + data)
    endless = costly_pictures()[0]
    assert endless.count(b"\xff\xda") > 40_000
