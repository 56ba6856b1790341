"""Settings of the outlets: the tables [lsl] and [mqtt] of the live service's file. An outlet without a table is not used."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from engine.config import Settings
from engine.errors import ConfigError
from stream.permissions import make_private

PLAIN_PORT, TLS_PORT = 1883, 8883

_HOST = re.compile(r"[\w.:%-]{1,255}", re.ASCII)
_TOPIC = re.compile(r"[^+#\x00-\x1f\x7f-\x9f$/ ][^+#\x00-\x1f\x7f-\x9f ]{0,199}(?<!/)")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,4}")


def _checked_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError("a host name or address without scheme and port is expected, as in broker.example")
    return host


def _checked_topic(topic: str) -> str:
    if not _TOPIC.fullmatch(topic):
        raise ValueError(
            "up to 200 characters without +, #, spaces and slashes at the ends are expected, as in apexstream/desk"
        )
    return topic


def _checked_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("letters, digits, _ and - are expected, as in homeassistant")
    return prefix


class LslSettings(Settings):
    """What is sent to the Lab Streaming Layer: the table [lsl]."""

    name: str = Field("apexstream", min_length=1, max_length=64, description="first word of the streams' names")
    markers: bool = Field(True, description="a stream of short markers at onset, apex and offset of each expression")
    events: bool = Field(True, description="a stream of each expression's JSON, at its onset")
    motion: bool = Field(False, description="a stream of each face's motion, frame by frame")
    activities: bool = Field(False, description="markers of speech, blinks, gaze and head turns too")
    provisional: bool = Field(False, description="markers of expressions that are not over yet too, sooner and less certain")
    delay_ms: float = Field(0.0, ge=0, le=5000, description="the cameras' own delay, subtracted from all times")

    @model_validator(mode="after")
    def _some_stream(self) -> Self:
        if not (self.markers or self.events or self.motion):
            raise ValueError("markers, events and motion are all false: switch one of them on, or remove the table")
        if (self.activities or self.provisional) and not self.markers:
            raise ValueError("activities and provisional add markers and need markers = true")
        return self


class MqttSettings(Settings):
    """To which MQTT broker events are sent, and how: the table [mqtt]."""

    host: Annotated[str, AfterValidator(_checked_host)] = Field(description="name or address of the broker")
    port: int | None = Field(None, ge=1, le=65535, description=f"its port; default: {PLAIN_PORT}, with TLS {TLS_PORT}")
    username: str | None = Field(None, min_length=1, description="user name at the broker")
    password: SecretStr | None = Field(
        None, description="the password itself; password_env and password_file keep it elsewhere"
    )
    password_env: str | None = Field(None, description="environment variable that holds the password")
    password_file: Path | None = Field(None, description="file that holds the password")
    tls: bool = Field(False, description="encrypt the connection and check the broker's certificate")
    ca: Path | None = Field(None, description="certificates (PEM) that the broker's must come from; default: the system's")
    certificate: Path | None = Field(None, description="this client's own certificate (PEM), where the broker wants one")
    key: Path | None = Field(None, description="that certificate's private key (PEM)")
    topic: Annotated[str, AfterValidator(_checked_topic)] = Field("apexstream", description="first part of all topics")
    home_assistant: bool = Field(True, description="describe the sources to Home Assistant, so that it finds them by itself")
    discovery_prefix: Annotated[str, AfterValidator(_checked_prefix)] = Field(
        "homeassistant", description="where Home Assistant looks for such descriptions"
    )
    version: Literal["5", "3.1.1"] = Field("5", description="version of the protocol that the broker speaks")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if sum(given is not None for given in (self.password, self.password_env, self.password_file)) > 1:
            raise ValueError("give one of password, password_env and password_file")
        if self.has_password and self.username is None:
            raise ValueError("a password needs a username")
        if not self.tls and (self.ca or self.certificate or self.key):
            raise ValueError("ca, certificate and key need tls = true")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        return self

    @property
    def has_password(self) -> bool:
        """Whether a password is given, in whatever way."""
        return any(given is not None for given in (self.password, self.password_env, self.password_file))

    @property
    def used_port(self) -> int:
        """The port, by the encryption where none is given."""
        return self.port or (TLS_PORT if self.tls else PLAIN_PORT)

    @property
    def shown(self) -> str:
        """The broker's address, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.used_port}"

    def secret(self) -> str | None:
        """The password, from the settings, the environment or the file. Raises ConfigError where it cannot be had."""
        if self.password_env is not None:
            found = os.environ.get(self.password_env)
            if found is None:
                raise ConfigError(f"mqtt.password_env: the environment variable {self.password_env} is not set")
            return found
        if self.password_file is not None:
            return _read_password(self.password_file)
        return None if self.password is None else self.password.get_secret_value()

    def tls_context(self) -> ssl.SSLContext | None:
        """How to encrypt the connection; None without TLS. Raises ConfigError where a certificate cannot be used."""
        if not self.tls:
            return None
        if self.ca is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            with _certificate_errors("ca", self.ca, "certificates"):
                context.load_verify_locations(self.ca)
        if self.certificate is not None:
            with _certificate_errors("certificate", self.certificate, f"a certificate for the unencrypted key {self.key}"):
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")  # else OpenSSL asks on the terminal
        return context


def _read_password(path: Path) -> str:
    make_private(path)
    try:
        found = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"mqtt.password_file: {path} cannot be read: {reason}") from error
    if not found:
        raise ConfigError(f"mqtt.password_file: {path} is empty; it must hold the password")
    return found


@contextlib.contextmanager
def _certificate_errors(key: str, path: Path, content: str) -> Iterator[None]:
    """Raise what OpenSSL and the system say about a file as ConfigError."""
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(f"mqtt.{key}: {path} does not hold {content} (PEM)") from error
    except OSError as error:
        raise ConfigError(f"mqtt.{key}: {path} cannot be read: {error.strerror or error}") from error
