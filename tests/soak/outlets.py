"""Measures the outlets: how late events come by MQTT and LSL, and how exact the times are that LSL has of them.

A network camera, here an HTTP server, sends a rendered clip as MPEG-TS: picture k is captured at start + k / 30 and arrives
later by a delay that varies at random, as in a wireless network. The live service analyses it in a process of its own and
sends to a Mosquitto broker and to LSL. Of each onset, apex and offset, LSL's time is compared with that at which the camera
captured the picture:

    constant   the median of the difference: the least delay, and what MPEG-TS and the decoder wait for further pictures
    jitter     what differs from the median, which is the estimate's own error

Needs the extras lsl and mqtt and the program mosquitto.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import av
import typer
from rich.console import Console

from apexstream.bench.live_process import LiveProcess
from tests.broker import broker, receiver
from tests.soak.command import Record, command_line, finish, spread, unmet

FPS = 30
LEAST_DELAY_S, MEAN_JITTER_S, HICCUP_S, HICCUPS = 0.01, 0.01, 0.15, 0.02
"""A picture is LEAST_DELAY_S late, more by an exponential distribution, and two of a hundred by HICCUP_S more."""
MAX_JITTER_MS, MAX_LATENCY_MS = 5.0, 100.0
SAFETY_S = 20.0
EVENT = "apexstream/camera/event"


def pieces(video: Path) -> Iterator[bytes]:
    """A video's pictures, encoded without reordering, each as the bytes of MPEG-TS that carry it."""
    buffer = io.BytesIO()
    with av.open(str(video)) as source, av.open(buffer, "w", format="mpegts", options={"flush_packets": "1"}) as target:
        stream = target.add_stream("libx264", rate=FPS, options={"tune": "zerolatency", "preset": "veryfast", "crf": "18"})
        stream.width, stream.height = source.streams.video[0].width, source.streams.video[0].height
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(source.decode(video=0)):
            frame.pts, frame.time_base = number, 1 / stream.codec_context.framerate
            target.mux(stream.encode(frame))
            yield _taken(buffer)
        target.mux(stream.encode(None))
        yield _taken(buffer)


def _taken(buffer: io.BytesIO) -> bytes:
    data = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return data


def delays(count: int, seed: int) -> list[float]:
    """How late each picture arrives, seconds; none before the one before it is due."""
    chosen = random.Random(seed)
    return [
        LEAST_DELAY_S + chosen.expovariate(1 / MEAN_JITTER_S) + (HICCUP_S if chosen.random() < HICCUPS else 0.0)
        for _ in range(count)
    ]


@dataclass
class Camera:
    """The camera; started is the monotonic time at which it captured its first picture: once a client has connected, and
    awaited is set, as all who measure listen."""

    pictures: Sequence[bytes]
    late: Sequence[float]
    started: float | None = None
    awaited: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    _clients: int = 0

    def serve(self) -> http.server.ThreadingHTTPServer:
        """A server of the one stream, on a free port and a thread of its own."""
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                camera.send(self.wfile)

            def log_message(self, format: str, *args: object) -> None:
                return

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def send(self, to: Any) -> None:
        """Send each picture when it arrives; to one client only, the last that has connected by the start."""
        self._clients += 1
        mine = self._clients
        self.awaited.wait()
        if self.started is not None or mine != self._clients:
            return
        waiting, start = threading.Event(), time.monotonic()
        self.started = start
        try:
            for number, (picture, late) in enumerate(zip(self.pictures, self.late, strict=True)):
                waiting.wait(max(0.0, start + number / FPS + late - time.monotonic()))
                to.write(picture)
                to.flush()
        except OSError:
            return  # the service has ended
        finally:
            self.done.set()


def figures(samples: Sequence[tuple[dict[str, Any], float]], started: float, mqtt_ms: Sequence[float]) -> dict[str, Any]:
    """What is judged and recorded: of LSL's events (JSON, wall-clock time of receipt) and the delays by MQTT."""
    differences = [
        1000 * (event["lsl"][moment] - started - event[moment]["frame"] / FPS)
        for event, _ in samples
        for moment in ("onset", "apex", "offset")
    ]
    constant = median(differences) if differences else float("nan")
    return {
        "expressions": len(samples),
        "lsl_constant_ms": round(constant, 2),
        "lsl_jitter_ms": spread([abs(one - constant) for one in differences], 2),
        "lsl_latency_ms": spread([1000 * (received - unix(event["emitted_at"])) for event, received in samples], 1),
        "mqtt_latency_ms": spread(mqtt_ms, 1),
    }


def unix(text: str) -> float:
    """Seconds of the Unix epoch."""
    return datetime.fromisoformat(text).timestamp()


def violations(found: dict[str, Any]) -> list[str]:
    """What is not within the limits, in sentences."""
    if not found["expressions"] or not found["mqtt_latency_ms"]["count"]:
        return ["no expression came"]
    jitter = found["lsl_jitter_ms"]["p95"]
    late = max(found[name]["p95"] for name in ("lsl_latency_ms", "mqtt_latency_ms"))
    checks = {
        f"95 of 100 of LSL's times differ by up to {jitter:g} ms from the constant delay": jitter <= MAX_JITTER_MS,
        f"95 of 100 events came within {late:g} ms": late <= MAX_LATENCY_MS,
    }
    return unmet(checks)


class _Inlet:
    """Collects the events of one LSL stream, with the wall-clock time of their receipt."""

    def __init__(self, name: str) -> None:
        import pylsl

        self.got: list[tuple[dict[str, Any], float]] = []
        found = pylsl.resolve_byprop("name", name, timeout=SAFETY_S)
        if not found:
            raise RuntimeError(f"there is no LSL stream {name}")
        self._inlet = pylsl.StreamInlet(found[0])
        self._inlet.open_stream(timeout=SAFETY_S)
        self._came = threading.Condition()  # guards got
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            sample, _ = self._inlet.pull_sample(timeout=0.2)
            if sample is not None:
                with self._came:
                    self.got.append((json.loads(sample[0]), time.time()))
                    self._came.notify_all()

    def until(self, count: int) -> None:
        """Wait until so many have come, or SAFETY_S."""
        with self._came:
            self._came.wait_for(lambda: len(self.got) >= count, SAFETY_S)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def measure(camera: Camera, folder: Path) -> dict[str, Any]:
    """Run the service on the camera until its last picture; the figures."""
    server = camera.serve()
    config = folder / "live.toml"
    with broker(folder) as mqtt, receiver(mqtt.port) as got:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        config.write_text(
            f'[[sources]]\nname = "camera"\nurl = "{url}"\n[lsl]\n[mqtt]\nhost = "127.0.0.1"\nport = {mqtt.port}\n'
        )
        with LiveProcess([], "--config", str(config), data=folder):
            inlet = _Inlet("apexstream camera events")
            camera.awaited.set()
            camera.done.wait()
            got.until(lambda: got.last("apexstream/camera/state") != "live", "the end of the pictures")
            inlet.until(len(got.of(EVENT)))
        got.until(lambda: got.last("apexstream/status") == "offline", "the end of the service")
        inlet.close()
        late = [
            1000 * (at - unix(json.loads(message.payload)["emitted_at"]))
            for message, at in zip(got.got, got.at, strict=True)
            if message.topic == EVENT
        ]
    server.shutdown()
    assert camera.started is not None
    return figures(inlet.got, camera.started, late)


def main(
    *,
    seconds: Annotated[float, typer.Option(help="Length of the clip.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Another number is another clip and other delays.")] = 0,
    json: Record = None,
) -> None:
    """Render a clip, send it, and compare times and delays with their limits."""
    from apexstream.clips import preset, write_clip

    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="apexstream-soak-") as name:
        folder = Path(name)
        console.print(f"rendering {seconds:g} s")
        write_clip(preset("benchmark", "hopper", FPS, seed=seed, duration_s=seconds, size=(640, 480)), folder / "clip.mp4")
        pictures = list(pieces(folder / "clip.mp4"))
        load = os.getloadavg()[0]
        console.print("sending it")
        found = measure(Camera(pictures, delays(len(pictures), seed)), folder)
    console.print(found)
    command = f"python -m tests.soak.outlets --seconds {seconds:g} --seed {seed}"
    load_now = [round(load, 1), round(os.getloadavg()[0], 1)]
    finish({"command": command, "cores": os.cpu_count(), "load": load_now, **found}, violations(found), json)


app = command_line(main, __doc__)

if __name__ == "__main__":
    app()
