"""How the commands of the lab run."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from apexstream.commands import say_error
from engine.errors import ApexError


def run(command: Callable[..., None] | typer.Typer) -> None:
    """Run a command with the arguments of this process; an ApexError is one sentence on stderr and exit code 1."""
    try:
        if isinstance(command, typer.Typer):
            command()
        else:
            typer.run(command)
    except ApexError as error:
        say_error(error)
        sys.exit(1)
