from __future__ import annotations

import pytest

from stream.sources.kinds import parse_address

HIDDEN = ("adm!n", "pa/ss#@?w:rd", "pa%2Fss%23%40%3Fw%3Ard", "t0ken")


@pytest.mark.parametrize(
    ("source", "username", "password"),
    [
        ("rtsp://cam.local:554/live?key=t0ken", "adm!n", "pa/ss#@?w:rd"),
        ("rtsp://adm%21n:pa%2Fss%23%40%3Fw%3Ard@cam.local:554/live?key=t0ken", None, None),
        ("rtsp://another:word@cam.local:554/live?key=t0ken", "adm!n", "pa/ss#@?w:rd"),
    ],
)
def test_credentials_reach_only_ffmpeg(source: str, username: str | None, password: str | None) -> None:
    address = parse_address(source, username=username, password=password)
    assert address.target == "rtsp://adm%21n:pa%2Fss%23%40%3Fw%3Ard@cam.local:554/live?key=t0ken"
    assert address.shown == "rtsp://cam.local:554/live"
    texts = [
        repr(address),
        str(address),
        address.redact(f"[Errno 5] Input/output error: '{address.target}'"),
        address.redact("method DESCRIBE failed\n  for rtsp://adm!n:other@cam.local/x?key=t0ken, password pa/ss#@?w:rd"),
        address.redact("Opening 'https://adm!n@cdn.local/seg-1.ts?sign=t0ken' for reading"),
    ]
    for text in texts:
        assert not [secret for secret in HIDDEN if secret in text], text
        assert "\n" not in text
    assert address.redact("error at rtsp://adm!n:x@cam.local/live?a=b twice") == "error at rtsp://cam.local/live twice"


def test_control_characters_of_a_message_are_escaped() -> None:
    assert parse_address("rtsp://h/a").redact("no\x1b[2J such\x9bstream\n") == "no\\x1b[2J such\\x9bstream"
