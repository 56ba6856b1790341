"""Redaction of credentials in addresses and in the messages of FFmpeg and of servers.

Secret are the user, password and query of an address, what a path or a filter assigns to a name like password or token, and the
key of an RTMP stream (the part of its path behind the application's name).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHORT = 3
"""Values of up to so many characters in a path or a filter are hidden only there, not anywhere in a message."""

_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://[^\s'\"]*", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"\b(\w*(?:user|login|pass|pwd|psw|token|secret|key|auth|sign|session)\w*?)(=|%3D)([^&;:,/?#\s'\"]+)", re.IGNORECASE
)
"""A name that stands for a secret, and its value; several joined together (user=a_password=b) are one."""


def redact(text: str) -> str:
    """The text without the credentials of the addresses, paths and filters in it."""
    return _ASSIGNED.sub(r"\1\2***", _URL.sub(lambda url: _redacted_url(url.group(0)), text))


def redact_path(scheme: str, path: str) -> str:
    """The path of an address with that scheme, without the secrets in it."""
    if _is_rtmp(scheme):
        application, slash, key = path.lstrip("/").partition("/")
        return f"{'/' if path else ''}{application}{slash}{'***' if key else ''}"
    return _ASSIGNED.sub(r"\1\2***", path)


def path_secrets(scheme: str, path: str) -> list[str]:
    """The secrets in the path of an address with that scheme, those of up to SHORT characters left out."""
    values = [found.group(3) for found in _ASSIGNED.finditer(path)]
    if _is_rtmp(scheme):
        values.append(path.strip("/").partition("/")[2])
    parts = [part for value in values for part in re.split(r"_[a-z]+=|/", value, flags=re.IGNORECASE)]
    return _long([*values, *parts])


def filter_secrets(graph: str) -> list[str]:
    """The secrets in a filter graph without backslashes: those of its addresses, and the values it assigns."""
    secrets = [part for url in _URL.finditer(graph) for part in _url_secrets(url.group(0))]
    return secrets + _long(found.group(3) for found in _ASSIGNED.finditer(graph))


def has_url(text: str) -> bool:
    """Whether there is an address in the text."""
    return _URL.search(text) is not None


def longest_first(secrets: Iterable[str]) -> tuple[str, ...]:
    """Each secret once, in the order in which to replace them: no part of one is left behind by another."""
    return tuple(sorted({*secrets} - {""}, key=len, reverse=True))


def _is_rtmp(scheme: str) -> bool:
    return scheme.lower() in ("rtmp", "rtmps")


def _long(values: Iterable[str]) -> list[str]:
    """Values long enough to be searched for in messages: many messages contain the number of a channel."""
    return [value for value in values if len(value) > SHORT]


def _url_secrets(url: str) -> list[str]:
    """User, password, query and key of an address within a text."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    login, _, host = place.rpartition("@")
    _, _, path = host.partition("/")
    return [login, *login.split(":", 1)[1:], query, *path_secrets(scheme, f"/{path}")]


def _redacted_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{redact_path(scheme, f'{slash}{path}')}"
