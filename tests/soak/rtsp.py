"""A real RTSP server in a process of its own, and a TCP proxy that stalls and resets: what cameras and networks do, on demand.

The server is GStreamer's and runs under the system's Python, which has its bindings (Debian: gir1.2-gst-rtsp-server-1.0
python3-gi python3-gst-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad):

    /usr/bin/python3 tests/soak/rtsp.py --port 8554     serves rtsp://127.0.0.1:8554/camera until it is killed
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

SYSTEM_PYTHON = Path("/usr/bin/python3")
PATH = "/camera"
START_S = 30.0
"""Longest wait until a server or a proxy listens."""


class RtspServer:
    """One server process; it keeps its port over kill and start. Raises RuntimeError where it cannot run.

    video is an MP4 file of H.264, played from its start to each client; without one a test pattern with a clock is encoded
    live. user and password are demanded when they are given. port 0 is any that is free.
    """

    def __init__(
        self,
        *,
        video: Path | None = None,
        user: str = "",
        password: str = "",
        size: tuple[int, int] = (320, 240),
        port: int = 0,
    ) -> None:
        self._options = ["--size", f"{size[0]}x{size[1]}", "--user", user, "--password", password]
        self._options += ["--video", str(video)] if video else []
        self._process: subprocess.Popen[str] | None = None
        self.port = port

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where the stream is."""
        return f"rtsp://127.0.0.1:{self.port}{PATH}"

    @property
    def running(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process is not None

    def start(self) -> None:
        """Serve, on the port of the time before if there was one; returns when clients can connect."""
        command = [str(SYSTEM_PYTHON), str(Path(__file__).resolve()), "--port", str(self.port), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("port "):
            self.kill()
            raise RuntimeError(
                f"no RTSP server: {SYSTEM_PYTHON} with GStreamer's bindings is needed (tools/test installs them)"
            )
        self.port = int(line.split()[1])

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def freeze(self) -> None:
        """Stop the process: its sockets stay open and nothing comes from them."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class TcpProxy:
    """Passes TCP connections on to a port of this machine; its event loop runs on a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._over = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._dropped: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.port = 0

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        if not self._listening.wait(START_S):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(START_S)

    def stall(self) -> None:
        """Pass nothing on until `flow`; connections stay open, and new ones are accepted."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Pass on again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def drop_silently(self) -> None:
        """Pass nothing on any more between those connected now, without closing them; new connections work."""
        self._loop.call_soon_threadsafe(lambda: self._dropped.update(self._writers))

    def reset(self) -> None:
        """Cut every connection with a TCP reset."""
        self._loop.call_soon_threadsafe(self._cut)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._over.wait()
        server.close()
        self._cut()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.wait([task])

    def _cut(self) -> None:
        for writer in self._writers:
            if writer.transport.is_closing():
                continue
            kept: socket.socket = writer.get_extra_info("socket")
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            self._writers.discard(writer)
            return
        self._writers.add(to_target)
        pumps = [asyncio.create_task(self._pump(reader, to_target)), asyncio.create_task(self._pump(from_target, writer))]
        try:
            await asyncio.wait(pumps)
        finally:
            for end in (writer, to_target):
                end.close()
                self._writers.discard(end)
                self._dropped.discard(end)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                if writer not in self._dropped:
                    writer.write(data)
                    await writer.drain()
        writer.close()


def _launch(options: argparse.Namespace) -> str:
    """The server's pipeline in GStreamer's notation."""
    pay = "h264parse config-interval=1 ! rtph264pay config-interval=1 name=pay0 pt=96"
    if options.video:
        return f"( filesrc location={options.video} ! qtdemux ! {pay} )"
    width, height = options.size.split("x")
    shape = f"video/x-raw,format=I420,width={width},height={height},framerate={options.rate}/1"
    picture = f"videotestsrc is-live=true pattern=ball ! {shape}"
    return f"( {picture} ! openh264enc complexity=low gop-size={max(1, options.rate // 3)} ! {pay} )"


def _serve(options: argparse.Namespace) -> None:
    """Run the server in this process, until it is killed; prints "port N" when it listens."""
    import gi  # type: ignore[import-not-found, unused-ignore]

    for name in ("Gst", "GstRtspServer"):
        gi.require_version(name, "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found, unused-ignore]

    Gst.init(None)
    server: Any = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(_launch(options))
    factory.set_latency(0)
    if options.password:
        _demand_password(GstRtspServer, server, factory, options)
    server.get_mount_points().add_factory(PATH, factory)
    if not server.attach(None):
        raise SystemExit(f"port {options.port} cannot be listened at")
    print(f"port {server.get_bound_port()}", flush=True)
    GLib.MainLoop().run()


def _demand_password(library: Any, server: Any, factory: Any, options: argparse.Namespace) -> None:
    token = library.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = library.RTSPAuth()
    auth.add_basic(library.RTSPAuth.make_basic(options.user, options.password), token)
    server.set_auth(auth)
    permissions = library.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def _options() -> argparse.Namespace:
    """argparse, since the system's Python has no typer."""
    parser = argparse.ArgumentParser(description="Serve a test pattern, or a video, by RTSP at 127.0.0.1 until killed.")
    parser.add_argument("--port", type=int, default=0, help="port to listen at; 0: any that is free")
    parser.add_argument("--video", default="", help="MP4 file of H.264 to serve in place of the pattern")
    parser.add_argument("--size", default="320x240", help="of the pattern, WIDTHxHEIGHT")
    parser.add_argument("--rate", type=int, default=30, help="pictures a second of the pattern")
    parser.add_argument("--user", default="", help="name that clients must give")
    parser.add_argument("--password", default="", help="password that clients must give")
    return parser.parse_args()


if __name__ == "__main__":
    _serve(_options())
