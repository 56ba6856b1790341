"""The commands of the command line, one a module, and the one form in which they tell a failure."""

from __future__ import annotations

import sys


def say_error(sentence: object) -> None:
    """One failure, on stderr."""
    print(f"apexstream: error: {sentence}", file=sys.stderr, flush=True)


def unforeseen(error: Exception) -> str:
    """A defect of ours, in one sentence."""
    return f"something unforeseen went wrong ({type(error).__name__}: {error}); run again with --debug to see where"
