from __future__ import annotations

import pytest

from engine.errors import SourceError
from stream.sources.address import parse_address


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("0", ("webcam", "/dev/video0", "v4l2", "/dev/video0")),
        ("/dev/video12", ("webcam", "/dev/video12", "v4l2", "/dev/video12")),
        ("rtsp://cam/live?channel=1", ("rtsp", "rtsp://cam/live?channel=1", None, "rtsp://cam/live")),
        ("RTSPS://cam:322/live", ("rtsp", "rtsps://cam:322/live", None, "rtsps://cam:322/live")),
        ("rtsp://[::1]:554/a", ("rtsp", "rtsp://[::1]:554/a", None, "rtsp://[::1]:554/a")),
        ("https://host/@me/live.m3u8", ("http", "https://host/@me/live.m3u8", None, "https://host/@me/live.m3u8")),
        ("rtmp://host/app/key", ("http", "rtmp://host/app/key", None, "rtmp://host/app/***")),
        ("lavfi:testsrc=rate=30", ("pattern", "testsrc=rate=30", "lavfi", "lavfi:testsrc=rate=30")),
        (" clips/one.mp4 ", ("file", "clips/one.mp4", None, "clips/one.mp4")),
        ("0.mp4", ("file", "0.mp4", None, "0.mp4")),
    ],
)
def test_what_a_source_is(source: str, expected: tuple[str, str, str | None, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    address = parse_address(source)
    assert (address.kind, address.target, address.format, address.shown) == expected
    assert address.live == (address.kind != "file")
    assert address.paced == (address.kind in ("file", "pattern"))


def test_a_webcams_number_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert (parse_address("1").target, parse_address("1").format) == ("1", "avfoundation")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(SourceError, match="cannot be named by number"):
        parse_address("1")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_is_asked_for_pictures_alone_by_the_transport_chosen(transport: str) -> None:
    options = parse_address("rtsp://cam/", transport="udp" if transport == "udp" else "tcp").options
    assert (options["rtsp_transport"], options["allowed_media_types"]) == (transport, "video")


@pytest.mark.parametrize("source", ["http://host/a.m3u8", "https://host/a.m3u8", "rtsp://host/", "rtmp://host/a"])
def test_no_address_of_the_network_leads_to_files(source: str) -> None:
    allowed = parse_address(source).options["protocol_whitelist"].split(",")
    assert not {"file", "pipe", "fd", "concat", "subfile", "data:file"} & set(allowed)


HIDDEN = ("adm!n", "pa/ss#@?w:rd", "pa%2Fss%23%40%3Fw%3Ard", "t0ken")


@pytest.mark.parametrize(
    ("source", "username", "password"),
    [
        ("rtsp://cam.local:554/live?key=t0ken", "adm!n", "pa/ss#@?w:rd"),
        ("rtsp://adm%21n:pa%2Fss%23%40%3Fw%3Ard@cam.local:554/live?key=t0ken", None, None),
        ("rtsp://another:word@cam.local:554/live?key=t0ken", "adm!n", "pa/ss#@?w:rd"),
    ],
)
def test_credentials_reach_ffmpeg_and_nobody_else(source: str, username: str | None, password: str | None) -> None:
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


@pytest.mark.parametrize("name", ["rtsp://admin:p%40s%23s%25@cam/x", "http://admin:p%40s%23s%25@cam/x"])
def test_a_password_with_odd_marks_works_escaped_or_apart(name: str) -> None:
    bare = name.replace("admin:p%40s%23s%25@", "")
    escaped, apart = parse_address(name), parse_address(bare, username="admin", password="p@s#s%")
    assert escaped.target == apart.target == name
    assert not [secret for secret in ("p@s#s%", "p%40s%23s%25") if secret in f"{escaped.shown} {escaped!r} {apart!r}"]


@pytest.mark.parametrize("mark", ["#t=1", "?a=b#t=1", "#"])
def test_a_place_within_a_page_is_left_out(mark: str) -> None:
    address = parse_address(f"http://me:word@cam/x{mark}")
    assert address.target == f"http://me:word@cam/x{mark.partition('#')[0]}"
    with pytest.raises(SourceError, match="write % / "):
        parse_address(f"http://me:word@cam/x{mark}@y")


@pytest.mark.parametrize("source", ["http://h/design=4/x", "rtmp://h/app/4", "lavfi:testsrc=design=4"])
def test_numbers_of_messages_are_no_secrets(source: str) -> None:
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
def test_secrets_besides_user_and_password_are_nowhere_seen(source: str, shown: str) -> None:
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


def test_a_servers_message_steers_no_terminal() -> None:
    assert parse_address("rtsp://h/a").redact("no\x1b[2J such\x9bstream\n") == "no\\x1b[2J such\\x9bstream"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "nothing came"),
        ("ftp://host/x", "ftp:// are not known"),
        ("rtsp://", "no usable host and port"),
        ("rtsp://cam:99999/x", "no usable host and port"),
        ("rtsp://me:pa#secret@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:secret/x@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:12/secret@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:p@ss#secret%rd@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:p@secret@cam/x", "write % / \\? # and @ as"),
        ("rtsp://me:secret%@cam/x", "write % / \\? # and @ as"),
        ("http://me:secret%zz@cam/x", "or give them apart"),
        ("rtsp://me:12?secret@cam/x", "write % / \\? # and @ as"),
        ("http://[::1/x", "no usable host and port"),
        ("lavfi: ", "graph"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_sentence_without_credentials(source: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        parse_address(source)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
