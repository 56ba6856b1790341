"""The `apexstream` command: which commands there are, and how failures reach the user.

Each command lives in `tools/apexstream/commands/<name>.py` (- written _) as a function of that name and is imported when it is
called, never for the listing: `apexstream --help` answers in under half a second.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from apexstream.commands import say_error, unexpected
from engine.errors import ApexError

COMMANDS = {
    "demo": "Render expressions of known truth and recognize them.",
    "live": "Watch cameras and streams, events out over websockets.",
    "hub": "Show and serve the events of a fleet of nodes.",
    "events": "List and export what the live service stored.",
    "watch": "Print a live service's events as they come.",
    "analyze": "Find and recognize expressions in recorded videos.",
    "review": "Review the events of a recorded video by keyboard.",
    "agreement": "Say how far the coders of a reviewed video agree.",
    "export-events": "Write the events of recorded videos for other programs.",
    "score": "Compare events with the codes of a person.",
    "prepare": "Make flow maps from a database's pictures.",
    "train": "Fit a network on a configured data set.",
    "evaluate": "Judge a recipe leave-one-subject-out.",
    "spot-evaluate": "Judge spotting on real long videos, subjects held out.",
    "export": "Write a fitted network as checked ONNX.",
    "bench": "Measure speed against a baseline of the usual libraries.",
    "fetch": "Fetch the face model (done by itself when first needed).",
    "doctor": "Report what this machine has and which backends run.",
}

EXTRAS = {
    **dict.fromkeys(("torch", "onnx", "onnxscript", "jinja2"), "train"),
    "skimage": "clips",
    "mediapipe": "mediapipe",
    "pyarrow": "parquet",
    "psutil": "bench",
}
"""Packages that only an extra installs: import name -> extra."""


class LazyGroup(TyperGroup):
    """A group that lists its commands from `COMMANDS` and imports only the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A placeholder that carries the help line alone, or None for an unknown name."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that args call for, imported."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder if name is None else load(name), rest


def load(name: str) -> Any:
    """The command `name` as typer runs it, its module imported now."""
    module = name.replace("-", "_")
    function = getattr(importlib.import_module(f"apexstream.commands.{module}"), module)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, help=function.__doc__ or COMMANDS[name])(function)
    return typer.main.get_command(single)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"apexstream {version('apexstream')}")
        raise typer.Exit()


@app.callback()
def _options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the libraries' own messages.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Facial micro-expressions, recognized from video: onset, apex, offset, class and how sure."""
    ctx.obj = {"debug": debug}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 all done, 1 something failed, 2 wrong usage, 130 a second Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    options = args[: args.index("--")] if "--" in args else args
    debug = "--debug" in options
    if debug:
        args.remove("--debug")
        args.insert(0, "--debug")
    try:
        app(args, prog_name="apexstream")
    except ApexError as error:
        if debug:
            raise
        say_error(error)
    except ModuleNotFoundError as error:
        if debug:
            raise
        extra = EXTRAS.get(str(error.name))
        needs = f"this command needs the package {error.name}: pip install 'apexstream[{extra}]'"
        say_error(needs if extra else unexpected(error))
    except Exception as error:  # a defect of the program, reported in one sentence
        if debug:
            raise
        say_error(unexpected(error))
    sys.exit(1)


def run() -> None:
    """`main` for a process of its own, which ends with it even where threads of libraries still run."""
    from stream.shutdown import EXIT_INTERRUPTED, exit_after_cleanup

    try:
        main()
    except SystemExit as ended:
        exit_after_cleanup(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except KeyboardInterrupt:
        exit_after_cleanup(EXIT_INTERRUPTED)
