from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import ConfigError, SourceError
from stream.sources.settings import SourceSettings, default_name


def test_a_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SourceSettings(url="rtsp://camera.local/a", username="me", password_env="CAMERA_PASSWORD")
    monkeypatch.delenv("CAMERA_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="CAMERA_PASSWORD"):
        source.secret()
    monkeypatch.setenv("CAMERA_PASSWORD", "word")
    assert source.secret() == "word"
    assert SourceSettings(url="0").secret() is None


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("0", "webcam-0"),
        ("/dev/video2", "video2"),
        ("rtsp://user:word@10.0.0.7:554/live/main", "10.0.0.7"),
        ("https://example.org/a/index.m3u8", "example.org"),
        ("clips/an interview.mp4", "an interview"),
        ("lavfi:testsrc=size=640x480", "pattern"),
        ("/", "source"),
        ("rtsp://[::1", "source"),
        ("rtsp://user:word@10.0.0.7:99999/live", "10.0.0.7"),
        ("rtsp://user:w%rd@camera/live", "camera"),
        ("rtsp://user:w@rd@camera/live", "camera"),
        ("ftp://user:word@host/a", "host"),
        ("https://host/@me/live.m3u8", "host"),
        ("rtsp://user:12/word@camera/live", "source"),
        ("rtsp://user:w@rd/word@camera/live", "source"),
        ("rtsp://user:w?rd@camera/live", "source"),
        ("rtsp://user:w@rd#word@camera/live", "source"),
        ("http://user/a#word@camera/live", "source"),
    ],
)
def test_a_source_is_named_after_its_address(url: str, name: str) -> None:
    assert default_name(url) == name
    assert SourceSettings(url=url).name == name


def test_the_address_has_the_credentials() -> None:
    address = SourceSettings.model_validate({"url": "rtsp://h/a", "username": "me", "password": "word"}).address()
    assert (address.target, address.shown) == ("rtsp://me:word@h/a", "rtsp://h/a")
    with pytest.raises(SourceError, match="ftp"):
        SourceSettings(url="ftp://h/a").address()


def test_settings_load_no_decoder() -> None:
    script = "import sys, stream.settings as s; s.sources_from(['rtsp://a/b', '0', 'a.mp4']); sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
