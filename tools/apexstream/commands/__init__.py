"""The commands of the command line, one a module, and the form in which they report a failure."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.errors import OutputError
from engine.text import plain, plain_lines


def say(text: object, *, err: bool = False) -> None:
    """Print lines on stdout, or on stderr, without control characters."""
    print(plain_lines(text), file=sys.stderr if err else sys.stdout, flush=True)


def say_error(sentence: object) -> None:
    """One failure, on stderr."""
    print(f"apexstream: error: {plain(sentence)}", file=sys.stderr, flush=True)


def left_out_sentence(coder: str, count: int) -> str:
    """How many events do not count, as the coder has not decided about them."""
    events_are, them = ("event is", "it") if count == 1 else ("events are", "them")
    return f"{count} {events_are} left out: {coder} has not decided about {them}"


def unexpected(error: Exception) -> str:
    """An error that is a defect of the program, in one sentence."""
    return f"unexpected error ({type(error).__name__}: {error}); run again with --debug to see where"


def check_target(path: Path, option: str) -> None:
    """Make the folder of a file that long work will write. Raises OutputError where it could not be written then."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another file for {option}") from error
