"""Settings of the live service: its sources, server, store, and the pipeline from frame to event.

Their file is TOML; everything but the sources may be omitted:

    queued_frames, evidence_events, processes
    [[sources]]                          url, name, transport, loop, username, password_env, stall_s
    [server]                             host, port, token_file, certificate, key, origins, ...
    [store]                              folder, keep_days, keep_bytes, recreate
    [lsl] [mqtt] [redis]                 where events are sent besides the websocket (`stream.outlets`)
    [landmarks] [spotter] [recognizer]   as in every settings file (`engine.config`)

Those of a fleet's hub are its tables [server], [store] and [redis].
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from engine.config import PipelineSettings, Settings, read_toml
from engine.errors import ConfigError
from stream.outlets.settings import LslSettings, MqttSettings, RedisSettings
from stream.permissions import make_private, warn_if_open
from stream.sources.settings import SourceSettings, default_name

TOKEN_VARIABLE = "APEXSTREAM_TOKEN"
"""Environment variable with the service's token where neither settings nor a file have one."""

MAX_PROCESSES = 256

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,256}")


def _checked_processes(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_PROCESSES):
        return value
    raise ValueError(f"auto or a number from 0 to {MAX_PROCESSES} is expected, not {value!r}")


class ServerSettings(Settings):
    """Where events are served and to whom: the table [server]."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; any but loopback requires a token")
    port: int = Field(8765, ge=0, le=65535, description="port to listen on; 0: any that is free")
    token: SecretStr | None = Field(None, description="what clients must present; token_file keeps it out of the settings")
    token_file: Path | None = Field(None, description="a file that holds the token")
    certificate: Path | None = Field(None, description="certificate chain (PEM) for TLS")
    key: Path | None = Field(None, description="the certificate's private key (PEM)")
    origins: tuple[str, ...] = Field((), description="pages that may connect besides the service's own, as https://host:port")
    hosts: tuple[str, ...] = Field((), description="host names of the service besides the one it listens on")
    max_connections: int = Field(2000, ge=1, le=100_000, description="maximum number of connections at once")
    max_message_bytes: int = Field(1 << 20, ge=1024, description="maximum size of a message from a client")
    messages_per_s: float = Field(100.0, gt=0, description="maximum rate of messages from a client")
    buffer_bytes: int = Field(1 << 20, ge=4096, description="a client with more than this unsent is disconnected")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")
        return self

    def access_token(self) -> str | None:
        """The token that clients must present: from the settings, the file, or the environment variable APEXSTREAM_TOKEN.

        Raises ConfigError where the file cannot be read or a page cannot send the token.
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
    make_private(path)
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds other characters than ASCII"
        raise ConfigError(f"the token file {path} cannot be read: {reason}") from error


class StoreSettings(Settings):
    """Where events are stored, and how long: the table [store]."""

    folder: Path | None = Field(None, description="folder for the events; default: the user's data folder")
    keep_days: float | None = Field(90.0, gt=0, description="events older than this are removed")
    keep_bytes: int | None = Field(1 << 30, ge=1 << 16, description="the oldest events are removed where the store is larger")
    recreate: bool = Field(False, description="a new file is created where the events' file is removed while the service runs")

    def place(self) -> Path:
        """The folder in use."""
        if self.folder is not None:
            return self.folder
        from platformdirs import user_data_dir

        return Path(user_data_dir("apexstream"))


class LiveSettings(Settings):
    """All settings of the live service."""

    sources: tuple[SourceSettings, ...] = ()
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    lsl: LslSettings | None = None
    mqtt: MqttSettings | None = None
    redis: RedisSettings | None = None
    pipeline: PipelineSettings = PipelineSettings()
    queued_frames: int = Field(12, ge=1, le=256, description="frames that may wait for a source's analysis")
    evidence_events: int = Field(50, ge=0, le=10_000, description="events whose pictures are kept in memory")
    processes: Annotated[int | Literal["auto"], BeforeValidator(_checked_processes)] = Field(
        "auto",
        description="processes that share the sources; 0 or 1: the service's own; auto: by the number of sources and cores",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [source.name.casefold() for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are called {twice!r}; give one of them another name")
        return self


class HubSettings(Settings):
    """All settings of a fleet's hub."""

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    redis: RedisSettings


S = TypeVar("S", LiveSettings, HubSettings)


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
        live["sources"] = _with_names(sources)
    settings = _validated(LiveSettings, {**live, "pipeline": content}, str(path))
    passwords = any(one is not None and one.password is not None for one in (settings.mqtt, settings.redis))
    if settings.server.token is not None or passwords or any(source.holds_a_secret for source in settings.sources):
        warn_if_open(path)
    return settings


def load_hub_settings(path: Path | None, **redis: Any) -> HubSettings:
    """A hub's settings from a TOML file, if there is one; redis are settings of the table [redis] that replace the file's.

    Raises ConfigError that names the key and what is wrong with it.
    """
    content = {} if path is None else read_toml(path)
    table = content.get("redis", {})
    if redis and isinstance(table, dict):
        content = {**content, "redis": {**table, **redis}}
    settings = _validated(HubSettings, content, "the options" if path is None else str(path))
    if path is not None and (settings.server.token is not None or settings.redis.password is not None):
        warn_if_open(path)
    return settings


def with_redis(settings: LiveSettings, **redis: Any) -> LiveSettings:
    """The settings with these in the table [redis] in place of their own. Raises ConfigError."""
    known = {} if settings.redis is None else settings.redis.model_dump(exclude_unset=True)
    published = _validated(LiveSettings, {"redis": {**known, **redis}}, "the options").redis
    return settings.model_copy(update={"redis": published})


def sources_from(urls: Iterable[str], **options: Any) -> tuple[SourceSettings, ...]:
    """Sources from a command line, with options (transport, loop) for all; equal names are numbered.

    Raises ConfigError.
    """
    given = _with_names([{"url": url, **options} for url in urls])
    return _validated(LiveSettings, {"sources": given}, "the sources").sources


def _with_names(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sources, those without a name named after their address; the second of the same name gets -2 and so on."""
    taken = {str(source["name"]).casefold() for source in sources if source.get("name") is not None}
    named = []
    for source in sources:
        name = source.get("name")
        if name is None and "url" in source:
            base = default_name(str(source["url"]))
            numbered = chain([base], (f"{base[:60]}-{number}" for number in count(2)))
            name = next(name for name in numbered if name.casefold() not in taken)
            taken.add(name.casefold())
        named.append(source if name is None else {**source, "name": name})
    return named


def _validated(kind: type[S], content: dict[str, Any], where: str) -> S:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(kind, error.errors(include_input=False)[0])}") from None


def _sentence(kind: type[Settings], fault: ErrorDetails) -> str:
    """What is wrong with which setting, named as in the settings file."""
    path = fault["loc"][1:] if fault["loc"][:1] == ("pipeline",) else fault["loc"]
    of_source = len(path) > 1 and path[0] == "sources"
    table = _ordinal(int(path[1])) if of_source else str(path[0]) if len(path) > 1 else ""
    key = ".".join(str(part) for part in path[2 if of_source else 1 if table else 0 :])
    name = (f"{table}'s {key}" if of_source else f"{table}.{key}" if table else key) if key else table
    problem = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_known(kind, str(path[0]) if table else ""))
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
    if problem.startswith("Input should"):
        return f"{name} {problem.removeprefix('Input ')}"
    return f"{name + ': ' if name else ''}{problem[:1].lower()}{problem[1:]}"


def _known(of: type[Settings], table: str) -> list[str]:
    """The settings of a table, of the whole file for none."""
    root = {**of.model_fields, **(PipelineSettings.model_fields if of is LiveSettings else {})}
    root.pop("pipeline", None)
    annotation: Any = SourceSettings if table == "sources" else root[table].annotation if table else None
    kind = next(iter(get_args(annotation)), annotation)  # of a table that may be missing
    return list(kind.model_fields if table else root)


def _ordinal(index: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth")
    return f"the {words[index]} source" if index < len(words) else f"source {index + 1}"
