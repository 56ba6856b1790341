"""`apexstream review`: the page on which a coder reviews the events of a recorded video."""

from __future__ import annotations

import getpass
import logging
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apexstream.commands import say
from apexstream.commands.live import check_address, log_to_stderr, split_address
from apexstream.commands.options import one_of
from apexstream.native_output import native_output_hidden
from engine.errors import OutputError

if TYPE_CHECKING:
    from stream.review.database import Blind
    from stream.review.server import ReviewServer

DEFAULT_LISTEN = "127.0.0.1:8766"
BLIND = ("none", "labels", "machine")


def _check_coder(coder: str | None) -> str | None:
    if coder is not None and not (coder.strip() and coder.isprintable() and len(coder) <= 64 and coder.strip() != "machine"):
        raise typer.BadParameter("a coder's name has 1 to 64 letters, digits and signs, and is not machine")
    return None if coder is None else coder.strip()


def review(
    ctx: typer.Context,
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="The folder of one video's results.", show_default=False)],
    *,
    coder: Annotated[
        str | None,
        typer.Option(
            "--coder", metavar="NAME", callback=_check_coder, help="Whose decisions these are.", show_default="your login name"
        ),
    ] = None,
    blind: Annotated[
        str,
        typer.Option(
            "--blind",
            metavar="|".join(BLIND),
            callback=one_of(BLIND),
            help="What not to show of the machine: its classes and confidence (labels), or anything (machine).",
        ),
    ] = "none",
    adjudicate: Annotated[
        bool, typer.Option("--adjudicate", help="Decide about what the other coders do not agree on, as a third person.")
    ] = False,
    video: Annotated[
        Path | None,
        typer.Option("--video", metavar="FILE", help="The video, where it has been moved since.", show_default=False),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", callback=check_address, help="Where to serve.")
    ] = DEFAULT_LISTEN,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Review the events that `apexstream analyze` found in a video, by keyboard, on a page in the browser.

    The video is played around each event, frame by frame where wanted; accept, reject or relabel it, move onset, apex and
    offset, give action units, write notes, and add what was missed. The page lists its keys: press ?.

    Each decision is on disk at once, in RESULTS/review.sqlite, and is kept if the program is killed. Several coders work on the
    same results under different names and never see each other's decisions; `apexstream agreement RESULTS` says how far they
    agree, and with --adjudicate a third person sees and decides what they do not agree on. Ctrl-C ends the server.
    """
    from apexstream.display import share_bar
    from stream.recorded.results import read_results
    from stream.review.adjudication import adjudicate as begin_adjudication
    from stream.review.database import ReviewDatabase
    from stream.review.server import analysed_video, serve_review
    from stream.review.session import ReviewSession

    if adjudicate and blind != "none":
        raise typer.BadParameter("--adjudicate and --blind exclude each other")
    host, port = split_address(listen)
    log_to_stderr(bool(ctx.obj["debug"]))
    logging.getLogger().setLevel(logging.DEBUG if ctx.obj["debug"] else logging.WARNING)
    with native_output_hidden(not ctx.obj["debug"]), ExitStack() as opened:
        opened.enter_context(_not_analysed_meanwhile(results))
        found = read_results(results)
        database = opened.enter_context(ReviewDatabase.open(results))
        name = coder or _login_name()
        third = begin_adjudication(found, database, name) if adjudicate else None
        session = ReviewSession(found, database, name, _blind(blind), adjudication=third)
        with share_bar("Reading the video") as progress:
            checked = analysed_video(found, video, database, progress)
        serve_review(session, checked, host, port, lambda server: _announce(server, open_page=open_page))


@contextmanager
def _not_analysed_meanwhile(results: Path) -> Iterator[None]:
    """Keep `apexstream analyze` from the results, as decisions are about these events; several reviews share them. Raises
    OutputError while an analysis writes them."""
    from stream.files import folder_lock

    with ExitStack() as opened:
        if results.is_dir():
            try:
                opened.enter_context(folder_lock(results, shared=True))
            except BlockingIOError:
                raise OutputError(f"{results} is being written by an analysis; wait for its end") from None
        yield


def _login_name() -> str:
    """Raises BadParameter where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise typer.BadParameter("this system has no login name; say whose decisions these are by --coder NAME") from error


def _blind(word: str) -> Blind:
    return "labels" if word == "labels" else "machine" if word == "machine" else "none"


def _announce(server: ReviewServer, *, open_page: bool) -> None:
    session = server.session
    events, decided = len(session.results.entries), sum(code.decision != "open" for code in session.codes)
    counts = f"{events} event{'s' * (events != 1)}, {decided} decision{'s' * (decided != 1)}"
    say(f"{session.results.folder}: {counts} of {session.coder} so far")
    say(f"  page   {server.url}")
    say(f"  saved  {session.database.path}")
    say("Ctrl-C ends it." if sys.stdin.isatty() else "SIGTERM ends it.")
    if open_page:
        webbrowser.open(server.url_once)
