"""Settings of one source: an entry of [[sources]] in a settings file."""

from __future__ import annotations

import os
import re
from pathlib import PurePath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from engine.config import Settings
from engine.errors import ConfigError, SourceError
from stream.sources.address import Address, Transport
from stream.sources.redaction import redact

_NAME = re.compile(r"\w[\w .-]{0,63}")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a stream's name is 1 to 64 letters, digits, spaces, dots and dashes, unlike {name!r}")
    return name


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | PurePath) and not isinstance(value, bool) else value


class SourceSettings(Settings):
    """One source."""

    name: Annotated[str, AfterValidator(_checked_name)] = Field("", description="the stream's name; default: from the url")
    url: Annotated[str, BeforeValidator(_as_text)] = Field(
        min_length=1,
        repr=False,
        description="a webcam's number or device, rtsp://, rtmp:// or http(s)://, a file, or lavfi:GRAPH (a test pattern)",
    )
    transport: Transport = Field("tcp", description="RTSP's transport: tcp or udp")
    loop: bool = Field(False, description="a file is played again when it has ended")
    username: str | None = Field(None, description="user name for the source")
    password: SecretStr | None = Field(None, description="the password itself; password_env keeps it out of the file")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    stall_s: float = Field(5.0, gt=0, le=600, description="seconds without a picture after which a stream counts as stalled")

    @model_validator(mode="before")
    @classmethod
    def _with_name(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("name") is None and "url" in content:
            return {**content, "name": default_name(str(content["url"]))}
        return content

    @property
    def holds_a_secret(self) -> bool:
        """Whether a password is given here, or the address has one, a value that its name calls a secret, or an RTMP key."""
        bare, _, query = self.url.partition("?")
        try:
            address = _parsed(bare)
        except SourceError:
            return self.password is not None or "@" in self.url
        return self.password is not None or bool(address.secrets) or (address.kind != "file" and "***" in redact(query))

    def address(self) -> Address:
        """Where the source is, with its credentials. Raises SourceError for an impossible one, ConfigError as `secret`."""
        return _parsed(self.url, transport=self.transport, username=self.username, password=self.secret())

    def secret(self) -> str | None:
        """The password, from the settings or the environment. Raises ConfigError where the variable is not set."""
        if self.password_env is None:
            return None if self.password is None else self.password.get_secret_value()
        found = os.environ.get(self.password_env)
        if found is None:
            raise ConfigError(f"{self.name}: the environment variable {self.password_env} with its password is not set")
        return found


def default_name(url: str) -> str:
    """A stream's name from its address, never with credentials: a file's stem, a host, webcam-0."""
    url = url.strip()
    if url.isdecimal():
        name = f"webcam-{url}"
    elif url.startswith("lavfi:"):
        name = "pattern"
    else:
        name = _host(url) if "://" in url else PurePath(url).stem
    return re.sub(r"[^\w .-]+", "-", name).strip(" .-")[:64] or "source"


def _host(url: str) -> str:
    """The host of a network address; "" where there is none, or what stands in its place may be part of a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    before_at, at, _ = url.partition("://")[2].removeprefix(parts.netloc).rpartition("@")
    has_port_or_login = ":" in parts.netloc.rpartition("]")[2] or "@" in parts.netloc
    return "" if at and (has_port_or_login or "#" in before_at) else parts.hostname or ""


def _parsed(url: str, **options: Any) -> Address:
    from stream.sources.kinds import parse_address  # loads FFmpeg, which most uses of settings do not need

    return parse_address(url, **options)
