from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from apexstream.cli import main
from tests.live import PATIENCE_S
from tests.redis_server import redis_server

ROOT = Path(__file__).resolve().parents[4]
SECRET = "s3cret-word"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of a fleet in the environment, and logging as it was."""
    for name in ("TOKEN", "SUBSCRIBE", "REDIS_PASSWORD", "REDIS_USERNAME", "REDIS_CA"):
        monkeypatch.delenv(f"APEXSTREAM_{name}", raising=False)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "--subscribe URL is missing"),
        (["--subscribe", "http://a"], 1, "redis.url: an address like redis://HOST:PORT/DB is expected"),
        (["--subscribe", f"redis://me:{SECRET}@a"], 1, "put user name and password into APEXSTREAM_REDIS_USERNAME"),
        (["--subscribe", "redis://a", "--redis-ca", "a.pem"], 1, "ca, certificate and key need an address with rediss://"),
        (["--subscribe", "rediss://a", "--redis-ca", "none.pem"], 1, "none.pem cannot be read"),
        (["--subscribe", "redis://a", "--listen", "0.0.0.0:0"], 1, "needs a token"),
        (["--config", "none.toml"], 1, "none.toml cannot be read"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], code: int, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["hub", "--data", str(tmp_path), *arguments])
    shown = " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert caught.value.code == code
    assert expected in shown and "Traceback" not in shown and SECRET not in shown


def test_settings_that_a_hub_does_not_have_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hub.toml").write_text("[mqtt]\nhost = 'a'\n[redis]\nurl = 'redis://a'\n")
    with pytest.raises(SystemExit):
        main(["hub", "--config", str(tmp_path / "hub.toml")])
    assert "there is no setting mqtt; there are server, store, redis" in " ".join(capfd.readouterr().err.split())


def test_it_serves_until_a_signal_and_shows_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEXSTREAM_REDIS_PASSWORD", SECRET)
    with redis_server(tmp_path, "--requirepass", SECRET) as server:
        monkeypatch.setenv("APEXSTREAM_SUBSCRIBE", server.url)
        command = [sys.executable, "-m", "apexstream", "hub", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "hub")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            try:
                assert process.stdout is not None and process.stderr is not None
                printed = "".join(iter(process.stdout.readline, "SIGTERM ends it.\n"))
                log = [next(line for line in process.stderr if f"connected to {server.url}" in line)]
                url = next(line.split()[1] for line in printed.splitlines() if line.strip().startswith("page"))
                with urllib.request.urlopen(f"{url}api/streams", timeout=PATIENCE_S) as answer:
                    streams = json.load(answer)
                process.send_signal(signal.SIGTERM)
                log += process.stderr.readlines()
                assert process.wait(PATIENCE_S) == 0
            finally:
                process.kill()
    assert (streams["nodes"], streams["problem"]) == ([], None)
    assert f"nodes    of {server.url}" in printed and str(tmp_path / "hub" / "events.sqlite3") in printed
    assert SECRET not in printed + "".join(log)
