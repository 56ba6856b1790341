from __future__ import annotations

import pytest

from engine.errors import SourceError
from stream.sources.kinds import parse_address


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_uses_the_given_transport_for_pictures_only(transport: str) -> None:
    options = parse_address("rtsp://cam/", transport="udp" if transport == "udp" else "tcp").options
    assert (options["rtsp_transport"], options["allowed_media_types"]) == (transport, "video")


@pytest.mark.parametrize("source", ["http://host/a.m3u8", "https://host/a.m3u8", "rtsp://host/", "rtmp://host/a"])
def test_network_addresses_lead_to_no_files(source: str) -> None:
    allowed = parse_address(source).options["protocol_whitelist"].split(",")
    assert not {"file", "pipe", "fd", "concat", "subfile", "data:file"} & set(allowed)


@pytest.mark.parametrize("name", ["rtsp://admin:p%40s%23s%25@cam/x", "http://admin:p%40s%23s%25@cam/x"])
def test_a_password_with_reserved_characters_works_escaped_or_apart(name: str) -> None:
    bare = name.replace("admin:p%40s%23s%25@", "")
    escaped, apart = parse_address(name), parse_address(bare, username="admin", password="p@s#s%")
    assert escaped.target == apart.target == name
    assert not [secret for secret in ("p@s#s%", "p%40s%23s%25") if secret in f"{escaped.shown} {escaped!r} {apart!r}"]


@pytest.mark.parametrize("fragment", ["#t=1", "?a=b#t=1", "#"])
def test_a_fragment_is_left_out(fragment: str) -> None:
    address = parse_address(f"http://me:word@cam/x{fragment}")
    assert address.target == f"http://me:word@cam/x{fragment.partition('#')[0]}"
    with pytest.raises(SourceError, match="write % / "):
        parse_address(f"http://me:word@cam/x{fragment}@y")
