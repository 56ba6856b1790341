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
from apexstream.commands.live import HERE, log_to_stderr, served_at, split_address, with_processes, with_sources
from engine.errors import SourceError
from stream.settings import LiveSettings, ServerSettings, load_live_settings
from tests.live import PATIENCE_S
from tests.videos import stepping, write_video

ROOT = Path(__file__).resolve().parents[4]
PATTERN = "lavfi:testsrc=size=160x120:rate=25"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
def test_where_to_listen_is_host_and_port(given: str, expected: tuple[str, int]) -> None:
    assert split_address(given) == expected


def test_the_help_says_where_the_settings_would_serve() -> None:
    assert split_address(HERE) == (ServerSettings().host, ServerSettings().port)


@pytest.mark.parametrize("given", ["8765", "host", "host:", "host:http", "host:99999", "::1:8765", "host:-1", ""])
def test_what_is_no_address_is_told(given: str) -> None:
    with pytest.raises(typer.BadParameter):
        split_address(given)


def test_the_command_line_goes_before_the_settings(tmp_path: Path) -> None:
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
    server = served_at(settings, "[::1]:1234", tmp_path / "token", tmp_path / "c.pem", tmp_path / "k.pem").server
    assert (server.host, server.port, server.token, server.token_file) == ("::1", 1234, None, tmp_path / "token")
    assert (server.certificate, server.key) == (tmp_path / "c.pem", tmp_path / "k.pem")
    assert served_at(settings, None, None, None, None) == settings
    with pytest.raises(typer.BadParameter, match="go together"):
        served_at(LiveSettings(server=ServerSettings()), None, None, tmp_path / "c.pem", None)


@pytest.mark.parametrize(("given", "expected"), [(None, 7), ("auto", "auto"), ("0", 0), ("4", 4)])
def test_processes_are_those_given_else_the_settings(given: str | None, expected: int | str) -> None:
    assert with_processes(LiveSettings(processes=7), given).processes == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [("none.mp4", "none.mp4 is no file"), (".", "is a folder"), ("pigeon://a:secret@b", "pigeon:// are not")],
)
def test_what_is_no_source_is_told_before_anything_starts(source: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        with_sources(LiveSettings(), [source], loop=False, transport="tcp")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "ends", "said"),
    [
        (["none.mp4"], 1, "none.mp4 is no file"),
        ([PATTERN, "--listen", "8765"], 2, "is not HOST:PORT"),
        ([PATTERN, "--listen", "0.0.0.0:0"], 1, "needs a token"),
        ([PATTERN, "--listen", "nosuchhost.invalid:0"], 1, "no host called nosuchhost.invalid is known here"),
        ([PATTERN, "--listen", "a..b:0"], 1, "no host called a..b is known here"),
        ([PATTERN, "--network", "alexnet"], 2, "is none of"),
        ([PATTERN, "--network", "htnet", "--weights", "a.onnx"], 2, "give one of them"),
        ([PATTERN, "--certificate", "a.pem"], 2, "go together"),
        *(([PATTERN, f"--processes={given}"], 2, "is neither auto nor a number") for given in ("-1", "257", "many", "\u00b2")),
        ([PATTERN, "--config", "none.toml"], 1, "none.toml cannot be read"),
        ([PATTERN, "--weights", "none.onnx"], 1, "none.onnx"),
        ([PATTERN, "--token-file", "none.token"], 1, "none.token cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    arguments: list[str], ends: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["live", "--data", str(tmp_path), *arguments])
    told = capfd.readouterr().err
    assert caught.value.code == ends
    assert said in " ".join(told.replace("│", " ").split()) and "Traceback" not in told


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        taken_port = taken.getsockname()[1]
        main(["live", PATTERN, "--data", str(tmp_path), "--listen", f"127.0.0.1:{taken_port}"])
    assert caught.value.code == 1
    told = " ".join(capfd.readouterr().err.split())
    assert f"{taken_port} cannot be listened at (address already in use); choose another with --listen" in told


def test_it_says_what_it_does_and_ends_when_told(tmp_path: Path) -> None:
    settings = tmp_path / "live.toml"
    settings.write_text(
        f"[[sources]]\nname = 'still'\nurl = '{PATTERN}'\n[[sources]]\nname = 'far'\nurl = 'rtsp://u:s3cret@127.0.0.1:1/a'\n"
        "[[sources]]\nname = 'path'\nurl = 'rtsp://127.0.0.1:1/user=admin&password=s3cret'\n"
        "[[sources]]\nname = 'key'\nurl = 'rtmp://127.0.0.1:1/live/s3cret'\n"
        "[[sources]]\nname = 'graph'\nurl = 'lavfi:movie=rtsp\\://u\\:s3cret@127.0.0.1\\:1/a'\n"
    )
    command = [sys.executable, "-m", "apexstream", "live", "--config", str(settings)]
    command += ["--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--processes", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            said = "".join(iter(process.stdout.readline, "SIGTERM ends it.\n"))
            log = []
            for line in process.stderr:
                log.append(line)
                seen = "".join(log)
                troubled = all(f"{name}: reconnecting" in seen for name in ("far", "path", "key", "graph"))
                if "still: live (160 x 120)" in seen and troubled:
                    break
            process.send_signal(signal.SIGTERM)
            log += process.stderr.readlines()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert "page     http://127.0.0.1:" in said and "events   ws://127.0.0.1:" in said
    assert f"sources  still: {PATTERN}" in said and "far: rtsp://127.0.0.1:1/a" in said
    assert str(tmp_path / "data" / "events.sqlite3") in said
    assert "s3cret" not in said + "".join(log)
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
    with pytest.raises(SourceError, match="env:NONE: there is no such environment variable"):
        with_sources(LiveSettings(), ["env:NONE"], loop=False, transport="tcp")


def test_a_log_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(debug=False)
    logging.getLogger("stream").warning("%s is live", "a\x1b[2Jb\x9bc")
    assert "a\\x1b[2Jb\\x9bc is live" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["live", "--help"])
    told = capsys.readouterr().out
    assert "A file given here must exist; one in the settings is waited for" in " ".join(told.replace("│", " ").split())
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
        assert word in told
