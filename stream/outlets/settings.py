"""Settings of the outlets: the tables [lsl], [mqtt] and [redis] of the live service's file. An outlet without a table is not
used."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from engine.config import Settings
from engine.errors import ConfigError
from stream.permissions import make_private

PLAIN_PORT, TLS_PORT = 1883, 8883
REDIS_PORT = 6379
REDIS_USERNAME, REDIS_PASSWORD, REDIS_PASSWORD_FILE = (
    f"APEXSTREAM_REDIS_{name}" for name in ("USERNAME", "PASSWORD", "PASSWORD_FILE")
)
"""Environment variables with the user name, the password and the file of the password where the settings have none."""

_HOST = re.compile(r"[\w.:%-]{1,255}", re.ASCII)
_TOPIC = re.compile(r"[^+#\x00-\x1f\x7f-\x9f$/ ][^+#\x00-\x1f\x7f-\x9f ]{0,199}(?<!/)")
_REDIS = re.compile(
    r"(?P<scheme>rediss?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[\w.-]{1,255})(:(?P<port>[0-9]{1,5}))?(/(?P<db>[0-9]{0,4}))?",
    re.ASCII,
)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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


def _checked_address(url: str) -> str:
    if "@" in url:
        raise ValueError(f"put user name and password into {REDIS_USERNAME} and {REDIS_PASSWORD}, not into the address")
    found = _REDIS.fullmatch(url)
    if found is None or not 1 <= int(found["port"] or REDIS_PORT) <= 65535:
        raise ValueError("an address like redis://HOST:PORT/DB is expected, with TLS rediss://")
    return url


def _checked_node(name: str) -> str:
    if not _NODE.fullmatch(name):
        raise ValueError("up to 64 letters, digits, dots, _ and - are expected, as in desk-2")
    return name


def host_name() -> str:
    """This machine's name as that of a node, without the characters that a node's name cannot have."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip("._-")
    return plain[:64] or "node"


def _checked_page(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s@]{1,300}", url):
        raise ValueError("the address of this node's page is expected, as in http://desk.example:8765/")
    return url


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


class ServerCredentials(Settings):
    """How a server is convinced of this program, and this program of the server: what [mqtt] and [redis] share."""

    table: ClassVar[str]
    encryption: ClassVar[str]
    """The setting that switches encryption on, in words."""

    username: str | None = Field(None, min_length=1, description="user name at the server")
    password: SecretStr | None = Field(
        None, description="the password itself; password_env and password_file keep it elsewhere"
    )
    password_env: str | None = Field(None, description="environment variable that holds the password")
    password_file: Path | None = Field(None, description="file that holds the password")
    ca: Path | None = Field(None, description="certificates (PEM) that the server's must come from; default: the system's")
    certificate: Path | None = Field(None, description="this client's own certificate (PEM), where the server wants one")
    key: Path | None = Field(None, description="that certificate's private key (PEM)")

    @property
    @abstractmethod
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        if sum(given is not None for given in (self.password, self.password_env, self.password_file)) > 1:
            raise ValueError("give one of password, password_env and password_file")
        if not self.encrypted and (self.ca or self.certificate or self.key):
            raise ValueError(f"ca, certificate and key need {self.encryption}")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        return self

    @property
    def has_password(self) -> bool:
        """Whether a password is given, in whatever way."""
        return any(given is not None for given in (self.password, self.password_env, self.password_file))

    def secret(self) -> str | None:
        """The password, from the settings, the environment or the file. Raises ConfigError where it cannot be had."""
        if self.password_env is not None:
            found = os.environ.get(self.password_env)
            if found is None:
                raise ConfigError(f"{self.table}.password_env: the environment variable {self.password_env} is not set")
            return found
        if self.password_file is not None:
            return _read_password(self.password_file, f"{self.table}.password_file")
        return None if self.password is None else self.password.get_secret_value()

    def tls_context(self) -> ssl.SSLContext | None:
        """How to encrypt the connection; None without TLS. Raises ConfigError where a certificate cannot be used."""
        if not self.encrypted:
            return None
        if self.ca is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            with _certificate_errors(f"{self.table}.ca", self.ca, "certificates"):
                context.load_verify_locations(self.ca)
        if self.certificate is not None:
            content = f"a certificate for the unencrypted key {self.key}"
            with _certificate_errors(f"{self.table}.certificate", self.certificate, content):
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")  # else OpenSSL asks on the terminal
        return context


class MqttSettings(ServerCredentials):
    """To which MQTT broker events are sent, and how: the table [mqtt]."""

    table: ClassVar[str] = "mqtt"
    encryption: ClassVar[str] = "tls = true"

    host: Annotated[str, AfterValidator(_checked_host)] = Field(description="name or address of the broker")
    port: int | None = Field(None, ge=1, le=65535, description=f"its port; default: {PLAIN_PORT}, with TLS {TLS_PORT}")
    tls: bool = Field(False, description="encrypt the connection and check the broker's certificate")
    topic: Annotated[str, AfterValidator(_checked_topic)] = Field("apexstream", description="first part of all topics")
    home_assistant: bool = Field(True, description="describe the sources to Home Assistant, so that it finds them by itself")
    discovery_prefix: Annotated[str, AfterValidator(_checked_prefix)] = Field(
        "homeassistant", description="where Home Assistant looks for such descriptions"
    )
    version: Literal["5", "3.1.1"] = Field("5", description="version of the protocol that the broker speaks")

    @model_validator(mode="after")
    def _password_has_user(self) -> Self:
        if self.has_password and self.username is None:
            raise ValueError("a password needs a username")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls

    @property
    def used_port(self) -> int:
        """The port, by the encryption where none is given."""
        return self.port or (TLS_PORT if self.tls else PLAIN_PORT)

    @property
    def shown(self) -> str:
        """The broker's address, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.used_port}"


class RedisSettings(ServerCredentials):
    """The Redis server of a fleet, and what this node publishes there: the table [redis]. A hub reads from it."""

    table: ClassVar[str] = "redis"
    encryption: ClassVar[str] = "an address with rediss://"

    url: Annotated[str, AfterValidator(_checked_address)] = Field(description="redis://HOST:PORT/DB, with TLS rediss://")
    node: Annotated[str, AfterValidator(_checked_node)] = Field(
        default_factory=host_name, validate_default=True, description="this node's name; default: the machine's"
    )
    page: Annotated[str, AfterValidator(_checked_page)] | None = Field(
        None, description="address of this node's page, to which the hub's page links"
    )
    max_events: int = Field(100_000, ge=100, description="about how many of this node's events Redis keeps, the newest")
    signals: bool = Field(True, description="publish the motion traces too, for the hub's page")

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith("rediss:")

    @property
    def address(self) -> tuple[str, int, int]:
        """Host, port and number of the database."""
        found = _REDIS.fullmatch(self.url)
        assert found is not None, "checked when it was set"
        return found["host"].strip("[]"), int(found["port"] or REDIS_PORT), int(found["db"] or 0)

    @property
    def shown(self) -> str:
        """The server's address; it holds no credentials."""
        host, port, db = self.address
        return f"{self.url.partition(':')[0]}://{f'[{host}]' if ':' in host else host}:{port}/{db}"

    @property
    def on_this_machine(self) -> bool:
        """Whether the connection crosses no network."""
        return self.address[0] in ("localhost", "127.0.0.1", "::1")

    @property
    def user(self) -> str | None:
        """The user name, from the settings or the environment; None: the server's default user."""
        return self.username or os.environ.get(REDIS_USERNAME) or None

    def secret(self) -> str | None:
        """As that of every server; where the settings have none, from REDIS_PASSWORD or REDIS_PASSWORD_FILE."""
        if self.has_password:
            return super().secret()
        path = os.environ.get(REDIS_PASSWORD_FILE)
        return _read_password(Path(path), REDIS_PASSWORD_FILE) if path else os.environ.get(REDIS_PASSWORD) or None


def _read_password(path: Path, setting: str) -> str:
    make_private(path)
    try:
        found = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{setting}: {path} cannot be read: {reason}") from error
    if not found:
        raise ConfigError(f"{setting}: {path} is empty; it must hold the password")
    return found


@contextlib.contextmanager
def _certificate_errors(key: str, path: Path, content: str) -> Iterator[None]:
    """Raise what OpenSSL and the system say about a file as ConfigError."""
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(f"{key}: {path} does not hold {content} (PEM)") from error
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror or error}") from error
