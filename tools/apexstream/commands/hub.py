"""`apexstream hub`: one page, websocket and store for all nodes of a fleet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from apexstream.commands.live import ListenOption, TokenFileOption, announce_addresses, announced, log_to_stderr, with_server
from apexstream.commands.options import REDIS_HELP, RedisCertificates

if TYPE_CHECKING:
    from stream.fleet.service import FleetHub


def hub(
    ctx: typer.Context,
    *,
    subscribe: Annotated[
        str | None,
        typer.Option(
            "--subscribe",
            metavar="URL",
            envvar="APEXSTREAM_SUBSCRIBE",
            help=f"The fleet's Redis server: {REDIS_HELP}",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="APEXSTREAM_CONFIG",
            help="Settings (TOML): the tables [server], [store] and [redis].",
            show_default=False,
        ),
    ] = None,
    listen: ListenOption = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder for the events.", show_default="hub in the user's data folder"),
    ] = None,
    token_file: TokenFileOption = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="Certificate (PEM) for TLS.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The certificate's private key (PEM).", show_default=False)
    ] = None,
    redis_ca: RedisCertificates = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show and serve the events of all nodes of a fleet, which publish them with `apexstream live --publish URL`.

    Page, websocket, tokens and TLS are those of `apexstream live`; a stream is called NODE/STREAM. Each event is stored here
    too before it is sent, and read once from Redis, whatever is restarted. While Redis is away the page says so.
    """
    from stream.fleet.service import serve_fleet
    from stream.settings import load_hub_settings

    if subscribe is None and config is None:
        raise typer.BadParameter("--subscribe URL is missing, as in --subscribe redis://127.0.0.1:6379/0")
    given = {"url": subscribe, "ca": redis_ca}
    settings = load_hub_settings(config, **{name: value for name, value in given.items() if value is not None})
    settings = with_server(settings, listen, token_file, certificate, key)
    if data is not None:
        settings = settings.model_copy(update={"store": settings.store.model_copy(update={"folder": data})})
    log_to_stderr(bool(ctx.obj["debug"]))
    serve_fleet(settings, partial(announce, open_page=open_page))


def announce(service: FleetHub, *, open_page: bool) -> None:
    """Print the addresses of page and events, where events are stored, and where they come from."""
    announce_addresses(service)
    say(f"  nodes    of {service.settings.redis.shown}")
    announced(service, open_page=open_page)
