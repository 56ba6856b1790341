"""`apexstream live`: cameras, streams and files watched as they come; events and a page at one address."""

from __future__ import annotations

import logging
import os
import sys
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apexstream.commands import say
from apexstream.commands.analyze import Network, SensitivityOption, Weights, with_engines, with_network, with_sensitivity
from apexstream.commands.fetch import have_face_model
from apexstream.native_output import native_output_hidden
from engine.text import plain_lines

if TYPE_CHECKING:
    from stream.service import Service
    from stream.settings import LiveSettings, ServerSettings

HERE = "127.0.0.1:8765"
"""Where it serves unless told otherwise: as in `stream.settings`, whose imports would slow --help down."""


def _address(listen: str | None) -> str | None:
    if listen is not None:
        split_address(listen)
    return listen


ADVICE = "put the address into an environment variable and give env:NAME, or into a settings file (password_env)"
SWITCH_S = 0.0005
"""How long one of Python's threads may keep the others waiting. A source has three, and each comes back from its libraries ten
times a frame: with Python's own 5 ms, eight sources drop twice as many frames."""


def live(
    ctx: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="A webcam (0, 1, /dev/video0), rtsp://..., http(s)://..., a video file, lavfi:GRAPH (a test picture), or "
            "env:NAME: what that environment variable holds, as for an address with a password.",
            show_default=False,
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings (TOML); configs/live/ has some.", show_default=False),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", callback=_address, help="Where to serve.", show_default=HERE),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder for the events.", show_default="the user's data folder"),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Files given here begin again when they have ended.")] = False,
    transport: Annotated[
        Literal["tcp", "udp"], typer.Option("--transport", help="How the RTSP addresses given here bring their pictures.")
    ] = "tcp",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Holds the token that clients must know.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="Certificate (PEM) for TLS.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The certificate's private key (PEM).", show_default=False)
    ] = None,
    processes: Annotated[
        str | None,
        typer.Option(
            "--processes",
            metavar="N",
            help="Processes that share the sources; 0 or 1: none but the service's own; auto: one for three sources from the "
            "fourth source on, at most one a core.",
            show_default="auto",
        ),
    ] = None,
    network: Network = None,
    sensitivity: SensitivityOption = None,
    weights: Weights = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Watch cameras, network streams and files as they come; serve events over websockets, and a page that shows it all.

    The page and the socket are at one address, http://HOST:PORT/ and ws://HOST:PORT/. Sources given here take the place of the
    settings'. A camera or stream that is not there or breaks off is tried again for ever; a file is played in real time, once
    unless --loop. A file given here must exist; one in the settings is waited for. Without any source, browsers can show their
    own camera on the page.

    Listening at another address than this machine's own demands a token: --token-file, or the environment variable
    APEXSTREAM_TOKEN. Ctrl-C, SIGTERM and SIGHUP end the service in order, a second Ctrl-C at once. Every final event is stored
    before it is sent; `apexstream events` lists them.
    """
    if network and weights:
        raise typer.BadParameter("--network takes shipped weights and --weights a file: give one of them")
    from stream.model_trial import try_opening
    from stream.settings import load_live_settings
    from stream.shutdown import Ending, left_in_order

    debug = bool(ctx.obj["debug"])
    settings = load_live_settings(config)
    settings = with_sources(settings, sources or [], loop=loop, transport=transport)
    settings = served_at(settings, listen, token_file, certificate, key)
    settings = with_processes(settings, processes)
    if data is not None:
        settings = settings.model_copy(update={"store": settings.store.model_copy(update={"folder": data})})
    pipeline = with_engines(
        with_sensitivity(with_network(settings.pipeline, network, weights), sensitivity), settings.store.place()
    )
    settings = settings.model_copy(update={"pipeline": pipeline})
    have_face_model(pipeline.landmarks.model)
    try_opening(pipeline.recognizer.weights)
    with native_output_hidden(not debug), Ending() as ending:
        ending.on_end(partial(left_in_order, 0))  # before the service is there, and behind it, nothing is lost by that
        log_to_stderr(debug)
        from stream.analysis.supervisor import how_many
        from stream.lean import load_less
        from stream.service import serve

        if settings.sources and how_many(settings) < 2:  # else others have the pipelines, and a browser's comes when it comes
            load_less()
        sys.setswitchinterval(SWITCH_S)
        serve(settings, lambda service: announce(service, open_page=open_page))


def split_address(listen: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT or :PORT as host and port; raises BadParameter for anything else."""
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise typer.BadParameter(f"{listen!r}: an IPv6 address stands in brackets, as in [::1]:8765")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{listen!r} is not HOST:PORT, as in {HERE}")
    return host or HERE.rpartition(":")[0], int(port)


def with_sources(settings: LiveSettings, urls: list[str], *, loop: bool, transport: str) -> LiveSettings:
    """The settings with these sources, if there are any, in place of their own.

    Raises SourceError for what is no source, a file that is not there among them.
    """
    from engine.errors import SourceError
    from stream.settings import SourceSettings, sources_from
    from stream.sources.address import parse_address

    given, urls = urls, [_from_environment(url) for url in urls]
    for typed, url in zip(given, urls, strict=True):
        address = parse_address(url)
        if typed == url and SourceSettings(url=url).holds_a_secret:
            say(f"apexstream: warning: every user of this machine can see the password of {address.shown}: {ADVICE}", err=True)
        if address.kind == "file" and not Path(url).is_file():
            what = "is a folder" if Path(url).is_dir() else "is no file"
            raise SourceError(f"{address.shown} {what}; a webcam's number, rtsp://..., http://... or a video file is expected")
    if not urls:
        return settings
    return settings.model_copy(update={"sources": sources_from(urls, loop=loop, transport=transport)})


def _from_environment(url: str) -> str:
    """What an environment variable holds, where a source is given as env:NAME. Raises SourceError where there is none."""
    from engine.errors import SourceError

    if not url.startswith("env:"):
        return url
    found = os.environ.get(url.removeprefix("env:"), "").strip()
    if not found:
        raise SourceError(f"{url}: there is no such environment variable; it is to hold the source's address")
    return found


def served_at(
    settings: LiveSettings, listen: str | None, token_file: Path | None, certificate: Path | None, key: Path | None
) -> LiveSettings:
    """The settings with what the command line says of the server."""
    if (certificate is None) != (key is None):
        raise typer.BadParameter("--certificate and --key go together: give both")
    server: ServerSettings = settings.server
    if listen is not None:
        host, port = split_address(listen)
        server = server.model_copy(update={"host": host, "port": port})
    if token_file is not None:
        server = server.model_copy(update={"token": None, "token_file": token_file})
    if certificate is not None:
        server = server.model_copy(update={"certificate": certificate, "key": key})
    return settings.model_copy(update={"server": server})


def with_processes(settings: LiveSettings, processes: str | None) -> LiveSettings:
    """The settings with what the command line says of processes; raises BadParameter for what is no number of them."""
    return settings if processes is None else settings.model_copy(update={"processes": number_of_processes(processes)})


def number_of_processes(given: str) -> int | Literal["auto"]:
    """What --processes says; raises BadParameter for what is neither auto nor a number of them."""
    from stream.settings import MOST_PROCESSES

    if given == "auto":
        return "auto"
    if not (given.isascii() and given.isdecimal() and int(given) <= MOST_PROCESSES):
        raise typer.BadParameter(f"--processes: {given!r} is neither auto nor a number from 0 to {MOST_PROCESSES}")
    return int(given)


def log_to_stderr(debug: bool) -> None:
    """One line for each thing that happens, with its time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for noisy in ("asyncio", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Plain(logging.Formatter):
    """Lines that steer no terminal, whatever names and messages they hold."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_lines(super().format(record))


def announce(service: Service, *, open_page: bool) -> None:
    """Say where the page is, what is watched, and where events go."""
    stored = service.hub.seq
    kept = f"{stored} so far" if stored else "none yet"
    say(f"apexstream {service.version}, {service.model}")
    say(f"  page     {service.url}")
    say(f"  events   {service.events_url} (apexstream watch {service.events_url})")
    for index, (name, where) in enumerate(service.sources):
        say(f"  {'' if index else 'sources':8} {name}: {where}")
    if not service.sources:
        say("  sources  none given: open the page and show this device's camera")
    say(f"  stored   {service.store.path} ({kept})")
    say("Ctrl-C ends it." if sys.stdin.isatty() else "SIGTERM ends it.")
    sys.stdout.flush()
    if open_page:
        webbrowser.open(service.url)
