"""Connections to a Redis server, for the outlet's thread and for a hub's event loop; what goes wrong is one sentence.

Nothing is retried here: who calls starts again from what Redis says that it has.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import BackendError, ConfigError, OutputError
from stream.outlets.settings import REDIS_PASSWORD, REDIS_USERNAME, RedisSettings

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

    Client = Redis
    AsyncClient = AsyncRedis

E = TypeVar("E", bound=BaseException)

CONNECT_S = 5.0
"""How long opening a connection and its encryption may take."""
ANSWER_S = 5.0
"""How long the server may take to answer, besides the time for which it was asked to wait."""
PROBE_S = 2.0
STRANGE = "does not speak Redis"
CLUSTER = "belongs to a cluster; name a single server"


def client(settings: RedisSettings, name: str) -> Client:
    """A client for one thread, and of one connection, opened at its first command: once that is lost, a command fails, where
    redis-py would silently connect again, perhaps to a server that has lost its data.

    name is shown in Redis' list of clients. Raises BackendError where redis-py is missing, ConfigError for credentials or
    certificates that cannot be read.
    """
    try:
        import redis
    except ImportError as error:
        raise _missing() from error
    opened: list[Any] = []

    def open_once(connection: Any) -> None:
        if opened:
            raise redis.ConnectionError("the connection was lost")
        connection.on_connect()
        opened.append(connection)

    return redis.Redis(**_options(settings, name), redis_connect_func=open_once)  # type: ignore[arg-type]


def async_client(settings: RedisSettings, name: str, *, waits_s: float = 0.0) -> AsyncClient:
    """As `client`, for an event loop; its commands may ask the server to wait for up to waits_s."""
    try:
        import redis.asyncio
    except ImportError as error:
        raise _missing() from error
    return redis.asyncio.Redis(**{**_options(settings, name), "socket_timeout": ANSWER_S + waits_s})


def _missing() -> BackendError:
    return BackendError("redis-py is not installed; run pip install 'apexstream[redis]'")


def _options(settings: RedisSettings, name: str) -> dict[str, Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    host, port, db = settings.address
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "db": db,
        "username": settings.user,
        "password": settings.secret(),
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": ANSWER_S,
        "client_name": name,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    if settings.tls_context() is not None:  # else a file cannot be used, which is reported
        files = {"ssl_ca_certs": settings.ca, "ssl_certfile": settings.certificate, "ssl_keyfile": settings.key}
        options |= {"ssl": True, **{name: str(path) for name, path in files.items() if path is not None}}
    return options


@contextlib.contextmanager
def redis_errors(settings: RedisSettings) -> Iterator[None]:
    """Raise what redis-py raises as OutputError with one sentence without credentials; it may try the server for some seconds
    to find out what it speaks."""
    try:
        yield
    except Exception as error:
        if not is_known_kind(error):
            raise
        raise OutputError(explained(settings, error)) from error


def explained(settings: RedisSettings, error: Exception) -> str:
    """What went wrong, as `redis_errors` says it."""
    from redis import exceptions as known

    shown, untrusted = settings.shown, _first(_causes(error), ssl.SSLCertVerificationError)
    if untrusted is not None:
        return f"the certificate of {shown} is not accepted: {untrusted.verify_message}; check ca and the host's name"
    if isinstance(error, known.AuthenticationError):
        return f"{shown} {_credentials_refused(settings, error)}"
    if is_full(error):
        return f"{shown} is full (maxmemory): events wait in this node's store until there is room"
    sentences: dict[type[Exception], str] = {
        known.NoPermissionError: "refuses a command: the user's rights (ACL) do not allow it",
        known.ReadOnlyError: "is a read-only replica; name its primary",
        known.MasterDownError: "is a replica that has lost its primary",
        known.ClusterDownError: CLUSTER,
        known.MovedError: CLUSTER,
        known.ClusterCrossSlotError: CLUSTER,
        known.BusyLoadingError: "is still loading its data",
        known.InvalidResponse: STRANGE,
    }
    sentence = next((sentence for kind, sentence in sentences.items() if isinstance(error, kind)), None)
    if sentence is None and isinstance(error, known.ConnectionError | known.TimeoutError | OSError):
        return _unreachable(settings, error)
    if sentence is None and not isinstance(error, known.RedisError):
        sentence = STRANGE
    return f"{shown} {sentence or _refusal(settings, error)}"


def _credentials_refused(settings: RedisSettings, error: Exception) -> str:
    if "without any password configured" in str(error):
        return f"has no password; leave {REDIS_PASSWORD} empty, or set one there"
    try:
        missing = settings.secret() is None
    except ConfigError:
        missing = False
    if missing:
        return f"demands a password; put it into the environment variable {REDIS_PASSWORD}"
    return f"refuses the user name or password; check {REDIS_USERNAME} and {REDIS_PASSWORD}"


def _refusal(settings: RedisSettings, error: Exception) -> str:
    """What the server says, without what it was sent: one that does not know AUTH repeats the password, and redis-py puts the
    command of a transaction before it."""
    said = str(error).rpartition("of pipeline caused error: ")[2]
    if "Invalid stream ID" in said:  # it takes NOMKSTREAM for one
        return "is older than Redis 6.2, which is needed"
    try:
        secret = settings.secret()
    except ConfigError:  # so that it cannot be left out
        return "refuses a command"
    said = said.partition(", with args")[0].partition("\n")[0]
    return f"refuses a command: {(said.replace(secret, '...') if secret else said)[:120]}"


def _unreachable(settings: RedisSettings, error: Exception) -> str:
    """Why there is no connection, or why it was lost."""
    shown, causes = settings.shown, _causes(error)
    if "max number of clients" in str(error):
        return f"{shown} has no room for another client (maxclients)"
    if any(isinstance(one, ConnectionRefusedError | socket.gaierror) for one in causes):
        return f"{shown} cannot be reached: {_system_reason(causes)}"
    if settings.encrypted and _answers(settings):
        return f"{shown} does not speak TLS; use redis:// in place of rediss://"
    if not settings.encrypted and _encrypts(settings):
        return f"{shown} demands TLS; use rediss:// in place of redis://"
    if any(isinstance(one, TimeoutError) for one in causes):
        return f"{shown} does not answer"
    reason = _system_reason(causes)
    return f"the connection to {shown} was lost{f' ({reason})' if reason else ''}"


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and those that it was raised from."""
    found, at = [], error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__  # type: ignore[assignment]
    return found


def _first(causes: list[BaseException], kind: type[E]) -> E | None:
    return next((one for one in causes if isinstance(one, kind)), None)


def _system_reason(causes: list[BaseException]) -> str:
    error = _first(causes, OSError)
    if error is None or error.strerror is None:
        return ""
    number = error.errno or 0  # asyncio has sentences of its own, getaddrinfo negative numbers
    return (os.strerror(number) if number > 0 else str(error.strerror)).lower()


def _answers(settings: RedisSettings) -> bool:
    """Whether a Redis answers there without TLS."""
    host, port, _ = settings.address
    try:
        with socket.create_connection((host, port), PROBE_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))
    except OSError:
        return False


def _encrypts(settings: RedisSettings) -> bool:
    """Whether a TLS handshake succeeds there, whatever the certificate."""
    host, port, _ = settings.address
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), PROBE_S) as plain, context.wrap_socket(plain):
            return True
    except OSError:  # ssl.SSLError is one
        return False


def is_known_kind(error: BaseException) -> bool:
    """Whether it is an error that `explained` explains; also one of redis-py's own, which what is no Redis makes stumble."""
    from redis.exceptions import RedisError

    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else str(last.tb_frame.f_globals.get("__name__"))
    return isinstance(error, RedisError | OSError) or where.startswith("redis.")


def is_full(error: object) -> bool:
    """Whether the server has no memory left, for a command or at the end of a transaction."""
    from redis.exceptions import ExecAbortError, OutOfMemoryError

    return isinstance(error, OutOfMemoryError) or (isinstance(error, ExecAbortError) and "because of: OOM" in str(error))


def is_refusal(error: object) -> bool:
    """Whether the server answered that it does not execute a command."""
    from redis.exceptions import ResponseError

    return isinstance(error, ResponseError)


def is_timeout(error: BaseException) -> bool:
    """Whether something took too long, as what is too much for a slow connection does."""
    return any(isinstance(one, TimeoutError) for one in _causes(error))


def is_missing(error: object) -> bool:
    """Whether there is no such key."""
    return is_refusal(error) and "no such key" in str(error)


def is_known(error: object) -> bool:
    """Whether the id of an entry is not greater than the last one of its stream."""
    return is_refusal(error) and "equal or smaller" in str(error)
