from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from stream.outlets.settings import RedisSettings
from stream.settings import (
    TOKEN_VARIABLE,
    LiveSettings,
    ServerSettings,
    StoreSettings,
    load_hub_settings,
    load_live_settings,
    sources_from,
    with_redis,
)
from stream.sources.settings import SourceSettings

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "live").glob("*.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "live.toml"
    path.write_text(text)
    return path


def test_every_setting_is_read_from_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        queued_frames = 8
        processes = 3
        [[sources]]
        name = "lobby"
        url = "rtsp://camera.local/stream"
        transport = "udp"
        [[sources]]
        url = 0
        [server]
        port = 9000
        [store]
        folder = "events"
        keep_days = 7
        [spotter]
        floor_px = 0.3
        """,
    )
    settings = load_live_settings(path)
    assert [(source.name, source.url, source.transport) for source in settings.sources] == [
        ("lobby", "rtsp://camera.local/stream", "udp"),
        ("webcam-0", "0", "tcp"),
    ]
    assert settings.queued_frames == 8 and settings.processes == 3
    assert settings.server.port == 9000 and settings.server.host == "127.0.0.1"
    assert settings.store.place() == Path("events")
    assert settings.pipeline.spotter.floor_px == 0.3
    assert load_live_settings(None) == LiveSettings()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_settings_can_be_read(path: Path) -> None:
    assert load_live_settings(path).sources


def test_shipped_settings() -> None:
    assert {path.name for path in CONFIGS} >= {"webcam.toml", "rtsp.toml", "two-cameras.toml", "outlets.toml"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[sources]]\nurl = '0'\nloops = true", r"the first source has no setting loops; there are name, url, .*, loop, "),
        ("[[sources]]\nname = 'a'", r"the first source has no url$"),
        ("[[sources]]\nurl = '0'\n[[sources]]\nname = 'a'", r"the second source has no url$"),
        ("[[sources]]\nurl = '0'\n" * 20 + "[[sources]]\nname = 'a'", r"source 21 has no url$"),
        ("[[sources]]\nurl = '0'\n[[sources]]\nurl = '1'\nloop = 3", r"the second source's loop should be a valid boolean"),
        ("[[sources]]\nurl = 'a.mp4'\nname = 'a/b'", r"the first source's name: a stream's name is"),
        ("[[sources]]\nurl = 'a'\nname = 'x'\n[[sources]]\nurl = 'b'\nname = 'X'", "two sources are called 'x'"),
        ("[server]\nport = 70000", r"server\.port should be less than or equal to 65535$"),
        ("[server]\nprot = 1", r"there is no setting server\.prot; there are host, port, "),
        ("[server]\ncertificate = 'a.pem'", "server: certificate and key go together"),
        ("[server]\ntoken = 'abcdefgh'\ntoken_file = 'b'", "server: give token or token_file"),
        ("[store]\nkeep_days = 0", r"store\.keep_days should be greater than 0$"),
        ("[spotter]\nflor_px = 1", r"there is no setting spotter\.flor_px; there are floor_px, "),
        ("[recognizer]\nbackend = 'gpu'", r"recognizer\.backend should be 'auto', "),
        ("processes = 257", "processes: auto or a number from 0 to 256 is expected, not 257$"),
        ("processes = true", "processes: auto or a number from 0 to 256 is expected, not True$"),
        ("processes = 'many'", "processes: auto or a number from 0 to 256 is expected, not 'many'$"),
        ("sources = 3", r"sources is a list of tables, \[\[sources\]\]$"),
        ("sources = [3]", r"the first source is a table of settings$"),
        ("server = 3", r"server is a table of settings$"),
        ("[servr]\nport = 1", r"there is no setting servr; there are sources, server, .*, landmarks, spotter, recognizer$"),
        ("[store]\nfolder = 'a\\u0000b'".replace("'", '"'), "store: folder is no possible path: it holds a character NUL"),
        ("[server]\ntoken_file = 'a\\u0000b'".replace("'", '"'), "server: token_file is no possible path"),
        ("[mqtt]\nport = 1", r"mqtt has no host$"),
        ("[mqtt]\nhost = 'mqtt://a'", r"mqtt\.host: a host name or address without scheme and port is expected, as in "),
        ("[mqtt]\nhost = 'a'\nhots = 1", r"there is no setting mqtt\.hots; there are .*host, port, tls, "),
        ("[mqtt]\nhost = 'a'\npassword = 'b'", r"mqtt: a password needs a username$"),
        ("mqtt = 3", r"mqtt is a table of settings$"),
        ("[lsl]\nmarker = true", r"there is no setting lsl\.marker; there are name, markers, events, "),
        ("[lsl]\ndelay_ms = 'long'", r"lsl\.delay_ms should be a valid number"),
        ("[pipeline]\na = 1", r"there is no setting pipeline; there are sources, "),
    ],
)
def test_errors_name_the_setting(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"live\.toml: {problem}"):
        load_live_settings(written(tmp_path, text))


@pytest.mark.parametrize("processes", ["auto", 0, 256])
def test_processes_are_a_number_or_automatic(processes: str | int) -> None:
    assert LiveSettings.model_validate({"processes": processes}).processes == processes


def test_credentials_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret-word"
    source = SourceSettings(url=f"rtsp://me:{secret}@camera.local/a", password=secret)
    assert source.name == "camera.local"
    assert secret not in repr(source) + str(source) + repr(LiveSettings(sources=(source,)))
    assert source.secret() == secret
    with pytest.raises(ConfigError) as caught:
        load_live_settings(written(tmp_path, f"[[sources]]\nurl = 'rtsp://m:{secret}@h/a'\npassword = '{secret}'\nstall_s = 0"))
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("[[sources]]\nurl = 'rtsp://me:word@h/a'", True),
        ("[mqtt]\nhost = 'a'\nusername = 'me'\npassword = 'word'", True),
        ("[[sources]]\nurl = 'rtsp://h/a'\npassword = 'word'", True),
        ("[[sources]]\nurl = 'rtsp://h/user=admin&password=word&channel=1'", True),
        ("[[sources]]\nurl = 'http://h/a?channel=1&pwd=word'", True),
        ("[[sources]]\nurl = 'rtmp://h/live/a-long-key'", True),
        ("[[sources]]\nurl = 'rtsp://me:w#rd@h/a'", True),
        ("[server]\ntoken = 'a-token-of-old'", True),
        ("[[sources]]\nurl = 'rtsp://h/a'\npassword_env = 'WORD'", False),
        ("[[sources]]\nurl = 'rtsp://h/a?channel=1&subtype=0'", False),
        ("[[sources]]\nurl = 'rtmp://h/live'", False),
        ("[[sources]]\nurl = 'lavfi:testsrc=rate=30'", False),
    ],
)
def test_readable_settings_with_a_secret_give_a_warning(
    tmp_path: Path, text: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, text)
    path.chmod(0o644)
    load_live_settings(path)
    assert ("holds a secret" in caplog.text) is warned
    assert path.stat().st_mode & 0o777 == 0o644, "somebody may have set it for a group of readers"


def test_the_token_comes_from_settings_file_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert ServerSettings().access_token() is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-the-environment")
    assert ServerSettings().access_token() == "from-the-environment"
    path = tmp_path / "token"
    path.write_text("from-the-file\n")
    assert ServerSettings(token_file=path).access_token() == "from-the-file"
    given: Any = "from-the-settings"
    assert ServerSettings(token=given).access_token() == "from-the-settings"


@pytest.mark.parametrize("content", [b"", b"short", b"two words here", b"with/slash/in/it", "schlüssel-wort".encode()])
def test_a_token_that_a_page_cannot_send_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        ServerSettings(token_file=path).access_token()
    with pytest.raises(ConfigError, match="cannot be read"):
        ServerSettings(token_file=tmp_path / "none").access_token()


def test_sources_of_one_name_are_numbered(tmp_path: Path) -> None:
    assert [source.name for source in sources_from(["a/x.mp4", "b/x.mp4", "c/x.mp4"], loop=True)] == ["x", "x-2", "x-3"]
    text = "[[sources]]\nurl = 'x.mp4'\n[[sources]]\nurl = 'y.mp4'\nname = 'x'"
    assert [source.name for source in load_live_settings(written(tmp_path, text)).sources] == ["x-2", "x"]
    with pytest.raises(ConfigError, match="transport"):
        sources_from(["rtsp://h/a"], transport="pigeon")


def test_events_are_stored_in_the_users_folder_by_default() -> None:
    assert StoreSettings().place().name == "apexstream"
    assert StoreSettings().place().is_absolute()


def test_options_replace_what_the_file_says_of_redis(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text("[redis]\nurl = 'redis://a'\nnode = 'desk'\npassword = 's3cret'\n[server]\nport = 9000\n")
    path.chmod(0o644)
    live = with_redis(load_live_settings(path), url="redis://b")
    assert live.redis is not None
    assert (live.redis.url, live.redis.node, live.redis.secret(), live.server.port) == ("redis://b", "desk", "s3cret", 9000)
    assert with_redis(LiveSettings(), url="redis://b", node="door").redis == RedisSettings(url="redis://b", node="door")
    hub = load_hub_settings(path, url="redis://c")
    assert (hub.redis.url, hub.redis.secret(), hub.server.port) == ("redis://c", "s3cret", 9000)
    assert load_hub_settings(None, url="redis://c").redis.url == "redis://c"
    assert caplog.text.count("fleet.toml holds a secret") == 2
    for wrong, problem in (
        ({"url": "redis://me:s3cret@a"}, "the options: redis.url: put user name and password into"),
        ({"url": "redis://a", "hots": 1}, "there is no setting redis.hots; there are .*url, node"),
        ({}, "the settings has no redis"),
    ):
        with pytest.raises(ConfigError, match=problem) as refused:
            load_hub_settings(None, **wrong)
        assert "s3cret" not in str(refused.value)
