"""The files of deployment, without building anything: what they name exists, and the system's own checker accepts the unit.

`python -m tests.soak.containers` builds and runs them.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apexstream.cli import COMMANDS, load
from engine.mesh import bundle
from stream.outlets.settings import REDIS_PASSWORD, REDIS_PASSWORD_FILE, REDIS_USERNAME
from stream.settings import TOKEN_VARIABLE, ServerSettings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "configs" / "deploy"
IMAGES = sorted(DEPLOY.glob("Containerfile*"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNIT = DEPLOY / "apexstream@.service"
EXPOSURE = 25
"""Of `systemd-analyze security`, tenths; 18 for this unit (systemd 252). Less is better, 50 is called medium."""


def instructions(path: Path) -> list[tuple[str, str]]:
    """What a Containerfile says, continued lines joined: (instruction, arguments)."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def arguments(path: Path, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(path) if word == instruction]


def known_variables() -> set[str]:
    """What the program reads from the environment."""
    options = {variable for name in ("live", "hub") for one in load(name).params for variable in [one.envvar] if variable}
    return options | {TOKEN_VARIABLE, bundle.VARIABLE, REDIS_USERNAME, REDIS_PASSWORD, REDIS_PASSWORD_FILE}


def named_variables() -> Iterator[tuple[str, str]]:
    for path in IMAGES:
        yield from ((path.name, name) for rest in arguments(path, "ENV") for name in re.findall(r"(\w+)=", rest))
    for name, service in COMPOSE["services"].items():
        yield from ((name, variable) for variable in service["environment"])
    for text in (UNIT.read_text(), *(path.read_text() for path in DEPLOY.glob("*.env"))):
        yield from (("a unit or .env", name) for name in re.findall(r"^#?(APEXSTREAM_\w+)=", text, re.MULTILINE))


def test_every_variable_is_one_that_the_program_reads() -> None:
    """One that is set by compose.yaml alone is read there."""
    read_by_compose = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    unknown = {
        (where, name)
        for where, name in named_variables()
        if name.startswith("APEXSTREAM_") and name not in known_variables() | read_by_compose
    }
    assert not unknown
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "compose.env").read_text(), re.MULTILINE))
    assert given == read_by_compose - {"APEXSTREAM_IMAGE"}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_is_made_of_what_there_is(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for rest in arguments(path, "COPY"):
        if not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    asked = [rest.partition("=")[2] for rest in arguments(path, "ARG") if rest.startswith("EXTRAS=")]
    asked += re.findall(r'"apexstream\[([\w,]+)\]"', path.read_text())
    assert asked and all(extra in extras for one in asked for extra in one.split(","))
    assert arguments(path, "USER")[-1] == "apexstream"


def test_the_health_check_asks_where_the_service_listens() -> None:
    path = DEPLOY / "Containerfile"
    port = str(ServerSettings().port)
    assert arguments(path, "EXPOSE") == [port]
    assert f"APEXSTREAM_LISTEN=0.0.0.0:{port}" in arguments(path, "ENV")[-1]
    command = json.loads(arguments(path, "HEALTHCHECK")[0].partition("CMD ")[2])
    assert f"127.0.0.1:{port}/healthz" in command[-1]
    compile(command[-1], "health check", "exec")
    assert COMPOSE["services"]["hub"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_runs_commands_that_exist_and_keeps_what_they_store() -> None:
    services, volume = COMPOSE["services"], arguments(DEPLOY / "Containerfile", "VOLUME")[0]
    assert set(services) == {"redis", "hub", "node-1", "node-2"}
    for name, service in services.items():
        if name != "redis":
            assert service["command"] in COMMANDS and service["cap_drop"] == ["ALL"] and service["read_only"]
            assert service["volumes"] == [f"{name}:{volume}"]
            assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert set(COMPOSE["volumes"]) == set(services)
    address = services["hub"]["environment"]["APEXSTREAM_SUBSCRIBE"]
    assert {services[node]["environment"]["APEXSTREAM_PUBLISH"] for node in ("node-1", "node-2")} == {address}


@pytest.mark.parametrize("password", ["s3cret", 'it\'s "s3cret" \\n $HOME `id` #1 '])
def test_redis_accepts_its_configuration_and_keeps_the_password_to_itself(tmp_path: Path, password: str) -> None:
    """The command of compose.yaml, run here but for its folder and on a port of its own; any password that one line holds."""
    shell, option, script = COMPOSE["services"]["redis"]["command"]
    script = script.replace("$$", "$").replace("dir /data", f"dir {tmp_path}\nport 0\nunixsocket {tmp_path}/socket")
    environment = {"PATH": "/usr/bin:/bin", "REDIS_PASSWORD": password, "REDISCLI_AUTH": password}
    with subprocess.Popen([shell, option, script], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("ready to accept connections" in line for line in process.stdout)
            ask = ["redis-cli", "-s", f"{tmp_path}/socket"]
            kept = subprocess.run([*ask, "config", "get", "*"], env=environment, capture_output=True, text=True, check=True)
            settings = dict(zip(*2 * [iter(kept.stdout.splitlines())], strict=True))
            shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        finally:
            process.terminate()
    assert (settings["appendonly"], settings["maxmemory-policy"]) == ("yes", "noeviction")
    assert "s3cret" not in shown


def test_the_system_accepts_the_unit(tmp_path: Path) -> None:
    program = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")).partition("=")[2]
    path, instance = shlex.split(program)
    assert instance == "%i"
    for command in ("live", "hub"):
        unit = tmp_path / f"apexstream@{command}.service"
        unit.write_text(UNIT.read_text().replace(path, sys.executable))
        verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        assert (verified.returncode, verified.stderr) == (0, "")
    check = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
