"""Every error the project raises on purpose.

    ApexError                   one sentence for the user; the command line prints it and exits 1
    ├── InputError              what was handed in cannot be used (a file, an array, an option)
    │   ├── SourceError         a video or camera cannot be opened or read
    │   └── ArrayError          an array has the wrong shape, type or values
    ├── ConfigError             a settings file or value is wrong
    ├── BackendError            a compute backend was asked for that is not there, and why
    ├── WeightsError            a network file is missing, damaged or does not fit
    └── OutputError             a result cannot be written (folder, permission, disk)

A message says what was expected, what came, and what to do. Errors of other libraries are translated at the one place that
calls them.
"""

from __future__ import annotations


class ApexError(Exception):
    """Base of all errors raised on purpose; its text is one plain sentence."""


class InputError(ApexError):
    """What was handed in cannot be used."""


class SourceError(InputError):
    """A video or camera cannot be opened or read."""


class ArrayError(InputError):
    """An array has the wrong shape, type or values."""


class ConfigError(ApexError):
    """A settings file or value is wrong."""


class BackendError(ApexError):
    """A compute backend was asked for that is not available here."""


class WeightsError(ApexError):
    """A network file is missing, damaged, or does not fit what it is used for."""


class OutputError(ApexError):
    """A result cannot be written."""


def first_line(error: Exception) -> str:
    """The first line of what another library's error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
