"""`apexstream live`: cameras, network streams and files analysed live; events and the dashboard at one address."""

from __future__ import annotations

import logging
import os
import sys
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from apexstream.commands import say
from apexstream.commands.fetch import have_face_model
from apexstream.commands.options import (
    REDIS_HELP,
    Network,
    RedisCertificates,
    SensitivityOption,
    Weights,
    number_of_processes,
    with_engines,
    with_network,
    with_sensitivity,
)
from apexstream.native_output import native_output_hidden
from engine.text import plain_lines

if TYPE_CHECKING:
    from stream.hub_service import HubService
    from stream.service import Service
    from stream.settings import HubSettings, LiveSettings

S = TypeVar("S", "LiveSettings", "HubSettings")

DEFAULT_LISTEN = "127.0.0.1:8765"
"""The same as in `stream.settings`, whose imports would slow --help down."""
ADVICE = "put the address into an environment variable and give env:NAME, or into a settings file (password_env)"
SWITCH_S = 0.0005
"""Python's thread switch interval. A source has three threads, and each returns from its libraries ten times a frame: with
Python's default of 5 ms, eight sources drop twice as many frames."""


def check_address(listen: str | None) -> str | None:
    """The value of --listen, once `split_address` has checked it."""
    if listen is not None:
        split_address(listen)
    return listen


SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        envvar="APEXSTREAM_SOURCES",
        help="A webcam (0, 1, /dev/video0), rtsp://..., http(s)://..., a video file, lavfi:GRAPH (a test picture), or "
        "env:NAME: the value of that environment variable, as for an address with a password.",
        show_default=False,
    ),
]
ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        envvar="APEXSTREAM_LISTEN",
        callback=check_address,
        help="Where to serve.",
        show_default=DEFAULT_LISTEN,
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        envvar="APEXSTREAM_TOKEN_FILE",
        help="File with the token that clients must send.",
        show_default=False,
    ),
]
ProcessesOption = Annotated[
    str | None,
    typer.Option(
        "--processes",
        metavar="N",
        envvar="APEXSTREAM_PROCESSES",
        help="Processes that share the sources; 0 or 1: none but the service's own; auto: one for three sources from the "
        "fourth source on, at most one a core.",
        show_default="auto",
    ),
]


def live(
    ctx: typer.Context,
    sources: SourcesArgument = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="APEXSTREAM_CONFIG",
            help="Settings (TOML); configs/live/ has some.",
            show_default=False,
        ),
    ] = None,
    listen: ListenOption = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder for the events.", show_default="the user's data folder")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Play the files given here again when they have ended.")] = False,
    transport: Annotated[
        Literal["tcp", "udp"], typer.Option("--transport", help="Transport of the RTSP addresses given here.")
    ] = "tcp",
    token_file: TokenFileOption = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="Certificate (PEM) for TLS.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The certificate's private key (PEM).", show_default=False)
    ] = None,
    processes: ProcessesOption = None,
    publish: Annotated[
        str | None,
        typer.Option(
            "--publish",
            metavar="URL",
            envvar="APEXSTREAM_PUBLISH",
            help=f"Publish events and states to a fleet's Redis server: {REDIS_HELP}",
            show_default=False,
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option("--node", envvar="APEXSTREAM_NODE", help="This node's name there.", show_default="the machine's name"),
    ] = None,
    node_page: Annotated[
        str | None,
        typer.Option(
            "--node-page",
            metavar="URL",
            envvar="APEXSTREAM_NODE_PAGE",
            help="Address of this node's page, to which the hub's page links.",
            show_default=False,
        ),
    ] = None,
    redis_ca: RedisCertificates = None,
    network: Network = None,
    sensitivity: SensitivityOption = None,
    weights: Weights = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Analyse cameras, network streams and files live; serve events over websockets, and a page that shows them.

    The page and the websocket are at one address, http://HOST:PORT/ and ws://HOST:PORT/. Sources given here replace those of
    the settings. A camera or stream that is missing or fails is retried forever; a file is played in real time, once unless
    --loop. A file given here must exist; one in the settings is waited for. Without any source, browsers can show their own
    camera on the page.

    Listening at another address than this machine's own needs a token: --token-file, or the environment variable
    APEXSTREAM_TOKEN. Where an environment variable is shown with an option, it counts unless the option is given;
    APEXSTREAM_SOURCES holds sources with spaces between them. Ctrl-C, SIGTERM and SIGHUP shut the service down gracefully, a
    second Ctrl-C at once. Every final event is stored before it is sent; `apexstream events` lists them.
    """
    if network and weights:
        raise typer.BadParameter("--network takes shipped weights and --weights a file: give one of them")
    from stream.settings import load_live_settings, with_redis

    typed = getattr(ctx.get_parameter_source("sources"), "name", "") != "ENVIRONMENT"
    settings = with_sources(load_live_settings(config), sources or [], loop=loop, transport=transport, typed=typed)
    settings = with_server(settings, listen, token_file, certificate, key)
    fleet = {"url": publish, "node": node, "page": node_page, "ca": redis_ca}
    if publish is not None or settings.redis is not None:
        settings = with_redis(settings, **{name: value for name, value in fleet.items() if value is not None})
    if processes is not None:
        settings = settings.model_copy(update={"processes": number_of_processes(processes)})
    if data is not None:
        settings = settings.model_copy(update={"store": settings.store.model_copy(update={"folder": data})})
    pipeline = with_engines(
        with_sensitivity(with_network(settings.pipeline, network, weights), sensitivity), settings.store.place()
    )
    run(settings.model_copy(update={"pipeline": pipeline}), debug=bool(ctx.obj["debug"]), open_page=open_page)


def run(settings: LiveSettings, *, debug: bool, open_page: bool) -> None:
    """Check the models, then serve until a signal."""
    from stream.model_trial import try_opening
    from stream.shutdown import GracefulShutdown, exit_after_cleanup

    have_face_model(settings.pipeline.landmarks.model)
    try_opening(settings.pipeline.recognizer.weights)
    with native_output_hidden(not debug), GracefulShutdown() as shutdown:
        shutdown.on_signal(partial(exit_after_cleanup, 0))  # while no service is running, nothing is lost
        log_to_stderr(debug)
        from stream.analysis.supervisor import process_count
        from stream.process import load_less
        from stream.service import serve

        if settings.sources and process_count(settings) < 2:  # else the pipelines of sources run in other processes
            load_less()
        sys.setswitchinterval(SWITCH_S)
        serve(settings, lambda service: announce(service, open_page=open_page))


def split_address(listen: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT or :PORT as host and port; raises BadParameter for anything else."""
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise typer.BadParameter(f"{listen!r}: put an IPv6 address in brackets, as in [::1]:8765")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{listen!r} is not HOST:PORT, as in {DEFAULT_LISTEN}")
    return host or DEFAULT_LISTEN.rpartition(":")[0], int(port)


def with_sources(settings: LiveSettings, urls: list[str], *, loop: bool, transport: str, typed: bool = True) -> LiveSettings:
    """The settings with these sources, if there are any, in place of their own; typed: they stand on the command line.

    Raises SourceError for an invalid source or a missing file.
    """
    from engine.errors import SourceError
    from stream.settings import sources_from
    from stream.sources.kinds import parse_address
    from stream.sources.settings import SourceSettings

    given, urls = urls, [_from_environment(url) for url in urls]
    for argument, url in zip(given, urls, strict=True):
        address = parse_address(url)
        if typed and argument == url and SourceSettings(url=url).holds_a_secret:
            say(f"apexstream: warning: every user of this machine can see the password of {address.shown}: {ADVICE}", err=True)
        if address.kind == "file" and not Path(url).is_file():
            what = "is a folder" if Path(url).is_dir() else "is no file"
            raise SourceError(f"{address.shown} {what}; a webcam's number, rtsp://..., http://... or a video file is expected")
    if not urls:
        return settings
    return settings.model_copy(update={"sources": sources_from(urls, loop=loop, transport=transport)})


def _from_environment(url: str) -> str:
    """The value of the environment variable where a source is given as env:NAME. Raises SourceError where it is not set."""
    from engine.errors import SourceError

    if not url.startswith("env:"):
        return url
    found = os.environ.get(url.removeprefix("env:"), "").strip()
    if not found:
        raise SourceError(f"{url}: the environment variable is not set; it must hold the source's address")
    return found


def with_server(settings: S, listen: str | None, token_file: Path | None, certificate: Path | None, key: Path | None) -> S:
    """The settings with the server options of the command line."""
    if (certificate is None) != (key is None):
        raise typer.BadParameter("--certificate and --key go together: give both")
    given: dict[str, Any] = {}
    if listen is not None:
        given["host"], given["port"] = split_address(listen)
    if token_file is not None:
        given |= {"token": None, "token_file": token_file}
    if certificate is not None:
        given |= {"certificate": certificate, "key": key}
    return settings.model_copy(update={"server": settings.server.model_copy(update=given)})


def log_to_stderr(debug: bool) -> None:
    """Log to stderr, one line a record, with its time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for noisy in ("asyncio", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _PlainFormatter(logging.Formatter):
    """Escapes control characters, whatever names and messages hold."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_lines(super().format(record))


def announce(service: Service, *, open_page: bool) -> None:
    """Print the addresses of page and events, the sources, and where events are stored and sent."""
    from stream.sources.kinds import parse_address

    announce_addresses(service)
    for index, source in enumerate(service.settings.sources):
        say(f"  {'' if index else 'sources':8} {source.name}: {parse_address(source.url).shown}")
    if not service.settings.sources:
        say("  sources  none given: open the page and show this device's camera")
    for index, shown in enumerate(service.outlets.shown):
        say(f"  {'' if index else 'outlets':8} {shown}")
    announced(service, open_page=open_page)


def announce_addresses(service: HubService) -> None:
    """Print the version, the addresses of page and events, and where events are stored."""
    stored = service.hub.seq
    say(", ".join(filter(None, (f"apexstream {service.version}", service.model))))
    say(f"  page     {service.url}")
    say(f"  events   {service.events_url} (apexstream watch {service.events_url})")
    say(f"  stored   {service.store.path} ({f'{stored} so far' if stored else 'none yet'})")


def announced(service: HubService, *, open_page: bool) -> None:
    """Print how to end the service, and open its page where that is wanted."""
    say("Ctrl-C ends it." if sys.stdin.isatty() else "SIGTERM ends it.")
    sys.stdout.flush()
    if open_page:
        webbrowser.open(service.url)
