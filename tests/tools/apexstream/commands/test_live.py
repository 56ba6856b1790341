from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from apexstream.cli import main
from apexstream.commands.live import (
    DEFAULT_LISTEN,
    log_to_stderr,
    split_address,
    with_server,
    with_sources,
)
from engine.errors import SourceError
from stream.settings import LiveSettings, ServerSettings, load_live_settings
from tests.live import PATIENCE_S
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[4]
PATTERN = "lavfi:testsrc=size=160x120:rate=25"


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No token in the environment, and logging as it was."""
    monkeypatch.delenv("APEXSTREAM_TOKEN", raising=False)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        (":9000", ("127.0.0.1", 9000)),
        ("[::1]:8765", ("::1", 8765)),
        ("camera.example:0", ("camera.example", 0)),
    ],
)
def test_listen_addresses(given: str, expected: tuple[str, int]) -> None:
    assert split_address(given) == expected


def test_the_default_address_is_that_of_the_settings() -> None:
    assert split_address(DEFAULT_LISTEN) == (ServerSettings().host, ServerSettings().port)


@pytest.mark.parametrize("given", ["8765", "host", "host:", "host:http", "host:99999", "::1:8765", "host:-1", ""])
def test_invalid_listen_addresses(given: str) -> None:
    with pytest.raises(typer.BadParameter):
        split_address(given)


def test_the_command_line_overrides_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "live.toml"
    path.write_text("[[sources]]\nurl = 'rtsp://camera.example/a'\n[server]\nport = 9000\ntoken = 'a-token-of-old'\n")
    settings = load_live_settings(path)
    clip = write_video(tmp_path / "clip.mp4", stepping(64, 48, 3))
    assert with_sources(settings, [], loop=False, transport="tcp") == settings
    given = with_sources(settings, [str(clip), "0"], loop=True, transport="udp")
    assert [(source.name, source.loop, source.transport) for source in given.sources] == [
        ("clip", True, "udp"),
        ("webcam-0", True, "udp"),
    ]
    assert given.server.port == 9000
    server = with_server(settings, "[::1]:1234", tmp_path / "token", tmp_path / "c.pem", tmp_path / "k.pem").server
    assert (server.host, server.port, server.token, server.token_file) == ("::1", 1234, None, tmp_path / "token")
    assert (server.certificate, server.key) == (tmp_path / "c.pem", tmp_path / "k.pem")
    assert with_server(settings, None, None, None, None) == settings
    with pytest.raises(typer.BadParameter, match="go together"):
        with_server(LiveSettings(server=ServerSettings()), None, None, tmp_path / "c.pem", None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("none.mp4", "none.mp4 is no file"), (".", "is a folder"), ("pigeon://a:secret@b", "pigeon:// are not")],
)
def test_an_invalid_source_is_an_error_before_anything_starts(source: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected) as caught:
        with_sources(LiveSettings(), [source], loop=False, transport="tcp")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["none.mp4"], 1, "none.mp4 is no file"),
        ([PATTERN, "--listen", "8765"], 2, "is not HOST:PORT"),
        ([PATTERN, "--listen", "0.0.0.0:0"], 1, "needs a token"),
        ([PATTERN, "--listen", "nosuchhost.invalid:0"], 1, "unknown host nosuchhost.invalid"),
        ([PATTERN, "--listen", "a..b:0"], 1, "unknown host a..b"),
        ([PATTERN, "--network", "alexnet"], 2, "is none of"),
        ([PATTERN, "--network", "htnet", "--weights", "a.onnx"], 2, "give one of them"),
        ([PATTERN, "--certificate", "a.pem"], 2, "go together"),
        *(([PATTERN, f"--processes={given}"], 2, "is neither auto nor a number") for given in ("-1", "257", "many", "\u00b2")),
        ([PATTERN, "--config", "none.toml"], 1, "none.toml cannot be read"),
        ([PATTERN, "--weights", "none.onnx"], 1, "none.onnx"),
        ([PATTERN, "--token-file", "none.token"], 1, "none.token cannot be read"),
        ([PATTERN, "--publish", "redis://u:w@a"], 1, "put user name and password into APEXSTREAM_REDIS_USERNAME"),
        ([PATTERN, "--publish", "redis://a", "--node", "a/b"], 1, "redis.node: up to 64 letters"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], code: int, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["live", "--data", str(tmp_path), *arguments])
    shown = capfd.readouterr().err
    assert caught.value.code == code
    assert expected in " ".join(shown.replace("│", " ").split()) and "Traceback" not in shown


def test_a_port_in_use_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        taken_port = taken.getsockname()[1]
        main(["live", PATTERN, "--data", str(tmp_path), "--listen", f"127.0.0.1:{taken_port}"])
    assert caught.value.code == 1
    shown = " ".join(capfd.readouterr().err.split())
    assert f"cannot listen at 127.0.0.1:{taken_port} (address already in use); choose another address with --listen" in shown


def test_it_announces_the_service_and_stops_at_a_signal(tmp_path: Path) -> None:
    settings = tmp_path / "live.toml"
    settings.write_text(
        f"[[sources]]\nname = 'still'\nurl = '{PATTERN}'\n[[sources]]\nname = 'far'\nurl = 'rtsp://u:s3cret@127.0.0.1:1/a'\n"
        "[[sources]]\nname = 'path'\nurl = 'rtsp://127.0.0.1:1/user=admin&password=s3cret'\n"
        "[[sources]]\nname = 'key'\nurl = 'rtmp://127.0.0.1:1/live/s3cret'\n"
        "[[sources]]\nname = 'graph'\nurl = 'lavfi:movie=rtsp\\://u\\:s3cret@127.0.0.1\\:1/a'\n"
        "[mqtt]\nhost = '127.0.0.1'\nport = 1\nusername = 'u'\npassword = 's3cret'\n"
        "[redis]\nurl = 'redis://127.0.0.1:2'\npassword = 's3cret'\n"
    )
    command = [sys.executable, "-m", "apexstream", "live", "--config", str(settings)]
    command += ["--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--processes", "0"]
    command += ["--publish", "redis://127.0.0.1:1/3", "--node", "desk-2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            printed = "".join(iter(process.stdout.readline, "SIGTERM ends it.\n"))
            log = []
            for line in process.stderr:
                log.append(line)
                seen = "".join(log)
                awaited = [f"{name}: reconnecting" for name in ("far", "path", "key", "graph")]
                awaited += [f"{outlet}: failing" for outlet in ("mqtt", "redis")]
                if all(part in seen for part in ("still: live (160 x 120)", *awaited)):
                    break
            process.send_signal(signal.SIGTERM)
            log += process.stderr.readlines()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert "page     http://127.0.0.1:" in printed and "events   ws://127.0.0.1:" in printed
    assert f"sources  still: {PATTERN}" in printed and "far: rtsp://127.0.0.1:1/a" in printed
    assert str(tmp_path / "data" / "events.sqlite3") in printed
    assert "outlets  mqtt: mqtt://127.0.0.1:1, topics apexstream/..." in printed
    assert "redis: redis://127.0.0.1:1/3, node desk-2" in printed
    assert "redis: failing: redis://127.0.0.1:1/3 cannot be reached: connection refused; it is tried again" in "".join(log)
    assert "mqtt: failing: mqtt://127.0.0.1:1 cannot be reached: connection refused; it is tried again" in "".join(log)
    assert "s3cret" not in printed + "".join(log)
    assert "ended in" in log[-1]


WIDE = "http://yard.local/video?resolution=640x480"
"""Has a query, and no secret."""


def test_an_address_with_a_password_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOOR", "rtsp://u:s3cret@door.local/a")
    found = with_sources(LiveSettings(), ["env:DOOR", "rtsp://u:0ther@hall.local/a", WIDE], loop=False, transport="tcp").sources
    assert [(source.name, source.url) for source in found][:2] == [
        ("door.local", "rtsp://u:s3cret@door.local/a"),
        ("hall.local", "rtsp://u:0ther@hall.local/a"),
    ]
    warned = capsys.readouterr().err
    assert warned.count("every user of this machine can see the password of rtsp://hall.local/a") == warned.count("\n") == 1
    assert "0ther" not in warned and "s3cret" not in warned
    with pytest.raises(SourceError, match="env:NONE: the environment variable is not set"):
        with_sources(LiveSettings(), ["env:NONE"], loop=False, transport="tcp")


def test_options_and_sources_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[LiveSettings] = []
    monkeypatch.setattr("apexstream.commands.live.run", lambda settings, **_: seen.append(settings))
    monkeypatch.setenv("APEXSTREAM_SOURCES", f"rtsp://u:s3cret@door.local/a\n {PATTERN}")
    monkeypatch.setenv("APEXSTREAM_LISTEN", "127.0.0.1:9000")
    settings = tmp_path / "live.toml"
    settings.write_text("evidence_events = 7\n[[sources]]\nurl = '1'\n")
    monkeypatch.setenv("APEXSTREAM_CONFIG", str(settings))
    for args in ([], ["--listen", ":9001", "0"]):
        with pytest.raises(SystemExit) as ended:
            main(["live", *args])
        assert ended.value.code == 0
    assert [source.url for source in seen[0].sources] == ["rtsp://u:s3cret@door.local/a", PATTERN]
    assert (seen[0].server.port, seen[0].evidence_events) == (9000, 7)
    assert ([source.url for source in seen[1].sources], seen[1].server.port) == (["0"], 9001)
    assert capsys.readouterr().err == ""  # nobody else sees the environment's password
    monkeypatch.setenv("APEXSTREAM_LISTEN", "9000")
    with pytest.raises(SystemExit) as ended:
        main(["live"])
    assert ended.value.code == 2


def test_the_log_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(debug=False)
    logging.getLogger("stream").warning("%s is live", "a\x1b[2Jb\x9bc")
    assert "a\\x1b[2Jb\\x9bc is live" in capsys.readouterr().err


def test_the_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["live", "--help"])
    shown = capsys.readouterr().out
    assert "A file given here must exist; one in the settings is waited for" in " ".join(shown.replace("│", " ").split())
    for word in (
        "--config",
        "--listen",
        "--data",
        "--loop",
        "--transport",
        "--token-file",
        "--certificate",
        "--processes",
        "--open",
        "rtsp://",
    ):
        assert word in shown
