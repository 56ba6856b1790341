"""Attacks the live service at random while two cameras show it faces and three clients follow, and counts what it loses.

    python -m tests.soak.attacks [--minutes 20] [--seed 0] [--attack NAME ...] [--json FILE]

The service is the real one: a process of its own and two for its sources, TLS and a token, `[store] recreate`, 20,000 made-up
events stored before. Its cameras are network cameras (MJPEG) that play rendered faces at 15 pictures a second; a third one is
hostile. Each attack of `client_attacks` and `service_attacks` comes once, in a random order, then once again, and so on; from
the second round on two come at once every fourth time or so. Between attacks are 7 to 11 s without.

Judged: no event that was stored is missed by a client, none comes twice or was sent and not stored; in each stretch without an
attack a camera's pictures are analysed at 90 % of the rate before the first attack or more; memory (resident, of all processes,
what they share counted in each) outside attacks has grown by 10 % at most from the two minutes after the first round of all
attacks, which loads code and fills caches, to the last two; no more descriptors than then; /healthz within 5 s always; no
traceback in the log; and what each attack must see.

A clock that is wrong is left to the tests of `stream.events.retention`: the machine's own would have to be set.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sqlite3
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psutil
import typer
from rich.console import Console
from rich.table import Table

from apexstream.bench.live_process import LiveProcess
from stream.events.database import FILE
from stream.events.store import Store
from tests.events import stored
from tests.soak import client_attacks, service_attacks
from tests.soak.attack_figures import PHOTOS, Attack, Run, Sample, figures, violations
from tests.soak.attack_target import HERE, Outcome, Target, analysed_frames
from tests.soak.cameras import Cameras, pictures_of
from tests.soak.command import Record, command_line, finish
from tests.soak.recording_client import RecordingClient

FPS, CLIP_S = 15.0, 20.0
CLIENTS = 3
FILLER = 20_000
BASELINE_S = 30.0
PAUSE_S = (7.0, 11.0)
SAMPLE_S = 1.0
TWO_AT_ONCE = 0.25
START_S = 120.0

ATTACKS: dict[str, Callable[[Target, random.Random], Outcome]] = {
    "handshakes": client_attacks.handshakes,
    "idle": client_attacks.idle,
    "costly-uploads": client_attacks.costly_uploads,
    "open-close": client_attacks.open_close,
    "unread": client_attacks.unread,
    "guesses": client_attacks.guesses,
    "malformed": client_attacks.malformed,
    "names": client_attacks.names,
    "stopped": service_attacks.stop_process,
    "moved": service_attacks.move_store,
    "overwritten": service_attacks.overwrite_store,
    "damaged": service_attacks.damage_row,
    "camera": service_attacks.attack_by_camera,
}
STORE = ("moved", "overwritten", "damaged")
"""Attacks on the store's file, of which one at a time makes sense."""


def run(
    plan: Plan, progress: Callable[[Attack], None] = lambda attack: None, *, videos: Sequence[Path] = (), filler: int = FILLER
) -> Run:
    """Attack a service by a plan; videos of faces, two, are rendered where none are given. filler events are stored before."""
    found = Run()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apexstream-soak-")))
        for name in ("data", "filler", "taken"):
            (folder / name).mkdir()
        videos = videos or [_rendered(folder / f"{photo}.mp4", photo) for photo in PHOTOS]
        fill(folder, filler)
        cameras = stack.enter_context(Cameras(videos))
        settings, trust, token = _configured(folder, cameras)
        service = stack.enter_context(LiveProcess([], "--config", str(settings), data=folder / "data"))
        target = Target(
            port=urlsplit(service.url).port or 0,
            tls=trust,
            token=token,
            folder=folder / "data",
            beside=folder / "taken",
            cameras=cameras,
            names=PHOTOS,
            service=service,
            filler=filler,
            jpegs=pictures_of(videos[0])[0][:60],
        )
        asyncio.run(_watched(target, found, plan, progress))
        found.stored = list(kept(target))
        found.log = service.log()
    return found


@dataclass(frozen=True)
class Plan:
    """For how many seconds to attack, with what, after how many seconds without, and the shortest and longest pause."""

    seconds: float
    seed: int
    names: Sequence[str] = tuple(ATTACKS)
    baseline_s: float = BASELINE_S
    pause_s: tuple[float, float] = PAUSE_S

    def turns(self) -> Iterator[tuple[str, ...]]:
        """Names of attacks, without end: those of the first round one by one, then now and then two at once."""
        chance, first = random.Random(self.seed), True
        while True:
            deck = chance.sample(list(self.names), len(self.names))
            while deck:
                both = not first and len(deck) > 1 and chance.random() < TWO_AT_ONCE
                pair = both and not (deck[-1] in STORE and deck[-2] in STORE)
                yield tuple(deck.pop() for _ in range(2 if pair else 1))
            first = False


async def _watched(target: Target, found: Run, plan: Plan, progress: Callable[[Attack], None]) -> None:
    """Follow, sample, attack; then end the service and wait for its clients."""
    options = {"ssl": target.tls, "additional_headers": {"Authorization": f"Bearer {target.token}"}}
    clients = [RecordingClient(since=target.filler, options=options) for _ in range(CLIENTS)]
    following = [asyncio.create_task(client.watch(target.port)) for client in clients]
    try:
        async with asyncio.timeout(START_S):
            await asyncio.gather(*(client.until(target.filler + 1) for client in clients))
        began = time.monotonic() + plan.baseline_s
        sampling = asyncio.create_task(_sample(target, found, began))
        await asyncio.sleep(plan.baseline_s)
        await _run_attacks(target, found, plan, began, progress)
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        found.ended_s = await asyncio.to_thread(target.service.end)
        last = max((seq for seq, _ in kept(target)), default=target.filler)
        with contextlib.suppress(TimeoutError):  # events are missing then, which is counted
            await asyncio.gather(*(client.until(last) for client in clients))
    finally:
        target.over.set()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    found.clients = [[(int(event["seq"]), str(event["id"])) for event in client.seen] for client in clients]
    found.connections = [client.connections for client in clients]


async def _run_attacks(target: Target, found: Run, plan: Plan, began: float, progress: Callable[[Attack], None]) -> None:
    chance, done = random.Random(plan.seed + 1), set[str]()
    for turn in plan.turns():
        if time.monotonic() - began >= plan.seconds:
            return
        for attack in await asyncio.gather(
            *(_run_attack(target, name, random.Random(chance.random()), began) for name in turn)
        ):
            found.attacks.append(attack)
            progress(attack)
        done.update(turn)
        await asyncio.sleep(chance.uniform(*plan.pause_s))
        if found.round_s is None and done >= set(plan.names):
            found.round_s = time.monotonic() - began


async def _run_attack(target: Target, name: str, chance: random.Random, began: float) -> Attack:
    """One attack; one that fails by itself is a problem as well."""
    at = time.monotonic()
    try:
        outcome = await asyncio.to_thread(ATTACKS[name], target, chance)
    except (OSError, RuntimeError, sqlite3.Error, psutil.Error, ValueError) as error:
        outcome = Outcome({}, [f"the attack failed by itself ({type(error).__name__}: {error})"])
    return Attack(name, round(at - began, 2), round(time.monotonic() - began, 2), outcome)


async def _sample(target: Target, found: Run, began: float) -> None:
    while True:
        found.samples.append(await asyncio.to_thread(_sampled, target, began))
        await asyncio.sleep(SAMPLE_S)


def _sampled(target: Target, began: float) -> Sample:
    asked = time.monotonic()
    code, _ = target.ask("/healthz")
    health = time.monotonic() - asked
    before = time.monotonic()
    status, text = target.ask("/metrics")
    at = (before + time.monotonic()) / 2 - began
    used = target.service.usage()
    return Sample(
        round(at, 2),
        round(used.memory_mib, 1),
        used.handles,
        analysed_frames(text.decode()) if status == 200 else None,
        round(health, 3) if code == 200 else None,
        round(os.getloadavg()[0], 2),
        round(used.cpu_s, 2),
        round(_waited(target.service.pids), 2),
    )


def _waited(pids: Sequence[int]) -> float:
    """Seconds that the threads of processes were ready to run and had no core, by Linux' count."""
    waited = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
                waited += int(task.read_text().split()[1])
    return waited / 1e9


def _rendered(path: Path, photo: str) -> Path:
    from apexstream.clips import preset, write_clip

    write_clip(preset("benchmark", photo, FPS, seed=1, duration_s=CLIP_S, size=(320, 240), eye_px=64.0), path)
    return path


def fill(folder: Path, events: int) -> None:
    """Made-up events in the store that a service in folder/data will open, and a copy beside it."""
    with Store(folder / "data") as store:
        for first in range(0, events, 1000):
            store.append([stored(k) for k in range(first, min(first + 1000, events))])
    shutil.copy(folder / "data" / FILE, folder / "filler" / FILE)


def _configured(folder: Path, cameras: Cameras) -> tuple[Path, ssl.SSLContext, str]:
    """A settings file, what its clients trust, and their token."""
    import trustme

    issuer, token, trust = trustme.CA(), random.SystemRandom().randbytes(16).hex(), ssl.create_default_context()
    issuer.configure_trust(trust)
    mine = issuer.issue_cert(HERE)
    mine.private_key_pem.write_to_path(str(folder / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    (folder / "token").write_text(token, encoding="ascii")
    for name in ("token", "key.pem"):
        (folder / name).chmod(0o600)
    sources = zip((*PHOTOS, "hostile"), (*cameras.urls, cameras.hostile_url), strict=True)
    settings = folder / "live.toml"
    settings.write_text(
        "processes = 2\n"
        + "".join(f'[[sources]]\nname = "{name}"\nurl = "{url}"\n' for name, url in sources)
        + f'[server]\ntoken_file = "{folder / "token"}"\ncertificate = "{folder / "certificate.pem"}"\n'
        + f'key = "{folder / "key.pem"}"\n[store]\nrecreate = true\n',
        encoding="utf-8",
    )
    return settings, trust, token


def kept(target: Target) -> Iterator[tuple[int, str]]:
    """Seq and id of every event in any file of the run's, those made up aside."""
    for path in (target.folder / FILE, *sorted(target.beside.glob(f"*/{FILE}"))):
        with contextlib.closing(sqlite3.connect(path)) as db:
            for seq, body in db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (target.filler,)):
                yield int(seq), target.taken.get(int(seq)) or str(json.loads(body)["id"])


def _table(of: dict[str, Any]) -> Table:
    table = Table("", "at the start", "at the end", title=f"{sum(of['attacks'].values())} attacks")
    for name in ("memory_mib", "handles"):
        table.add_row(name, str(of[name]["start"]), str(of[name]["end"]))
    for name, camera in of["cameras"].items():
        table.add_row(f"{name}, frames a second", str(camera["fps_before"]), f"{camera['fps_between']} between attacks")
    return table


def main(
    *,
    minutes: Annotated[float, typer.Option(help="How long.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the attacks' order and details.")] = 0,
    attack: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This attack only; repeatable.")] = None,
    json: Record = None,
) -> None:
    """Attack a service, and compare what it lost and what it holds with the limits."""
    if unknown := sorted(set(attack or ()) - set(ATTACKS)):
        raise typer.BadParameter(f"there is no attack {unknown[0]}; there are {', '.join(ATTACKS)}", param_hint="--attack")
    console = Console(stderr=True)

    def progress(ended: Attack) -> None:
        problems = f"  {'; '.join(ended.outcome.problems)}" if ended.outcome.problems else ""
        console.print(f"{ended.began:6.0f} s  {ended.name}, {ended.ended - ended.began:.1f} s: {ended.outcome.facts}{problems}")

    found = run(Plan(60 * minutes, seed, tuple(attack or ATTACKS)), progress)
    of = figures(found)
    console.print(_table(of))
    console.print(of)
    chosen = "".join(f" --attack {name}" for name in attack or ())
    record = {
        "command": f"python -m tests.soak.attacks --minutes {minutes:g} --seed {seed}{chosen}",
        "cores": os.cpu_count(),
        "nice": os.nice(0),
        **of,
        "log_of_attacks": [asdict(one) for one in found.attacks],
        "samples": [asdict(one) for one in found.samples[:: max(1, len(found.samples) // 120)]],
    }
    finish(record, violations(found), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
