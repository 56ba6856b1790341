"""Settings of the live service: its sources, its server, its store, and the way from frame to event.

A settings file is TOML; all but the sources may be left out:

    queued_frames, evidence_events, processes
    [[sources]]                          url, name, transport, loop, username, password_env, stall_s
    [server]                             host, port, token_file, certificate, key, origins, ...
    [store]                              folder, keep_days, keep_bytes, recreate
    [landmarks] [spotter] [recognizer]   as in every settings file (`engine.config`)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from engine.config import PipelineSettings, Settings, read_toml
from engine.errors import ConfigError, SourceError
from stream.permissions import kept_private, warn_if_open
from stream.sources.address import Address, parse_address

TOKEN_VARIABLE = "APEXSTREAM_TOKEN"
"""Environment variable that holds the service's token where neither settings nor a file do."""

MOST_PROCESSES = 256

_ANY = Address("file", "-", "-")
"""Of no source in particular: what it leaves out of a text is secret by its name alone."""
_NAME = re.compile(r"\w[\w .-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,256}")


def _usable_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a stream's name is 1 to 64 letters, digits, spaces, dots and dashes, unlike {name!r}")
    return name


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | PurePath) and not isinstance(value, bool) else value


def _usable_processes(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_PROCESSES):
        return value
    raise ValueError(f"auto or a number from 0 to {MOST_PROCESSES} is expected, not {value!r}")


class SourceSettings(Settings):
    """One source: an entry of [[sources]]."""

    name: Annotated[str, AfterValidator(_usable_name)] = Field("", description="the stream's name; default: from the url")
    url: Annotated[str, BeforeValidator(_as_text)] = Field(
        min_length=1,
        repr=False,
        description="a webcam's number or device, rtsp://, rtmp:// or http(s)://, a file, or lavfi:GRAPH (a test pattern)",
    )
    transport: Literal["tcp", "udp"] = Field("tcp", description="how RTSP brings its pictures: tcp or udp")
    loop: bool = Field(False, description="a file begins again when it has ended")
    username: str | None = Field(None, description="who asks for the stream")
    password: SecretStr | None = Field(None, description="the password itself; password_env keeps it out of the file")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    stall_s: float = Field(5.0, gt=0, le=600, description="seconds without a picture after which a stream counts as stalled")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("name") is None and "url" in content:
            return {**content, "name": default_name(str(content["url"]))}
        return content

    @property
    def holds_a_secret(self) -> bool:
        """Whether it says a password itself, or its address holds one, a value that its name calls a secret, or an RTMP key."""
        bare, _, query = self.url.partition("?")
        try:
            address = parse_address(bare)
        except SourceError:
            return self.password is not None or "@" in self.url
        named = address.kind != "file" and "***" in _ANY.redact(query)
        return self.password is not None or bool(address.secrets) or named

    def secret(self) -> str | None:
        """The password, from the settings or the environment. Raises ConfigError where the variable is not set."""
        if self.password_env is None:
            return None if self.password is None else self.password.get_secret_value()
        found = os.environ.get(self.password_env)
        if found is None:
            raise ConfigError(f"{self.name}: the environment variable {self.password_env} with its password is not set")
        return found


class ServerSettings(Settings):
    """Where and to whom events are served: the table [server]."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen at; any but this machine's own demands a token")
    port: int = Field(8765, ge=0, le=65535, description="port to listen at; 0: any that is free")
    token: SecretStr | None = Field(None, description="what clients must know; token_file keeps it out of the settings")
    token_file: Path | None = Field(None, description="a file that holds the token")
    certificate: Path | None = Field(None, description="certificate chain (PEM) for TLS")
    key: Path | None = Field(None, description="the certificate's private key (PEM)")
    origins: tuple[str, ...] = Field((), description="pages that may connect besides the service's own, as https://host:port")
    hosts: tuple[str, ...] = Field((), description="names under which the service may be called besides the one it listens at")
    max_connections: int = Field(2000, ge=1, le=100_000, description="the most connections at once")
    max_message_bytes: int = Field(1 << 20, ge=1024, description="the longest message taken from a client")
    messages_per_s: float = Field(100.0, gt=0, description="the most messages a second taken from a client")
    buffer_bytes: int = Field(1 << 20, ge=4096, description="a client that lets more than this wait is dropped")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")
        return self

    def access_token(self) -> str | None:
        """The token clients must know: the settings' own, the file's, or that of the environment variable APEXSTREAM_TOKEN.

        Raises ConfigError where the file cannot be read or the token cannot be sent by a page.
        """
        if self.token is not None:
            found, place = self.token.get_secret_value(), "the settings"
        elif self.token_file is not None:
            found, place = _read_token(self.token_file), str(self.token_file)
        else:
            found, place = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
            if not found:
                return None
        if not _TOKEN.fullmatch(found):
            raise ConfigError(f"the token in {place} is not 8 to 256 letters, digits, dots, dashes, tildes and underscores")
        return found


def _read_token(path: Path) -> str:
    kept_private(path)
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds other characters than ASCII"
        raise ConfigError(f"the token file {path} cannot be read: {reason}") from error


class StoreSettings(Settings):
    """Where events are kept, and how long: the table [store]."""

    folder: Path | None = Field(None, description="folder for the events; default: the user's data folder")
    keep_days: float | None = Field(90.0, gt=0, description="older events are removed")
    keep_bytes: int | None = Field(1 << 30, ge=1 << 16, description="the oldest events are removed where the store is larger")
    recreate: bool = Field(False, description="a new file is begun where the events' file is removed while the service runs")

    def place(self) -> Path:
        """The folder in use."""
        if self.folder is not None:
            return self.folder
        from platformdirs import user_data_dir

        return Path(user_data_dir("apexstream"))


class LiveSettings(Settings):
    """Everything the live service can be told."""

    sources: tuple[SourceSettings, ...] = ()
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    pipeline: PipelineSettings = PipelineSettings()
    queued_frames: int = Field(12, ge=1, le=256, description="frames that may wait for a source's analysis")
    evidence_events: int = Field(50, ge=0, le=10_000, description="events whose pictures are kept in memory")
    processes: Annotated[int | Literal["auto"], BeforeValidator(_usable_processes)] = Field(
        "auto",
        description="processes that share the sources; 0 or 1: the service's own; auto: as many as sources and cores ask for",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [source.name.casefold() for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are called {twice!r}; give one of them another name")
        return self


def load_live_settings(path: Path | None) -> LiveSettings:
    """Settings from a TOML file; without one the defaults, no source among them.

    Raises ConfigError that names the key and what is wrong with it.
    """
    if path is None:
        return LiveSettings()
    content = read_toml(path)
    live = {key: content.pop(key) for key in list(content) if key in LiveSettings.model_fields and key != "pipeline"}
    sources = live.get("sources")
    if isinstance(sources, list) and all(isinstance(source, dict) for source in sources):
        live["sources"] = _told_apart(sources)
    settings = _validated({**live, "pipeline": content}, str(path))
    if settings.server.token is not None or any(source.holds_a_secret for source in settings.sources):
        warn_if_open(path)
    return settings


def sources_from(urls: Iterable[str], **options: Any) -> tuple[SourceSettings, ...]:
    """Sources from what a command line names, with options (transport, loop) for all; equal names are numbered.

    Raises ConfigError.
    """
    given = _told_apart([{"url": url, **options} for url in urls])
    return _validated({"sources": given}, "the sources").sources


def default_name(url: str) -> str:
    """A stream's name from its address, never with credentials: a file's stem, a host, webcam-0."""
    if url.isdecimal():
        return f"webcam-{url}"
    if url.startswith("lavfi:"):
        return "pattern"
    if "://" in url:
        try:
            found = urlsplit(url).hostname or ""
        except ValueError:
            found = ""
    else:
        found = PurePath(url).stem
    return re.sub(r"[^\w .-]+", "-", found).strip(" .-")[:64] or "source"


def _told_apart(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sources without a name named after their address, the second of a name with -2 and so on."""
    taken = {str(source["name"]).casefold() for source in sources if source.get("name") is not None}
    return [_named(source, taken) for source in sources]


def _named(source: dict[str, Any], taken: set[str]) -> dict[str, Any]:
    """The source with a name of its own, which is added to those taken."""
    if source.get("name") is not None or "url" not in source:
        return source
    base = default_name(str(source["url"]))
    name, number = base, 1
    while name.casefold() in taken:
        number += 1
        name = f"{base[:60]}-{number}"
    taken.add(name.casefold())
    return {**source, "name": name}


def _validated(content: dict[str, Any], where: str) -> LiveSettings:
    try:
        return LiveSettings.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(error.errors(include_input=False)[0])}") from None


def _sentence(fault: ErrorDetails) -> str:
    """What is wrong with which setting, in the words of the settings file."""
    path = fault["loc"][1:] if fault["loc"][:1] == ("pipeline",) else fault["loc"]
    of_source = len(path) > 1 and path[0] == "sources"
    table = _ordinal(int(path[1])) if of_source else str(path[0]) if len(path) > 1 else ""
    key = ".".join(str(part) for part in path[2 if of_source else 1 if table else 0 :])
    name = (f"{table}'s {key}" if of_source else f"{table}.{key}" if table else key) if key else table
    said = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_known(str(path[0]) if table else ""))
        return (
            f"{table} has no setting {key}; there are {known}"
            if of_source
            else f"there is no setting {name}; there are {known}"
        )
    if fault["type"] == "missing":
        return f"{table or 'the settings'} has no {key}"
    if fault["type"] == "model_type":
        return f"{name} is a table of settings"
    if name == "sources" and fault["type"] == "tuple_type":
        return "sources is a list of tables, [[sources]]"
    if said.startswith("Input should"):
        return f"{name} {said.removeprefix('Input ')}"
    return f"{name + ': ' if name else ''}{said[:1].lower()}{said[1:]}"


def _known(table: str) -> list[str]:
    """The settings that there are in a table; those of the whole file for none."""
    root = {**LiveSettings.model_fields, **PipelineSettings.model_fields}
    del root["pipeline"]
    kind: Any = SourceSettings if table == "sources" else root[table].annotation if table else None
    return list(root if kind is None else kind.model_fields)


def _ordinal(index: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth")
    return f"the {words[index]} source" if index < len(words) else f"source {index + 1}"
