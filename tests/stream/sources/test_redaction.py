from __future__ import annotations

import pytest

from stream.sources.kinds import parse_address
from stream.sources.redaction import redact


@pytest.mark.parametrize("source", ["http://h/design=4/x", "rtmp://h/app/4", "lavfi:testsrc=design=4"])
def test_short_values_are_not_searched_for_in_messages(source: str) -> None:
    assert parse_address(source).redact("HTTP error 404 after 4 s") == "HTTP error 404 after 4 s"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://h:554/user=admin&password=s3cret&channel=1.sdp", "rtsp://h:554/user=***&password=***&channel=1.sdp"),
        ("rtsp://h/user=admin_password=s3cret_channel=1_stream=0.sdp", "rtsp://h/user=***"),
        ("rtsp://h/live;token=s3cret;a=b", "rtsp://h/live;token=***;a=b"),
        ("http://h/auth_key=s3cret/video.mjpg", "http://h/auth_key=***/video.mjpg"),
        ("http://h/a%3Fpwd%3Ds3cret", "http://h/a%3Fpwd%3D***"),
        ("rtmp://h/live2/s3cret", "rtmp://h/live2/***"),
        ("rtmps://h:443/live/a/s3cret?x=y", "rtmps://h:443/live/***"),
        ("rtmp://h/app", "rtmp://h/app"),
        (r"lavfi:movie=rtsp\://u\:s3cret@h", "lavfi:movie=rtsp://h"),
        (r"lavfi:movie=rtsp\\://u\\:s3cret@h/a\:f=rtsp,scale=2:2", "lavfi:movie=rtsp://h/a:f=rtsp,scale=2:2"),
        ("lavfi:movie=rtsp://me:s3cret@cam/live", "lavfi:movie=rtsp://cam/live"),
        (r"lavfi:movie=rtmp\://h/live/s3cret", "lavfi:movie=rtmp://h/live/***"),
        (r"lavfi:drawtext=text='a\:b'", r"lavfi:drawtext=text='a\:b'"),
    ],
)
def test_secrets_in_paths_and_filters_are_hidden(source: str, shown: str) -> None:
    address = parse_address(source)
    assert address.shown == shown
    for text in (
        address.target,
        f"cannot open '{source}'",
        f"{address.target}: refused",
        "s3cret" if "s3cret" in source else "",
    ):
        assert "s3cret" not in address.redact(text)
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Opening 'https://me:word@host/a.ts?sign=x' for reading", "Opening 'https://host/a.ts' for reading"),
        ("rtmps://host/live/key failed", "rtmps://host/live/*** failed"),
        ("channel=1&password=word", "channel=1&password=***"),
        ("no stream at 10.0.0.7", "no stream at 10.0.0.7"),
    ],
)
def test_credentials_are_left_out_of_any_text(text: str, redacted: str) -> None:
    assert redact(text) == redacted
