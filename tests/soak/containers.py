"""Builds the image for CPUs, analyses a video in it, and runs the whole of compose.yaml: Redis, two nodes, the hub.

    python -m tests.soak.containers [--folder DIR] [--json FILE]

Needs root and Debian's podman, buildah, runc, netavark, aardvark-dns, iptables and mmdebstrap, and podman-compose from PyPI. No
registry of images is needed: Debian's packages make the base image (mmdebstrap), and the one that stands for redis:7-bookworm.
The results of a clip must be the same in the container as here; each node plays the clip to its end and is then stopped in
order, so that Redis has all of its events, and the hub must serve each of them; `podman healthcheck run`, which runs what the
images and compose.yaml say, must find all four well.
"""

from __future__ import annotations

import json as json_module
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from apexstream.bench.live_process import import_environment
from engine.errors import ApexError
from tests.soak import ROOT
from tests.soak.command import Record, command_line, finish, unmet

DEPLOY = ROOT / "configs" / "deploy"
BASE, REDIS, IMAGE = "docker.io/library/debian:12-slim", "docker.io/library/redis:7-bookworm", "localhost/apexstream"
HUB = "http://127.0.0.1:8765"
TOKEN = "a-token-of-this-soak"
PASSWORD = 'a "password" of this soak'
NODES = ("node-1", "node-2")
SERVICES = ("redis", *NODES, "hub")
PATIENCE_S = 600.0
SUITE = "bookworm"
REDIS_FILE = f"FROM {BASE}\nRUN apt-get update && apt-get install -y --no-install-recommends redis-server\nWORKDIR /data\n"
CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclass(frozen=True)
class Engine:
    """podman and buildah with images and settings of their own, in a folder."""

    folder: Path

    def prepare(self) -> None:
        """Write the settings."""
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/storage"\nrunroot = "{self.folder}/run"\n'
        (self.folder / "storage.conf").write_text(storage)
        (self.folder / "containers.conf").write_text(CONTAINERS_CONF)

    def run(self, *command: str, quiet: bool = False) -> str:
        """The output of a command of theirs. Raises ApexError with the end of what it printed where it fails."""
        settings = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf"}
        environment = {**os.environ, **{name: str(self.folder / file) for name, file in settings.items()}}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode and not quiet:
            raise ApexError(f"{' '.join(command[:3])} ... failed: {ran.stderr[-2000:]}")
        return ran.stdout

    def build(self, containerfile: Path, tag: str, *options: str) -> float:
        """Build an image on the host's network and with its certificates; the seconds that took."""
        started = time.monotonic()
        certificates = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        if Path("/etc/pip.conf").is_file():
            certificates += ["--volume", "/etc/pip.conf:/etc/pip.conf:ro"]
        isolation = ["--isolation", "chroot", "--network", "host", "--format", "docker"]
        self.run(
            "buildah", "bud", "--layers", *isolation, *certificates, *options, "-f", str(containerfile), "-t", tag, str(ROOT)
        )
        return round(time.monotonic() - started, 1)

    def has(self, image: str) -> bool:
        """Whether there is such an image."""
        return bool(self.run("podman", "images", "-q", image).strip())


def base_images(engine: Engine) -> None:
    """The images that a registry would have, from Debian's packages."""
    if not engine.has(BASE):
        archive = engine.folder / "base.tar"
        engine.run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(archive))
        engine.run("podman", "import", str(archive), BASE)
        archive.unlink()
    if not engine.has(REDIS):
        (engine.folder / "Redisfile").write_text(REDIS_FILE)
        engine.build(engine.folder / "Redisfile", REDIS)


def analysed(engine: Engine, clip: Path) -> dict[str, Any]:
    """The events of a clip, by the image and by this checkout."""
    results = engine.folder / "here"
    command = [sys.executable, "-m", "apexstream", "analyze", str(clip), "--out", str(results)]
    subprocess.run(command, check=True, capture_output=True, env=import_environment())
    here = (results / clip.stem / "events.jsonl").read_text()
    shell = f"apexstream analyze /videos/{clip.name} --out results >&2 && cat results/{clip.stem}/events.jsonl"
    mounted = ["-v", f"{clip.parent}:/videos:ro", "--entrypoint", "sh"]
    there = engine.run("podman", "run", "--rm", "--network", "host", *mounted, IMAGE, "-c", shell)
    return {"events": len(here.splitlines()), "events_are_equal": here == there}


def composed(engine: Engine, clip: Path) -> dict[str, Any]:
    """compose.yaml as it is, but for the folder with the clip, which both nodes play: what the hub serves, and who is well."""
    expected = len((engine.folder / "here" / clip.stem / "events.jsonl").read_text().splitlines())
    mounted = {node: {"volumes": [f"{clip.parent}:/videos:ro"]} for node in NODES}
    (engine.folder / "clip.yaml").write_text(json_module.dumps({"services": mounted}))
    settings = {"APEXSTREAM_TOKEN": TOKEN, "REDIS_PASSWORD": PASSWORD}
    settings |= dict.fromkeys(("NODE_1_SOURCES", "NODE_2_SOURCES"), f"/videos/{clip.name}")
    (engine.folder / "env").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
    compose = [sys.executable, "-m", "podman_compose", "--env-file", str(engine.folder / "env")]
    compose += ["-f", str(DEPLOY / "compose.yaml"), "-f", str(engine.folder / "clip.yaml")]
    started = time.monotonic()
    try:
        engine.run(*compose, "up", "-d")
        _until(lambda: _states("streams") == ["ended"] * len(NODES), "the end of the clip at both nodes")
        passed = round(time.monotonic() - started, 1)
        well = {service: _well(engine, service) for service in SERVICES}
        shown = engine.run("podman", "exec", "apexstream_redis_1", "cat", "/proc/1/cmdline")
        engine.run(*compose, "stop", *NODES)
        _until(lambda: _states("nodes") == ["ended"] * len(NODES), "both nodes to have ended in order")
        published = _published(engine)
        _until(lambda: _events_by_node() == published, f"the events {published} at the hub")
    finally:
        engine.run(*compose, "down", "-v", quiet=True)
    return {
        "events_by_node": published,
        "expected": expected,
        "seconds": passed,
        "healthy": well,
        "password_shown": "soak" in shown,
    }


def _asked(path: str) -> str:
    """What the hub answers; nothing while it does not."""
    asked = urllib.request.Request(f"{HUB}/api/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _states(what: str) -> list[str]:
    """The states of the streams, or nodes, that the hub shows."""
    return [str(one["state"]) for one in json_module.loads(_asked("streams") or "{}").get(what, ())]


def _events_by_node() -> dict[str, int]:
    """How many final events the hub has of each node."""
    nodes = [json_module.loads(line)["node"] for line in _asked("events?since=0&format=jsonl").splitlines()]
    return {node: nodes.count(node) for node in NODES}


def _published(engine: Engine) -> dict[str, int]:
    """How many events Redis has of each node."""
    count = "export REDISCLI_AUTH=$REDIS_PASSWORD; redis-cli --scan --pattern apexstream:events:{}:* | xargs redis-cli xlen"
    return {node: int(engine.run("podman", "exec", "apexstream_redis_1", "sh", "-c", count.format(node))) for node in NODES}


def _until(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > until:
            raise ApexError(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(1)


def _well(engine: Engine, service: str) -> bool:
    engine.run("podman", "healthcheck", "run", f"apexstream_{service}_1", quiet=True)
    state = engine.run("podman", "inspect", "--format", "{{.State.Healthcheck.Status}}", f"apexstream_{service}_1", quiet=True)
    return state.strip() == "healthy"


def violations(found: dict[str, Any]) -> list[str]:
    """What is not as it should be, in sentences."""
    analysis, fleet = found["analysis"], found["compose"]
    checks = {
        "the clip has no events": analysis["events"] > 0,
        "the events of the clip differ between container and checkout": analysis["events_are_equal"],
        "a list of processes shows Redis' password": not fleet["password_shown"],
    }
    for node, count in fleet["events_by_node"].items():  # live, frames are dropped where cores are busy
        checks[f"{node} has {count} events, not {fleet['expected']}"] = abs(count - fleet["expected"]) <= 1
    checks |= {f"{service} is not healthy": well for service, well in fleet["healthy"].items()}
    return unmet(checks)


def measure(folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Build, analyse, compose; folder keeps the images."""
    from apexstream.clips import preset, write_clip

    engine = Engine(folder)
    engine.prepare()
    clips = folder / "videos"
    clips.mkdir(exist_ok=True)
    write_clip(preset("benchmark", "hopper", 30, seed=1, duration_s=20, size=(640, 360)), clips / "clip.mp4")
    report("making the base images")
    base_images(engine)
    report("building the image")
    built = engine.build(DEPLOY / "Containerfile", IMAGE)
    size = int(engine.run("podman", "inspect", "--format", "{{.Size}}", IMAGE))
    report("analysing")
    analysis = analysed(engine, clips / "clip.mp4")
    report("composing")
    fleet = composed(engine, clips / "clip.mp4")
    return {"image_mb": round(size / 1e6), "build_s": built, "analysis": analysis, "compose": fleet}


def main(
    *,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep images here, for the next time.", show_default=False)
    ] = None,
    json: Record = None,
) -> None:
    """Build and run, and say what is not as it should be."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as scratch:
        place = (folder or Path(scratch)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        found = measure(place, console.print)
        if folder is None:
            subprocess.run(["umount", "-q", str(place / "storage/overlay")], check=False, capture_output=True)
    versions = {name: _version(name) for name in ("podman", "buildah", "runc")}
    console.print(found)
    record = {"command": "python -m tests.soak.containers", "versions": versions, "load": round(os.getloadavg()[0], 1), **found}
    finish(record, violations(found), json)


def _version(program: str) -> str:
    printed: Sequence[str] = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return next(word for word in printed if word[:1].isdigit())


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
